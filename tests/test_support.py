"""docs/support.md says what is so: every cell is done again."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from support import QUICK, ROWS, SLOW

ROOT = Path(__file__).parents[1]


def script() -> ModuleType:
    """scripts/support.py, which is no package."""
    spec = importlib.util.spec_from_file_location("support_script", ROOT / "scripts" / "support.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAID = script().cells((ROOT / "docs" / "support.md").read_text(encoding="utf-8"), "Interpolations")


def test_the_page_has_every_cell() -> None:
    assert set(SAID) == {(row, column) for row in ROWS for column in (*QUICK, *SLOW)}


@pytest.mark.parametrize("column", QUICK)
@pytest.mark.parametrize("row", ROWS)
def test_what_is_quick(row: str, column: str) -> None:
    assert QUICK[column](row) == SAID[row, column]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("column", SLOW)
@pytest.mark.parametrize("row", ROWS)
def test_what_takes_longer(row: str, column: str) -> None:
    assert SLOW[column](row) == SAID[row, column]
