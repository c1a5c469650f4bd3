"""`stn reproduce`: where it stops and goes on, what it writes, and how it refuses."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from command_line import INTERRUPTED, complaint, move_to, see_few_digits, stn
from tiny_run import WORDS, weights

from torch_stn.lab import experiments, reproduce, train
from torch_stn.lab.claims import claimed
from torch_stn.lab.errors import UserError
from torch_stn.lab.jobs import Job
from torch_stn.lab.run_folder import RunFolder

TINY = [word for word in WORDS if not word.startswith(("data=", "model="))]
CLOCK = {"train_seconds", "started", "seconds"}  # what no two runs share


@pytest.fixture(autouse=True)
def few_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)
    see_few_digits(monkeypatch)


def go(*words: object, cells: str = "r-fcn,r-st-fcn-affine", seeds: int = 1) -> tuple[int, str, str]:
    return stn("reproduce", "table1", *TINY, *words, "--cells", cells, "--seeds", seeds)


def record(name: str) -> dict[str, Any]:
    return json.loads(Path(f"results/table1/{name}.json").read_text())


def without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_clock(each) for key, each in value.items() if key not in CLOCK}
    return [without_clock(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (("tabel1",), f"TABLE: wanted one of {', '.join(experiments.tables())}, got 'tabel1'; nearest: table1"),
        (("table1", "--recipe", "our"), "--recipe: wanted one of ours, ours+, paper with table1, got 'our'"),
        (
            ("table1", "--cells", "r-fcn,r-st-fnc"),
            "--cells: no cell of table1 is like 'r-st-fnc', wanted some of r-fcn",
        ),
        (("table1", "--cells", ""), "--cells: no cell of table1 is like ''"),
        (("table1", "--seeds", 0), "--seeds: wanted a count of at least 1, got 0"),
        (("table1", "seed=1"), "seed: wanted no seed= beside --seeds, which takes a count"),
        (("table1", "model=fcn"), "model: is what a cell is, wanted --cells instead of model=fcn"),
        (("table1", "devices=2"), "devices: a table is made by one process"),
        (("table1", "stesp=1"), "stesp: no such key; nearest: steps"),
        (("table1", "steps=0"), "steps, epochs, seconds: all are 0"),
        (("table1", "--budget-minutes", 0), "--budget-minutes: wanted a number above 0, got 0"),
        (("table1", "--budget-minutes", "nan"), "--budget-minutes: wanted a number above 0, got nan"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words: tuple[object, ...], start: str, tmp_path: Path) -> None:
    assert complaint("reproduce", *words).startswith(start)
    assert list(tmp_path.iterdir()) == []


# The work


def test_each_cell_is_a_file_and_is_not_done_twice() -> None:
    code, out, err = go()
    assert (code, out) == (0, "2 done\n")
    assert "r-fcn-0: 1 of 2" in err
    kept = record("r-st-fcn-affine-0")
    assert {key: kept[key] for key in ("table", "cell", "seed", "recipe", "overrides")} == {
        "table": "table1", "cell": "r-st-fcn-affine", "seed": 0, "recipe": "ours", "overrides": TINY,
    }  # fmt: skip
    assert kept["command"].startswith("stn reproduce table1 digits=embedded ")
    run = RunFolder.open("runs/reproduce/table1/r-st-fcn-affine-0")
    for part in ("config", "environment", "evaluation"):
        assert kept[part] == run.read_json(f"{part}.json", missing="")
    assert f"r-st-fcn-affine-0: error % {kept['evaluation']['error']:.2f}, paper 1.2 -> results/" in err
    before = {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}
    assert go()[:2] == (0, "2 were there\n")
    assert {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()} == before


def test_one_seed_more_is_one_run_a_cell_more() -> None:
    go(cells="r-fcn")
    code, out, _ = go(cells="r-fcn", seeds=2)
    assert (code, out) == (0, "1 done, 1 were there\n")
    assert record("r-fcn-0")["config"]["seed"] == 0
    assert record("r-fcn-1")["config"]["seed"] == 1
    assert record("r-fcn-0")["evaluation"] != record("r-fcn-1")["evaluation"]


def test_results_of_another_machine_are_skipped_alike(tmp_path: Path) -> None:
    go("--results", "theirs", cells="r-fcn")
    (tmp_path / "theirs").rename("results")
    (tmp_path / "runs").rename("gone")
    assert go()[:2] == (0, "1 done, 1 were there\n")


def test_a_recipe_has_its_own_files() -> None:
    go(cells="r-fcn")
    assert go("--recipe", "paper", cells="r-fcn")[:2] == (0, "1 done\n")
    assert record("r-fcn-0-paper")["config"]["optimizer"] == "sgd"
    assert record("r-fcn-0")["config"]["optimizer"] == "adamw"


class Clock:
    """time.monotonic that reads an hour later from a number of readings on."""

    def __init__(self, jump: int) -> None:
        self.left = jump

    def __call__(self) -> float:
        self.left -= 1
        return 3600.0 if self.left < 0 else 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets a clock for the harness and the training loop."""

    def setting(jump: int) -> None:
        fake = type("time", (), {"monotonic": Clock(jump), "perf_counter": staticmethod(time.perf_counter)})
        monkeypatch.setattr(reproduce, "time", fake)
        monkeypatch.setattr(train, "time", fake)

    yield setting
    monkeypatch.undo()


@pytest.mark.parametrize("jump", [1, 3, 5, 11, 13])
def test_a_budget_stops_cleanly_and_the_next_call_ends_where_one_without_would(jump: int, clock: Any) -> None:
    go("--results", "whole")
    Path("runs").rename("whole-runs")
    clock(jump)
    code, out, err = go("--budget-minutes", 1)
    assert code == 0
    assert "left: r-st-fcn-affine-0\n" in out
    assert ("left: r-fcn-0\n" in out) == (jump < 9)  # the deadline, before the run, at each of seven moments of it
    assert ("the budget is used up; stopped at step" in err) == (jump not in (1,))
    assert len(list(Path().glob("results/**/*"))) == (0 if jump < 9 else 2)
    clock(10**6)
    code, out, _ = go("--budget-minutes", 1)
    assert code == 0
    assert "left" not in out
    for name in ("r-fcn-0", "r-st-fcn-affine-0"):
        mine, whole = RunFolder(f"runs/reproduce/table1/{name}"), RunFolder(f"whole-runs/reproduce/table1/{name}")
        assert weights(mine) == weights(whole)
        assert without_clock(record(name)) == without_clock(json.loads(Path(f"whole/table1/{name}.json").read_text()))


def test_two_runs_give_the_same_bytes() -> None:
    cells = "r-fcn,rts-st-cnn-tps"
    for name in ("a", "b"):
        go("--results", f"results-{name}", cells=cells)
        Path("runs").rename(f"runs-{name}")
    for name in ("r-fcn-0", "rts-st-cnn-tps-0"):
        runs = [RunFolder(f"runs-{each}/reproduce/table1/{name}") for each in "ab"]
        assert weights(runs[0]) == weights(runs[1])
        arrays = [safetensors.torch.load_file(run.path / "evaluation.safetensors") for run in runs]
        assert arrays[0].keys() == arrays[1].keys()
        assert all(value.equal(arrays[1][key]) for key, value in arrays[0].items())
        results = [json.loads(Path(f"results-{each}/table1/{name}.json").read_text()) for each in "ab"]
        assert results[0]["evaluation"]["error"] == results[1]["evaluation"]["error"]
        assert json.dumps(without_clock(results[0])) == json.dumps(without_clock(results[1]))


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(job: Job, path: Path, deadline: float) -> dict[str, Any]:
        raise train.Interrupted(3)

    monkeypatch.setattr(reproduce, "_run", interrupted)
    code, out, err = go(cells="r-fcn")
    assert (code, out) == (INTERRUPTED, "")
    assert err.splitlines()[-1] == "stn: interrupted; what is trained is saved, the same command goes on"
    monkeypatch.undo()


def test_a_run_that_was_begun_otherwise_is_not_gone_on_with(clock: Any) -> None:
    clock(5)
    go("--budget-minutes", 1, cells="r-fcn")
    text = complaint("reproduce", "table1", *TINY, "learning_rate=0.25", "--cells", "r-fcn", "--seeds", 1)
    run = "runs/reproduce/table1/r-fcn-0"
    assert text == f"{run}: was begun with learning_rate=0.005, wanted learning_rate=0.25; delete it to begin again"
    assert not Path("results").exists()


def test_a_cell_that_fails_does_not_stop_the_others() -> None:
    code, out, err = go("learning_rate=1e30", "warmup=0", cells="r-fcn")
    assert (code, out) == (1, "1 failed\n")
    assert "r-fcn-0: loss: not finite at step" in err
    assert err.splitlines()[-1] == "stn: failed: r-fcn-0"
    assert not Path("results").exists()


def test_a_result_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        if self.parent.name == "table1":
            with open(self, "wb") as file:
                file.write(data[:20])
            raise OSError(28, "No space left on device", str(self))
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = go(cells="r-fcn")
    assert code != 0
    assert "No space left on device" in err
    assert [path for path in Path("results").rglob("*") if path.is_file()] == []
    monkeypatch.undo()


def test_what_a_word_changes_is_compared_but_not_how_the_digits_were_found() -> None:
    go(cells="r-fcn")
    config = RunFolder.open("runs/reproduce/table1/r-fcn-0").config()
    reproduce.refuse_other_config(Path("runs/reproduce/table1/r-fcn-0"), replace(config, digits="auto"))
    with pytest.raises(UserError, match="was begun with width=8, wanted width=9"):
        reproduce.refuse_other_config(Path("runs/reproduce/table1/r-fcn-0"), replace(config, width=9))


def test_a_cell_that_another_process_is_at_is_left_to_it() -> None:
    other = Path("runs/reproduce/table1/r-fcn-0")
    other.parent.mkdir(parents=True)
    with claimed(other, lambda: False) as mine:
        assert mine
        code, out, err = go()
        assert (code, out) == (0, "1 done, 1 with another process\n")
        assert "r-fcn-0: another process is at it" in err
        assert not Path("results/table1/r-fcn-0.json").exists()
    assert go()[:2] == (0, "1 done, 1 were there\n")
    assert not list(other.parent.glob(".*.lock"))
