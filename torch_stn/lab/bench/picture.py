"""The record as a picture: bars of each rival's time over ours, on a logarithmic scale; what we lose points left."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from torch_stn.lab.bench.rows import STAGES, Row, columns, rows, titled

# Okabe and Ito: distinguishable with any colour vision.
COLOURS = {"aten": "#0072B2", "compile": "#56B4E9", "kornia": "#E69F00", "opencv": "#009E73"}
LOSS = "#D55E00"
BAR = 0.085  # inches a bar
GAP = 0.13  # inches between two cases
SOURCE = "Source"  # the PNG's text field with the digest of the record


def draw(record: Mapping[str, Any]) -> bytes:
    """A PNG of the record; it carries the record's digest, so that one can tell whether it is still true."""
    stages = [stage for stage in STAGES if rows(record, stage)]
    names = columns(record)
    step = GAP + BAR * max(1, len(names))
    height = 1.1 + step * max(len(rows(record, stage)) for stage in stages)
    figure = Figure(figsize=(10.5, max(2.6, height)), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(stages), squeeze=False, sharey=True)[0]
    order = [row.name for row in rows(record, stages[0])]
    for axes, stage in zip(panels, stages, strict=True):
        _panel(axes, rows(record, stage), order, names, step)
        axes.set_title(STAGES[stage], fontsize=11, loc="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(names) + 1, frameon=False, fontsize=9)
    figure.supxlabel("time of the rival / our time (to the right of 1 we are faster; hatched: we lose)", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None, SOURCE: digest(record)})
    return buffer.getvalue()


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record's content, whatever its layout on disk."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _panel(axes: Axes, found: list[Row], order: list[str], names: list[str], step: float) -> None:
    """One stage: a group of bars a case, from 1 to the ratio."""
    for index, name in enumerate(names):
        shown = [(row, row.against[name].ratio) for row in found if name in row.against]
        places = [order.index(row.name) + (index - (len(names) - 1) / 2) * BAR / step for row, _ in shown]
        ratios = [ratio for _, ratio in shown]
        bars = axes.barh(
            places,
            [ratio - 1 for ratio in ratios],
            left=1,
            height=0.9 * BAR / step,
            color=COLOURS.get(name, "#777777"),
            label=titled(name),
        )
        for bar, place, ratio in zip(bars, places, ratios, strict=True):
            if ratio < 1:
                bar.set(hatch="/////", edgecolor=LOSS, linewidth=0)
            if name == "aten" or ratio < 1:
                side = "left" if ratio >= 1 else "right"
                colour = "#333333" if ratio >= 1 else LOSS
                axes.annotate(
                    f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}",
                    (ratio, place),
                    (3 if ratio >= 1 else -3, 0),
                    textcoords="offset points",
                    ha=side,
                    va="center",
                    fontsize=6.5,
                    color=colour,
                )
    wanted = [(order.index(row.name), row.wanted) for row in found if row.wanted is not None and "aten" in names]
    if wanted:
        half = 0.5 * BAR * len(names) / step
        axes.vlines(
            [value for _, value in wanted],
            [place - half for place, _ in wanted],
            [place + half for place, _ in wanted],
            colors="#111111",
            lw=1.1,
            label="wanted against eager",
        )
    _scale(axes, [other.ratio for row in found for other in row.against.values() if other.name in names])
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.set_ylim(len(order) - 0.4, -0.6)


def _scale(axes: Axes, ratios: list[float]) -> None:
    """Logarithmic around 1, the lost side tinted, plain numbers."""
    low, high = min([0.5, *(r * 0.75 for r in ratios)]), max([2.0, *(r * 1.35 for r in ratios)])
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.axvspan(low, 1, color=LOSS, alpha=0.07, lw=0)
    axes.axvline(1, color="#333333", lw=1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#000000", alpha=0.12, lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
