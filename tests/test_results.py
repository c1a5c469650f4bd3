"""docs/reproductions.md and docs/benchmarks.md say what results/ holds, and nothing else."""

import importlib.util
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from torch_stn.lab import experiments
from torch_stn.lab.bench.picture import SOURCE, digest
from torch_stn.lab.config import Config, override
from torch_stn.lab.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "scripts" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_results(results: ModuleType) -> None:
    assert list((ROOT / "results").glob("*.json")), "results/ is empty"
    assert results.PAGE.read_text(encoding="utf-8") == results.page(), "run: python scripts/results.py page"


def test_a_changed_file_is_noticed(results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "results", tmp_path / "results")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    assert results.page() == results.PAGE.read_text(encoding="utf-8")
    for path in sorted((tmp_path / "results").glob("**/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if path.name.startswith(results.BENCHMARK) or "evaluation" not in record:
            continue
        whole = path.read_text(encoding="utf-8")
        table = experiments.table(record["table"]) if "table" in record else None
        if table is None or table.measure == "error":
            record["evaluation"]["error"] += 1
        else:
            record["evaluation"]["measures"][table.measure] += 1
        path.write_text(json.dumps(record), encoding="utf-8")
        assert results.page() != results.PAGE.read_text(encoding="utf-8"), path
        path.write_text(whole, encoding="utf-8")


def test_the_page_of_benchmarks_is_made_from_the_results(results: ModuleType) -> None:
    written = results.BENCHMARKS_PAGE.read_text(encoding="utf-8")
    assert written == results.benchmarks_page(), "run: python scripts/results.py page"
    for name, record in results.benchmarks().items():
        with Image.open(results.PICTURES / f"{name}.png") as picture:
            assert picture.info[SOURCE] == digest(record), f"{name}.png is of another record: see above"


def test_a_benchmark_is_no_reproduction(results: ModuleType) -> None:
    assert results.BENCHMARK not in results.PAGE.read_text(encoding="utf-8")


def test_a_result_is_of_the_cell_that_stands_in_the_table_today() -> None:
    """A cell that becomes another network or another recipe leaves its old results behind: they are run again."""
    known = asdict(Config())
    for path in sorted((ROOT / "results").glob("*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "cell" not in record:
            continue
        cells = {cell.name: cell for cell in experiments.table(record["table"]).cells}
        today = replace(RECIPES[record["recipe"]](cells[record["cell"]].config), seed=record["seed"])
        wanted = asdict(override(today, record["overrides"]))
        # A key that was not there yet had the value that is now its default.
        found = known | {key: value for key, value in record["config"].items() if key in known}
        assert found == wanted, path
