"""docs/support.md says what is so: every cell is done again."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import support
import support_transforms

ROOT = Path(__file__).parents[1]
SECTIONS: dict[str, ModuleType] = {"Interpolations": support, "Transforms": support_transforms}
QUICK = [(title, row, column) for title, of in SECTIONS.items() for row in of.ROWS for column in of.QUICK]
SLOW = [(title, row, column) for title, of in SECTIONS.items() for row in of.ROWS for column in of.SLOW]


def script() -> ModuleType:
    """scripts/support.py, which is no package."""
    spec = importlib.util.spec_from_file_location("support_script", ROOT / "scripts" / "support.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
SAID = {title: script().cells(PAGE, title) for title in SECTIONS}


def test_the_page_has_every_cell_and_no_other() -> None:
    said = {(title, row, column) for title, cells in SAID.items() for row, column in cells}
    assert said == {*QUICK, *SLOW}


@pytest.mark.parametrize(("title", "row", "column"), QUICK)
def test_what_is_quick(title: str, row: str, column: str) -> None:
    assert SECTIONS[title].QUICK[column](row) == SAID[title][row, column]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("title", "row", "column"), SLOW)
def test_what_takes_longer(title: str, row: str, column: str) -> None:
    assert SECTIONS[title].SLOW[column](row) == SAID[title][row, column]
