"""The record as a picture: bars of each rival's time over ours, on a logarithmic scale; losses point left."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from torch_stn.lab.bench.rows import STAGES, Against, Row, columns, rows, titled

# Okabe and Ito: distinguishable with any colour vision.
COLOURS = {"aten": "#0072B2", "compile": "#56B4E9", "kornia": "#E69F00", "opencv": "#009E73"}
OTHER = "#777777"
LOSS = "#D55E00"
WANTED = "#111111"
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
    figure.legend(handles=_legend(names), loc="outside upper right", ncols=len(names) + 1, frameon=False, fontsize=9)
    figure.supxlabel("time of the rival / our time (to the right of 1 we are faster; hatched: we lose)", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None, SOURCE: digest(record)})
    return buffer.getvalue()


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record's content, whatever its layout on disk."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _legend(names: list[str]) -> list[Artist]:
    """Made by hand: a group of bars that begins with a loss would give its hatching to all."""
    bars: list[Artist] = [Patch(color=COLOURS.get(name, OTHER), label=titled(name)) for name in names]
    return [*bars, Line2D([], [], color=WANTED, lw=1.4, label="wanted against eager")]


def _panel(axes: Axes, found: list[Row], order: list[str], names: list[str], step: float) -> None:
    """One stage: a group of bars a case, from 1 to the ratio; pale where the rival reads other points."""
    for row in found:
        middle = order.index(row.name)
        for index, name in enumerate(names):
            if name in row.against:
                place = middle + (index - (len(names) - 1) / 2) * BAR / step
                _bar(axes, place, row.against[name], 0.9 * BAR / step)
        if row.wanted is not None and "aten" in names:
            half = 0.5 * BAR * len(names) / step
            axes.vlines(row.wanted, middle - half, middle + half, colors=WANTED, lw=1.4)
    _scale(axes, [row.against[name].ratio for row in found for name in names if name in row.against])
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.set_ylim(len(order) - 0.4, -0.6)


def _bar(axes: Axes, place: float, other: Against, height: float) -> None:
    """One bar, with its number where we lose and against eager."""
    lost, colour = other.ratio < 1, COLOURS.get(other.name, OTHER)
    (bar,) = axes.barh(place, other.ratio - 1, left=1, height=height, color=colour)
    bar.set_alpha(0.45 if other.other_picture else 1.0)
    if lost:
        bar.set(hatch="/////", edgecolor=LOSS, linewidth=0)
    if lost or other.name == "aten":
        axes.annotate(
            f"{other.ratio:.2g}" if other.ratio < 100 else f"{other.ratio:.0f}",
            (other.ratio, place),
            (-3 if lost else 3, 0),
            textcoords="offset points",
            ha="right" if lost else "left",
            va="center",
            fontsize=6.5,
            color=LOSS if lost else "#333333",
        )


def _scale(axes: Axes, ratios: list[float]) -> None:
    """Logarithmic around 1, the lost side tinted, plain numbers."""
    low, high = min([0.5, *(r * 0.6 for r in ratios)]), max([2.0, *(r * 1.35 for r in ratios)])
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
