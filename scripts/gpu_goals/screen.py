"""The record of a run as a table, goal by goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpu_goals.lines import FAILED, MET, NOT_RUN, SHORT, WRONG

STYLES = {MET: "green", SHORT: "bold yellow", WRONG: "bold red", FAILED: "bold red", NOT_RUN: "magenta"}
TINY = "--tiny: small shapes in Triton's interpreter on a CPU; the figures mean nothing, only that the command runs"


def show(console: Console, record: Mapping[str, Any]) -> None:
    """Print all of it; on a terminal that is too narrow lines wrap, but no number is cut."""
    tables = [_table(goal) for goal in record["goals"]]
    wide = console.options.update(width=1000)
    width = max([console.width, *(console.measure(table, options=wide).maximum for table in tables)])
    page = Console(file=console.file, width=width, force_terminal=console.is_terminal, no_color=console.no_color)
    for table in tables:
        page.print(table, soft_wrap=True)
    machine, counts = record["machine"], record["counts"]
    lines = [
        f"{machine['processor']}; torch {machine['torch']}; Triton {machine['triton']}; commit {machine['commit']}",
        ", ".join(f"{number} {verdict}" for verdict, number in counts.items()) + f"; {record['seconds']:.0f} s",
        *([TINY] if record["tiny"] else []),
    ]
    for line in lines:
        page.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(goal: Mapping[str, Any]) -> Table:
    title = f"{goal['goal']}. {goal['title']} ({goal['seconds']:.0f} s)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for head in ("what", "wanted", "got", "", "note"):
        table.add_column(head, no_wrap=True)
    for row in goal["rows"]:
        verdict = Text(row["verdict"], style=STYLES.get(row["verdict"], ""))
        cells = [Text(row[key]) for key in ("what", "wanted", "got", "note")]
        table.add_row(*cells[:3], verdict, cells[3])
    return table
