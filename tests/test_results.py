"""docs/reproductions.md says what results/ holds, and nothing else."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_made_from_the_results():
    spec = importlib.util.spec_from_file_location("results", ROOT / "scripts" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    assert list((ROOT / "results").glob("*.json")), "results/ is empty"
    assert results.PAGE.read_text(encoding="utf-8") == results.page(), "run: python scripts/results.py page"
