"""Make docs/support.md by doing everything that it says: python scripts/support.py

Its columns are the checks of tests/support.py and tests/support_transforms.py; tests/test_support.py holds the page to
them, cell by cell.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "support.md"
ANSWERS = ROOT / "build" / "support.json"  # as they come: all of them take a quarter of an hour
TICK = "✓"
SECTIONS = {"Interpolations": "support", "Transforms": "support_transforms"}  # and who checks them, in tests/
HEAD = """# What works with what

Made by `python scripts/support.py`, which does what each cell says; `make test` (and, for compile, export and ONNX,
`make test-slow`) does it again and compares. A number is a refusal with its reason, given below.

Paddings: reading outside equals reading from a picture padded by numpy. Gradients, double backward: `gradcheck`,
`gradgradcheck`. jvp: against differences. compile: one graph for batches of 11, 3 and 13. export: any batch.
ONNX: opset 20, any batch, against onnxruntime. Backends: against `reference`, in 1-D, 2-D and 3-D.
Of interpolations, compile, export and ONNX are checked in 2-D, of nearest and bilinear in 3-D too (not in 1-D, where
no map warps).
Transforms are checked in 2-D and in 3-D; boxes, compile, export and ONNX in 2-D where they have it.

"""


def table(title: str, rows: list[str], columns: list[str], cell: Callable[[str, str], str | None]) -> str:
    """A section: a row a kernel, a column a check, then the reasons."""
    reasons: dict[str, int] = {}
    lines = [f"## {title}\n", f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for row in rows:
        answers = [cell(row, column) for column in columns]
        marks = [TICK if why is None else str(reasons.setdefault(why, len(reasons) + 1)) for why in answers]
        lines.append(f"| {row} | {' | '.join(marks)} |")
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def cells(page: str, title: str) -> dict[tuple[str, str], str | None]:
    """What a page says, read back: None for a tick, else the reason."""
    section = page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    notes = dict(line.split(". ", 1) for line in section.splitlines() if line[:1].isdigit())
    return {
        (line[0], column): None if mark == TICK else notes[mark]
        for line in lines[2:]
        for column, mark in zip(lines[0][1:], line[1:], strict=True)
    }


def main() -> None:
    """Run every check and write the page; `--resume` goes on with the answers of a run that was cut short."""
    resumed = ANSWERS.exists() and "--resume" in sys.argv
    answers = json.loads(ANSWERS.read_text(encoding="utf-8")) if resumed else {}
    sys.path.insert(0, str(ROOT / "tests"))
    sections = []
    for title, name in SECTIONS.items():
        module: Any = importlib.import_module(name)
        checks = {**module.QUICK, **module.SLOW}

        def cell(row: str, column: str, title: str = title, checks: Any = checks) -> str | None:
            key = f"{title}: {row}: {column}"
            if key not in answers:
                print(key, flush=True)
                answers[key] = checks[column](row)
                ANSWERS.parent.mkdir(exist_ok=True)
                ANSWERS.write_text(json.dumps(answers), encoding="utf-8")
            answer: str | None = answers[key]
            return answer

        sections.append(table(title, list(module.ROWS), list(checks), cell))
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(HEAD + "\n".join(sections), encoding="utf-8")
    os.replace(temporary, PAGE)


if __name__ == "__main__":
    main()
