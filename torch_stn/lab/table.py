"""The table of evaluated runs, on the screen; it fits 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

CAPTION = "rotation, shift, log-scale: spread within a class, before → after the transformer"


def print_results(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """Print the table whole: on a terminal that is too narrow its lines wrap, but no number is cut."""
    table = results_table(records)
    width = max(console.width, console.measure(table, options=console.options.update(width=200)).maximum)
    Console(file=console.file, width=width).print(table, soft_wrap=True)


def results_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """One row a run: error, what is left of rotation, shift and scale, parameters, seconds.

    Of images, whose pose nobody knows: error, and the mean of the classes' own errors.
    """
    if records and all("classes" in record for record in records):
        return _images(records)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), caption=CAPTION, caption_justify="left")
    for name in ("network", "set", "error %", "rotation °", "shift px", "log-scale", "params", "s"):
        table.add_column(name, justify="left" if name in ("network", "set") else "right", no_wrap=True)
    for record in records:
        pose = record.get("pose") or {}
        table.add_row(
            str(record["label"]),
            str(record["set"]),
            f"{record['error']:.2f} ± {record['error_sd']:.2f}",
            *(
                _arrow(pose.get(key), digits)
                for key, digits in (("rotation_deg", 1), ("shift_px", 1), ("log_scale", 2))
            ),
            f"{record['parameters']:,}",
            f"{record['train_seconds']:.0f}",
        )
    return table


def _images(records: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("network", "set", "images", "error %", "mean of classes %", "params", "s"):
        table.add_column(name, justify="left" if name in ("network", "set") else "right", no_wrap=True)
    for record in records:
        table.add_row(
            str(record["label"]),
            str(record["set"]),
            f"{record['test_images']:,}",
            f"{record['error']:.2f}",
            f"{record['balanced_error']:.2f}",
            f"{record['parameters']:,}",
            f"{record['train_seconds']:.0f}",
        )
    return table


def _arrow(pair: Mapping[str, float] | None, digits: int) -> str:
    return "" if pair is None else f"{pair['before']:.{digits}f}→{pair['after']:.{digits}f}"
