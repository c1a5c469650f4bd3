"""The matplotlib figures of the report: training curves and poses, as SVG data URIs (never through pyplot)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from torch_stn.lab.report.runs import Curve, Run

# Okabe and Ito: distinguishable with any colour vision. The dash pattern says the same a second time.
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
RUN_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
# One for each digit, after Petroff's sequence for colour-vision deficiency, drawn towards a middle lightness: the page
# turns lightness round on dark paper, and pale or deep colours would vanish on the one or the other.
CLASS_COLOURS = (
    "#3f90da", "#e29100", "#c92a10", "#8a9896", "#9a4fd0", "#a96b59", "#e76300", "#9c8f47", "#717581", "#3fb0b8",
)  # fmt: skip
POSES = (
    ("rotation", "rotation_deg", "°"),
    ("shift in x", "shift_px", "px"),
    ("shift in y", "shift_px", "px"),
    ("log-scale", "log_scale", ""),
)


@dataclass(frozen=True)
class Figured:
    """A finished figure: its SVG, what it shows in words (for those who cannot see it), and a title."""

    uri: str
    alt: str
    title: str


def style(index: int) -> tuple[str, tuple[float, ...]]:
    """Colour and dash pattern of the run at this place in the list: 28 runs before a pair comes again."""
    return RUN_COLOURS[index % len(RUN_COLOURS)], RUN_DASHES[index % len(RUN_DASHES)]


def curves(runs: Sequence[Run], names: Sequence[str]) -> list[Figured]:
    """Training loss and test error of all runs, each by seconds and by step. A series that no run has is left out."""
    figures = []
    for what, series, unit in (("Training loss", "loss", ""), ("Test error", "error", " [%]")):
        lines: list[Curve] = [getattr(run, series) for run in runs]
        if not any(len(line) for line in lines):
            continue
        for axis, label in (("seconds", "seconds of training"), ("step", "step")):
            figure, axes = _panel(4.0, 2.65)
            for index, line in enumerate(lines):
                _draw(axes, getattr(line, axis), line.value, index, smooth=series == "loss")
            axes.set_xlabel(label)
            axes.set_ylabel(what.lower() + unit)
            _y_scale(axes, [line.value for line in lines])
            title = f"{what} by {axis}"
            alt = f"{title}. " + " ".join(
                _in_words(n, getattr(c, axis), c.value, axis) for n, c in zip(names, lines, strict=True)
            )
            figures.append(Figured(_uri(figure), alt.strip(), title))
    return figures


def poses(run: Run) -> list[Figured]:
    """Predicted against true pose, one figure for each of the four quantities that the data set distorts."""
    true, predicted, labels = (run.arrays.get(name) for name in ("true_pose", "predicted_pose", "pose_labels"))
    if true is None or predicted is None or labels is None or not len(true):
        return []
    figures = []
    for column, (name, key, unit) in enumerate(POSES[: true.shape[1]]):
        good = np.isfinite(true[:, column]) & np.isfinite(predicted[:, column])
        x, c = true[good, column].astype(np.float64), labels[good]
        if len(x) < 2 or np.ptp(x) < 1e-3:  # this set leaves the quantity alone: nothing to undo
            continue
        residual = _residual(x + predicted[good, column], c, circular=key == "rotation_deg")
        bracket = f" [{unit}]" if unit else ""
        figure, axes = _panel(2.75, 2.6)
        low, high = x.min() - 0.04 * np.ptp(x), x.max() + 0.04 * np.ptp(x)
        axes.plot([low, high], [-low, -high], color="#111111", lw=1.3, zorder=3)
        order = np.argsort(np.sin(np.arange(len(x)) * 12.9898))  # mixed, so that no class covers the others
        colours = np.array(CLASS_COLOURS)[c % len(CLASS_COLOURS)]
        axes.scatter(
            x[order],
            (residual - x)[order],
            s=4.5,
            c=list(colours[order]),
            alpha=0.75,
            linewidths=0,
            rasterized=True,
            zorder=2,
        )
        floor, ceiling = np.percentile(residual - x, [0.1, 99.9])
        room = 0.04 * (ceiling - floor)
        axes.set(xlim=(low, high), ylim=(min(-high, floor - room), max(-low, ceiling + room)))
        axes.set(xlabel=f"true {name}{bracket}", ylabel=f"predicted {name}{bracket}")
        slope = float(np.polyfit(x, residual - x, 1)[0])
        alt = (
            f"{name}: predicted against true for {len(x)} test digits. Fitted slope {slope:.2f}, ideal -1; "
            f"spread about the ideal line {residual.std():.3g}{unit and ' ' + unit}."
        )
        figures.append(Figured(_uri(figure), alt, name.capitalize()))
    return figures


def _residual(total: np.ndarray, labels: np.ndarray, *, circular: bool) -> np.ndarray:
    """true + predicted less each class's own constant: every class may choose the pose in which it rests."""
    residual = np.empty_like(total)
    for label in np.unique(labels):
        here = labels == label
        if circular:
            mean = np.angle(np.exp(1j * np.deg2rad(total[here])).mean(), deg=True)
            residual[here] = (total[here] - mean + 180) % 360 - 180
        else:
            residual[here] = total[here] - total[here].mean()
    return residual


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure in the report's look: transparent, two spines, a faint grid."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.grid(color="#000000", alpha=0.10, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#888888", labelcolor="#333333", labelsize=9)
    axes.xaxis.label.set(size=10, color="#333333")
    axes.yaxis.label.set(size=10, color="#333333")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _draw(axes: Axes, x: np.ndarray, y: np.ndarray, index: int, *, smooth: bool) -> None:
    """One series: raw and faint under its running mean where it is noisy, marked where it is sparse."""
    colour, dashes = style(index)
    line: dict[str, Any] = {"color": colour, "lw": 1.8, "dashes": dashes} if dashes else {"color": colour, "lw": 1.8}
    if smooth and len(y) >= 40:
        axes.plot(x, y, color=colour, lw=0.7, alpha=0.28)
        y = _running_mean(y, max(3, len(y) // 40))
    axes.plot(x, y, **line, marker="o" if len(y) < 40 else None, ms=3.2)


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over about 2 * width + 1 values, NaN values left out, shorter at the ends."""
    good = np.isfinite(y)
    sums, counts = np.cumsum(np.r_[0, np.where(good, y, 0)]), np.cumsum(np.r_[0, good])
    here = np.arange(len(y))
    reach = np.minimum(width, np.minimum(here, len(y) - 1 - here))
    low, high = here - reach, here + reach + 1
    count = counts[high] - counts[low]
    return np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)


def _y_scale(axes: Axes, series: Sequence[np.ndarray]) -> None:
    """Logarithmic where the values are positive and span a factor of three, with plain numbers on the axis."""
    values = np.concatenate(series)
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 3 * values.min():
        return
    decades = np.log10(values.max() / values.min())
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _in_words(name: str, x: np.ndarray, y: np.ndarray, axis: str) -> str:
    """First and last value of a series, for the alt text."""
    if not len(y):
        return f"{name}: no values."
    unit = "after {:.0f} s" if axis == "seconds" else "at step {:.0f}"
    return f"{name}: from {y[0]:.3g} to {y[-1]:.3g} {unit.format(x[-1])}."


def _uri(figure: Figure) -> str:
    """The figure as an SVG data URI: an image of its own, so that its ids cannot clash with another figure's."""
    buffer = io.BytesIO()
    # A fixed salt and no date: the same run folder gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "torch-stn", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=180, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
