"""The table of evaluated runs, on the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def results_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """One row a run: error, what is left of rotation, shift and scale, parameters, seconds."""
    table = Table(title="Residual pose: spread within a class, before -> after the transformer")
    for name in (
        "network",
        "set",
        "error %",
        "rotation deg",
        "shift px",
        "log-scale",
        "parameters",
        "steps",
        "seconds",
    ):
        table.add_column(name, justify="left" if name in ("network", "set") else "right")
    for record in records:
        pose = record.get("pose") or {}
        table.add_row(
            str(record["label"]),
            str(record["set"]),
            f"{record['error']:.2f} ± {record['error_sd']:.2f}",
            *(
                _arrow(pose.get(key), digits)
                for key, digits in (("rotation_deg", 1), ("shift_px", 2), ("log_scale", 3))
            ),
            f"{record['parameters']:,}",
            f"{record['train_steps']:,}",
            f"{record['train_seconds']:.0f}",
        )
    return table


def _arrow(pair: Mapping[str, float] | None, digits: int) -> str:
    return "" if pair is None else f"{pair['before']:.{digits}f} -> {pair['after']:.{digits}f}"
