"""The record on the screen: a table a stage, then losses, what fell short, who was absent, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torch_stn.lab.bench.rows import (
    STAGES,
    Against,
    absent,
    columns,
    losses,
    machine_text,
    memory_text,
    missed,
    ratio_text,
    rows,
    time_text,
    titled,
)

CAPTION = (
    "rivals: their time over ours, below 1 we lose; floor: a copy of the bytes that must move, over ours; "
    "≠ reads other points"
)


def show(console: Console, record: Mapping[str, Any]) -> None:
    """Print all of it; on a terminal that is too narrow lines wrap, but no number is cut."""
    tables = [_table(record, stage) for stage in STAGES if rows(record, stage)]
    wide = console.options.update(width=400)
    width = max([console.width, *(console.measure(table, options=wide).maximum for table in tables)])
    page = Console(file=console.file, width=width, force_terminal=console.is_terminal, no_color=console.no_color)
    for table in tables:
        page.print(table, soft_wrap=True)
    lists = {
        "slower than": losses(record),
        "short of what is wanted": missed(record),
        "absent": absent(record),
        "warning": record["warnings"],
    }
    for head, lines in lists.items():
        for line in lines:
            page.print(f"{head}: {line}", highlight=False, markup=False, soft_wrap=True)
    page.print(machine_text(record), highlight=False, markup=False, soft_wrap=True)


def _table(record: Mapping[str, Any], stage: str) -> Table:
    found = rows(record, stage)
    extra = list(dict.fromkeys(name for row in found for name in row.against if name not in columns(record)))
    names = [*columns(record), *extra]
    caption = CAPTION if stage == "both" else None
    table = Table(title=STAGES[stage], box=box.SIMPLE, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
    heads = ["case", "backend", "ours", "±", *map(titled, names), "wanted", "floor", "MiB", "eager MiB", "error"]
    for head in heads:
        table.add_column(head, justify="left" if head in ("case", "backend") else "right", no_wrap=True)
    for row in found:
        table.add_row(
            row.name,
            row.backend,
            time_text(row.median),
            f"{row.spread:.0%}",
            *(_ratio(row.against.get(name)) for name in names),
            "" if row.wanted is None else f"{row.wanted:g}",
            f"{row.floor:.0%}",
            memory_text(row.peak),
            memory_text(row.eager_peak),
            f"{row.error:.0e}",
        )
    return table


def _ratio(other: Against | None) -> Text:
    """Red where we lose."""
    return Text(ratio_text(other), style="bold red" if other is not None and other.ratio < 1 else "")
