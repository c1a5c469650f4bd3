"""The examples run, and the pages about them say what results/examples/ holds."""

import importlib
import json
import statistics
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "examples"


def runs(name: str, key: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of a file by what distinguishes them."""
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["runs"]:
        by_name[row[key]].append(row)
    return by_name


def spread(errors: list[float]) -> str:
    """``8.32 ± 0.16``, or ``8.3`` of one run."""
    return f"{statistics.mean(errors):.2f}" + (f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else "")


@pytest.mark.parametrize("name", ["inverse_compositional", "learned_basis"])
def test_the_page_of_the_examples_says_what_was_measured(name: str) -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for network, rows in runs(name, "network").items():
        assert len(rows) == 3, network
        assert spread([row["error"] for row in rows]) in page, network


def test_the_page_of_the_examples_says_how_brains_were_registered() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for pair, (row,) in runs("register_brain", "pair").items():
        before, affine, after = (f"{row['ncc'][stage]:.3f}" for stage in ("before", "affine", "after"))
        flow = "then flow " if pair == "3d" else ""
        said = f"{before}, {'affine ' if flow else ''}{affine}, {flow}**{after}**, {row['folds']} folds, {row['seconds']} s"
        assert said in page, pair


def test_the_page_of_failures_says_what_was_measured() -> None:
    page = (ROOT / "docs" / "why-does-my-stn-not-align.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| run ")]
    wanted = []
    for name, rows in runs("failure_modes", "run").items():
        rotation, shift = (
            " to ".join(f"{statistics.mean(row['pose'][key][side] for row in rows):.{digits}f}" for side in (0, 1))
            for key, digits in (("rotation_deg", 1), ("shift_px", 2))
        )
        scale = f"{statistics.mean(row['scale'] for row in rows):.2f}"
        error = spread([row["error"] for row in rows])
        wanted.append(f"| {name} | {rows[0]['set'].upper()} | {len(rows)} | {error} | {rotation} | {shift} | {scale} |")
    assert table == wanted


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """A script of the folder, imported as its own __main__ would."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("example", ["inverse_compositional"], indirect=True)
@pytest.mark.parametrize("iterations", [1, 2])
def test_the_networks_of_inverse_compositional_learn(example: ModuleType, iterations: int) -> None:
    torch.manual_seed(0)
    error = example.compare.__globals__["train"](example.network(iterations), example.homography, seed=0, steps=2)
    assert 50 < error <= 100


@pytest.mark.parametrize("example", ["learned_basis"], indirect=True)
def test_the_learned_functions_learn(example: ModuleType) -> None:
    torch.manual_seed(0)
    model = example.network(example.Basis(example.LearnedFunctions(), torch.eye(3 + example.FUNCTIONS, 2)))
    before = model[0].transform.basis.net[0].weight.detach().clone()
    train = example.compare.__globals__["train"]
    train(model, example.perturb, seed=0, steps=3)
    assert not torch.equal(model[0].transform.basis.net[0].weight, before)


@pytest.mark.parametrize("example", ["failure_modes"], indirect=True)
def test_a_failure_is_measured(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "STEPS", 6)
    monkeypatch.setattr(example, "DRAWS", 1)
    row = example.run("localisation frozen")
    assert row["pose"]["rotation_deg"][0] == row["pose"]["rotation_deg"][1]
    assert row["scale"] == 1
