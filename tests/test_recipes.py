"""A paper's table as data, what recipes make of its cells, and the jobs that follow from a command's words."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny_run import tiny_digits, tiny_train

from torch_stn.lab import experiments
from torch_stn.lab.cell import grid
from torch_stn.lab.config import CHOICES, Config, check
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.sets import digit_facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.jobs import plan, select
from torch_stn.lab.models import build, count_parameters
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.recipes import RECIPES
from torch_stn.lab.report.page import build_report

TABLES = experiments.tables()

# Tables and recipes


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_is_one_of_its_own_that_can_be_trained_by_every_recipe(name: str) -> None:
    table = experiments.table(name)
    assert table.name == name
    assert len({cell.name for cell in table.cells}) == len(table.cells)
    assert len({(cell.row, cell.column) for cell in table.cells}) == len(table.cells)
    for cell in table.cells:
        assert cell.config.experiment == name
        assert cell.name.replace("-", "").replace(".", "").isalnum()  # it is part of a file's name
        for recipe in table.recipes:
            check(RECIPES[recipe](cell.config))


def test_the_first_table_is_the_papers() -> None:
    cells = {(cell.row, cell.column): cell for cell in experiments.table("table1").cells}
    assert len(cells) == 36
    assert sum(cell.paper is not None for cell in cells.values()) == 32
    cell = cells["ST-CNN TPS", "E"]
    assert (cell.name, cell.paper) == ("e-st-cnn-tps", 1.1)
    assert (cell.config.model, cell.config.transform, cell.config.data) == ("st-cnn", "tps", "e")
    assert [cell.paper for cell in experiments.table("tc").cells] == [13.2, 3.5, 2.0, 1.7]


def test_a_row_that_the_paper_has_not_has_no_number() -> None:
    rows = {"A": ("fcn", "affine"), "B b": ("st-fcn", "tps")}
    cells = grid(Config(), rows, {"R": "r", "E": "e"}, {"B b": (1.0, None)})
    assert [(cell.name, cell.paper) for cell in cells] == [
        ("r-a", None),
        ("e-a", None),
        ("r-b-b", 1.0),
        ("e-b-b", None),
    ]


def test_the_papers_recipe_is_plain_sgd() -> None:
    tuned = Config(
        learning_rate=0.1, warmup=0.3, label_smoothing=0.2, area_penalty=1, weight_decay=0.1, clip=1, seconds=9
    )
    changed = {key: value for key, value in asdict(RECIPES["paper"](tuned)).items() if value != asdict(Config())[key]}
    assert changed == {
        "optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.0, "schedule": "steps", "warmup": 0.0, "steps": 150_000,
        "label_smoothing": 0.0, "weight_decay": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("recipe", ["ours", "paper"])
def test_a_recipe_leaves_the_task_and_the_network_alone(recipe: str) -> None:
    trained = {
        "width", "steps", "epochs", "seconds", "batch_size", "optimizer", "learning_rate", "localization_rate", "clip",
        "weight_decay", "momentum", "schedule", "warmup", "label_smoothing", "area_penalty",
    }  # fmt: skip
    for model in set(CHOICES["model"]) - {"resnet"}:
        before = Config(model=model, seed=5)
        after = RECIPES[recipe](before)
        assert {key for key, value in asdict(after).items() if value != asdict(before)[key]} <= trained


def test_ours_plus_puts_residual_nets_in_the_place_of_cnns() -> None:
    plus = RECIPES["ours+"]
    for cell in (*experiments.table("table1").cells, *experiments.table("tc").cells):
        config = plus(cell.config)
        assert config.model == ("resnet" if cell.config.model in ("cnn", "st-cnn") else cell.config.model)
        if config.model != "resnet" or config.data in ("p", "e"):  # sets of 28 pixels as R is
            continue
        net = build(config).eval()
        facts = digit_facts(config.data)
        assert net(torch.rand(2, *facts.shape)).shape == (2, 10)
        assert isinstance(net, Aligned) == (cell.config.model == "st-cnn")
        assert count_parameters(net) < 470_000  # in half precision the zoo keeps a megabyte
    assert "ours+" not in experiments.table("volumes").recipes


def test_what_lies_beyond_a_digit_is_black_and_beyond_a_photograph_its_border() -> None:
    (cell,) = select(experiments.table("table1"), "r-st-cnn-affine")
    digits = build(RECIPES["ours+"](cell.config))
    assert isinstance(digits, Aligned)
    assert digits.transformer.padding_mode == "zeros"
    photos = build(
        Config(source="folder", data="x", model="resnet"), Facts(3, 32, 32, ("a", "b"), (0.5,) * 3, (1.0,) * 3)
    )
    assert isinstance(photos, Aligned)
    assert photos.transformer.padding_mode == "border"


def test_a_residual_net_on_digits_is_trained_evaluated_and_reported(tmp_path: Path) -> None:
    words = ("model=resnet", "data=r", "looking=resnet", "iterations=2", "norm=batch", "average=false", "dropout=0.3")
    folder = tiny_train(tmp_path / "run", *words)
    record = evaluate(folder, source=tiny_digits())
    assert record["label"] == "ST-ResNet affine x 2"
    assert set(record["pose"]) == {"rotation_deg", "shift_px", "log_scale"}
    page = build_report([folder.path], tmp_path / "report.html").read_text()
    assert "ST-ResNet affine x 2" in page
    assert "distorted test digit with the frame" in page


# The plan


def test_a_recipe_that_leaves_a_cell_as_ours_has_it_does_not_train_it_again() -> None:
    jobs = plan(experiments.table("tc"), [], "ours+", 1, None)
    assert [job.cell.name for job in jobs] == ["tc-cnn", "tc-st-cnn-affine"]
    assert len(plan(experiments.table("tc"), [], "paper", 1, None)) == 4
    with pytest.raises(UserError, match=r"--recipe: ours\+ leaves tc-fcn of tc as ours has them"):
        plan(experiments.table("tc"), [], "ours+", 1, "tc-fcn")


def test_every_cell_comes_once_before_any_comes_twice() -> None:
    jobs = plan(experiments.table("table1"), ["steps=7"], "ours", 2, "*-fcn,r-cnn")
    names = ["r-fcn", "rts-fcn", "p-fcn", "e-fcn", "r-cnn"]
    assert {job.cell.name for job in jobs} >= set(names)
    half = len(jobs) // 2
    assert [job.seed for job in jobs] == [0] * half + [1] * half
    assert [job.cell for job in jobs[:half]] == [job.cell for job in jobs[half:]]
    assert all(job.config.seed == job.seed and job.config.steps == 7 for job in jobs)


def test_a_job_says_its_files_and_its_command() -> None:
    (_, job) = plan(experiments.table("table1"), ["steps=7"], "paper", 2, "r-fcn")
    assert job.name == "r-fcn-1-paper"
    assert job.result(Path("a")) == Path("a/table1/r-fcn-1-paper.json")
    assert job.command == "stn reproduce table1 steps=7 --recipe paper --cells r-fcn --seeds 2"
    assert plan(experiments.table("tc"), [], "ours", 1, "tc-cnn")[0].name == "tc-cnn-0"


def test_a_word_comes_after_the_recipe() -> None:
    (job,) = plan(experiments.table("table1"), ["learning_rate=0.5"], "paper", 1, "r-fcn")
    assert (job.config.learning_rate, job.config.optimizer) == (0.5, "sgd")
