"""What the page shows of one run: its images, the course of its alignment, poses, class means, mistakes, confusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torch_stn.lab.report import figures, words
from torch_stn.lab.report.pictures import Picture, picture
from torch_stn.lab.report.runs import Run, moments

MOMENTS = 6
MOST_CLASSES = 60  # of a confusion matrix that can be read
NAMED_COLUMNS = 6


@dataclass(frozen=True)
class Card:
    """An image as it came in, what the classifier saw of it (empty: the same), a caption; `wrong` marks a mistake."""

    source: Picture
    seen: list[Picture]
    caption: str
    note: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Moment:
    """One row of the training's course: for every image the input with its frame (None: unknown) and the outputs."""

    step: int
    time: str
    cells: list[tuple[Picture | None, list[Picture]]]


@dataclass(frozen=True)
class Confused:
    """One cell of the confusion matrix: the share of the true class in percent, the count, how strongly to tint."""

    text: str
    count: int
    tint: float
    right: bool


@dataclass(frozen=True)
class Section:
    """One run, ready for the template. Empty lists are parts that this run does not have."""

    anchor: str
    name: str
    colour: str
    folder: str
    evaluated: bool
    transformer: bool
    facts: list[tuple[str, str]]
    digits: list[Card]
    moments: list[Moment]
    moment_labels: list[str]
    poses: list[tuple[figures.Figured, str]]
    means: list[Card]
    mistakes: list[Card]
    confusion: list[list[Confused]]
    rows: list[str]  # of the confusion matrix
    columns: list[str]
    things: str
    photos: bool
    settings: list[tuple[str, str]]


def section(run: Run, name: str, index: int) -> Section:
    """The pictures and numbers of one run; `index` is its place on the page."""
    return Section(
        anchor=f"run-{index + 1}",
        name=name,
        colour=figures.style(index)[0],
        folder=run.name,
        evaluated=run.evaluation is not None,
        transformer=run.has_transformer,
        facts=_facts(run),
        digits=_digits(run),
        moments=_moments(run),
        moment_labels=[run.called(label) for label in run.arrays.get("labels", ())],
        poses=_poses(run),
        means=_means(run),
        mistakes=_mistakes(run),
        confusion=_confusion(run),
        **_class_names(run),
        things=run.things,
        photos=run.photos,
        settings=_settings(run),
    )


def _settings(run: Run) -> list[tuple[str, str]]:
    """The config as it was, and when the run began."""
    known = {"folder": run.name, **run.config, "started": run.environment.get("started")}
    return [(key, str(value)) for key, value in known.items() if key != "format" and value is not None]


def _facts(run: Run) -> list[tuple[str, str]]:
    """The figures under the heading of a run."""
    facts = [("Data", run.data)]
    if run.evaluation:
        facts.append(("Test error", words.error_text(run)))
    for key, word, unit in words.QUANTITIES:
        if pair := run.pose(key):
            facts.append((f"Residual {word}", words.change(pair, unit)))
    if run.variance:
        share = words.shares(run)
        facts.append(("Within-class variance", words.change(run.variance, "") + (f" ({share})" if share else "")))
    return facts


def _digits(run: Run) -> list[Card]:
    """The dozen test images, with the frames where there is a transformer."""
    a = run.arrays
    if "inputs" not in a:
        return []
    cards = []
    thing = run.things.removesuffix("s").capitalize()
    for index, (image, label, prediction) in enumerate(zip(a["inputs"], a["labels"], a["predictions"], strict=True)):
        name = run.called(label)
        lines = a["lines"][index] if "lines" in a else None
        framed = "" if lines is None else ", with the sampling frame on it"
        source = picture(image, f"{thing} {name}{framed}", lines)
        seen = _seen(a["outputs"][index], f"The same {name} as the classifier sees it") if "outputs" in a else []
        wrong = bool(np.any(label != prediction))
        cards.append(Card(source, seen, name, f"read as {run.called(prediction)}" if wrong else "", wrong))
    return cards


def _seen(outputs: np.ndarray, alt: str) -> list[Picture]:
    """What the classifier saw: (h, w), or (count, h, w, C) of transformers side by side."""
    return [picture(each, alt) for each in (outputs if outputs.ndim == 4 else outputs[None])]


def _moments(run: Run) -> list[Moment]:
    """About six moments of the training, first and last among them."""
    inputs = run.arrays.get("inputs")
    shown = []
    for snapshot in moments(run.snapshots, MOMENTS):
        count = len(snapshot.outputs)
        known = inputs if inputs is not None and len(inputs) == count else [None] * count
        cells = [
            (None if image is None else picture(image, "", lines), _seen(output, ""))
            for image, lines, output in zip(known, snapshot.lines, snapshot.outputs, strict=True)
        ]
        shown.append(Moment(snapshot.step, words.duration(snapshot.seconds), cells))
    return shown


def _poses(run: Run) -> list[tuple[figures.Figured, str]]:
    """The pose figures, each with the residual before and after in its caption."""
    keys = {name.capitalize(): key for name, key, _ in figures.POSES}
    units = {key: unit for key, _, unit in words.QUANTITIES}
    found = []
    for drawn in figures.poses(run):
        key = keys[drawn.title]
        unit, pair = units[key], run.pose(key)
        what = "x and y together" if key == "shift_px" else "residual"
        found.append((drawn, f"{what}: {words.change(pair, unit)}" if pair else ""))
    return found


def _means(run: Run) -> list[Card]:
    """Mean of all inputs of each class beside the mean of all outputs, on one grey scale."""
    a = run.arrays
    if "mean_inputs" not in a or "mean_outputs" not in a:
        return []
    top = max(float(np.nanmax(a["mean_inputs"])), float(np.nanmax(a["mean_outputs"])), 1e-6)
    cards = []
    for k, (before, after) in enumerate(zip(a["mean_inputs"], a["mean_outputs"], strict=True)):
        name = run.called(k)
        source = picture(before, f"Mean of all inputs of class {name}", top=top)
        cards.append(Card(source, [picture(after, f"Mean of all outputs of class {name}", top=top)], name))
    return cards


def _mistakes(run: Run) -> list[Card]:
    """The mistakes of which the network was surest."""
    a = run.arrays
    if "mistakes" not in a:
        return []
    cards = []
    named = (run.evaluation or {}).get("mistake_files")
    files = [str(name) for name in named] if isinstance(named, list) else []
    for index in np.argsort(-a["mistake_confidence"], kind="stable"):
        label, prediction = (run.called(a[key][index]) for key in ("mistake_labels", "mistake_predictions"))
        seen: list[Picture] = []
        if "mistake_outputs" in a:
            seen = _seen(a["mistake_outputs"][index], f"The same {label} as the classifier sees it")
        source = picture(a["mistakes"][index], f"A {label} that was read as {prediction}")
        sure = f"{100 * a['mistake_confidence'][index]:.0f}{words.NBSP}% sure"
        note = f"{sure}, {files[index]}" if index < len(files) else sure
        cards.append(Card(source, seen, f"{label} → {prediction}", note, wrong=True))
    return cards


def _confusion(run: Run) -> list[list[Confused]]:
    """Rows are true classes, columns predictions, in percent of the row."""
    counts = run.arrays.get("confusion")
    if counts is None or len(counts) > MOST_CLASSES:
        return []
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = shares - np.diag(np.diag(shares))
    worst = max(float(wrong.max()), 1e-9)
    return [
        [_confused(int(counts[t, p]), float(shares[t, p]), worst, right=t == p) for p in range(counts.shape[1])]
        for t in range(len(counts))
    ]


def _class_names(run: Run) -> dict[str, list[str]]:
    """Names of the rows and columns of the confusion matrix; many columns are numbered, since names would not fit."""
    count = len(run.arrays.get("confusion", ()))
    names = [run.called(k) for k in range(count)]
    if not run.photos or count <= NAMED_COLUMNS:
        return {"rows": names, "columns": names}
    return {"rows": [f"{k} {name}" for k, name in enumerate(names)], "columns": [str(k) for k in range(count)]}


def _confused(count: int, share: float, worst: float, *, right: bool) -> Confused:
    if right:
        # Most of the scale is for the last tenth, where classes differ.
        return Confused(f"{share:.1f}", count, round(0.12 + 0.38 * max(0.0, (share - 80) / 20), 3), right)
    text = "" if not count else "<.1" if share < 0.05 else f"{share:.1f}".removeprefix("0")
    return Confused(text, count, round(0.6 * (share / worst) ** 0.7, 3), right)
