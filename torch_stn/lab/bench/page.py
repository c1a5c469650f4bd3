"""docs/benchmarks.md, from records alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch_stn.lab.bench.rows import (
    STAGES,
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

HEAD = """# How fast it is

Made by `python scripts/results.py page` from `results/benchmarks-*.json`; do not edit. `stn bench` makes such a file
anywhere: `pip install 'torch-stn[bench]'`, then `stn bench --json mine.json --picture mine.png`.

Each column of a rival is its time over ours, so 4 means that we take a quarter of the time, and **bold** that we lose.
Eager is `F.grid_sample(x, F.affine_grid(theta))`; for other transforms the grid is ours and the sampling torch's; half
images are read in float32 there, because a half grid is off by pixels. ≠ marks a rival that reads other points, its
nearest equivalent. OpenCV goes forward only. *Wanted* is what the project asks of itself against eager. *Floor* is the
time of a copy of as many bytes as must move (image in, picture out; and their gradients), over ours: 100 % cannot be
beaten. *MiB* is the most resident memory that a call adds, results and gradients included. *Error* is the relative L2
difference of the picture from float64, on white noise. *±* is half the distance between the quartiles. Contenders run
by turns in one process; every case is compared with the float64 reference, gradients too, before anything is timed.
"""
NONE = "\nNothing has been measured yet.\n"


def page(records: Mapping[str, Mapping[str, Any]], pictures: str) -> str:
    """The page: a section a record, by the name of its file; ``pictures`` is where their pictures lie, seen from it."""
    if not records:
        return HEAD + NONE
    return HEAD + "".join(_section(name, record, pictures) for name, record in records.items())


def _section(name: str, record: Mapping[str, Any], pictures: str) -> str:
    quick = " (a quick look, few rounds)" if record["quick"] else ""
    parts = [f"\n## {name}{quick}\n\n{machine_text(record)}.\n"]
    parts += [f"\n**Doubtful: {line}.**\n" for line in record["warnings"]]
    parts.append(f"\n![The times of rivals over ours, case by case]({pictures}/{name}.png)\n")
    parts += [f"\n### {title}\n\n{_table(record, stage)}" for stage, title in STAGES.items() if rows(record, stage)]
    parts.append(_list("Where we lose", losses(record), "Nowhere."))
    parts.append(_list("Short of what is wanted", missed(record), "Nothing."))
    parts.append(_list("Who was absent, and why", absent(record), "Nobody."))
    return "".join(parts)


def _table(record: Mapping[str, Any], stage: str) -> str:
    found = rows(record, stage)
    extra = list(dict.fromkeys(name for row in found for name in row.against if name not in columns(record)))
    names = [*columns(record), *extra]
    heads = ["case", "backend", "ours", "±", *map(titled, names), "wanted", "floor", "MiB", "eager MiB", "error"]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for row in found:
        ratios = []
        for name in names:
            other = row.against.get(name)
            text = ratio_text(other)
            ratios.append(f"**{text}**" if other is not None and other.ratio < 1 else text)
        wanted = "" if row.wanted is None else f"{row.wanted:g}"
        memory = [memory_text(row.peak), memory_text(row.eager_peak)]
        measured = [time_text(row.median), f"{row.spread:.0%}"]
        cells = [row.name, row.backend, *measured, *ratios, wanted, f"{row.floor:.0%}", *memory, f"{row.error:.0e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _list(head: str, lines: list[str], otherwise: str) -> str:
    return f"\n### {head}\n\n" + ("".join(f"* {line}\n" for line in lines) if lines else f"{otherwise}\n")
