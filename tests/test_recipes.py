"""A paper's table as data, what recipes make of its cells, and the jobs that follow from a command's words."""

from dataclasses import asdict
from pathlib import Path

import pytest

from torch_stn.lab import experiments
from torch_stn.lab.cell import grid
from torch_stn.lab.config import CHOICES, Config, check
from torch_stn.lab.jobs import plan
from torch_stn.lab.recipes import RECIPES

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
        for recipe in RECIPES.values():
            check(recipe(cell.config))


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


# The plan


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
