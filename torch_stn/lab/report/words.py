"""The report in words: the lead and the table of runs, never claiming more than the run folders hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch_stn.lab.report.runs import Run

NBSP = "\N{NO-BREAK SPACE}"  # between a number and its unit, so that a line never ends between them
NOTHING = "\N{EN DASH}"
QUANTITIES = (("rotation_deg", "rotation", "°"), ("shift_px", "shift", f"{NBSP}px"), ("log_scale", "log-scale", ""))
VERBS = {"rotation": "turn", "shift": "shift", "log-scale": "scale"}
# A residual that falls below this share of its value before is called learned, below the second partly learned.
LEARNED, PARTLY = 0.6, 0.95
# More results than these are summed up in one sentence.
TOLD = 4

TRANSFORMER = (
    "A spatial transformer is a small network in front of a classifier. For every picture it chooses a frame, and the "
    "classifier sees only what lies inside that frame. Nobody tells it how a digit was turned, shifted or scaled: all "
    "it ever learns from is the class label, through the classifier's mistakes."
)
PHOTOS = (
    "A spatial transformer is a small network in front of a classifier. For every image it chooses a frame, and the "
    "classifier sees only what lies inside that frame. Nobody tells it where to look: all it ever learns from is the "
    "class, through the classifier's mistakes."
)
PLAIN_PHOTOS = "No run on this page has a spatial transformer: the classifier sees every image as it is."
PLAIN = "No run on this page has a spatial transformer: nothing here sets a digit upright before it is read."

HEADINGS = (
    "Run",
    "Data",
    "Test error",
    "Residual rotation",
    "Residual shift",
    "Residual log-scale",
    "Within-class variance",
    "Parameters",
    "Training",
    "Seed",
    "Device",
)


@dataclass(frozen=True)
class Cell:
    """One cell of the table: what it says, and a smaller second line."""

    text: str
    note: str = ""

    @property
    def empty(self) -> bool:
        """Whether the run has no such value."""
        return self.text == NOTHING


def names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its label; with the folder's name where runs share it, and a number if they share both."""
    labels = Counter(run.label for run in runs)
    found = [run.label if labels[run.label] == 1 else f"{run.label} ({run.name})" for run in runs]
    repeated = Counter(found)
    return [name if repeated[name] == 1 else f"{name} [{index}]" for index, name in enumerate(found, 1)]


def lead(runs: Sequence[Run], called: Sequence[str]) -> list[str]:
    """The paragraphs that open the page: what this is, then what each run (with a transformer, if any has) came to."""
    transformers = [pair for pair in zip(runs, called, strict=True) if pair[0].has_transformer]
    told = transformers or list(zip(runs, called, strict=True))
    first = TRANSFORMER if transformers else PLAIN
    if all(run.photos for run in runs):
        first = PHOTOS if transformers else PLAIN_PHOTOS
    if len(told) > TOLD:
        return [first, _summary(told)]
    return [first, *(_result(run, name, runs, called) for run, name in told)]


def _summary(told: Sequence[tuple[Run, str]]) -> str:
    """Many runs in one sentence."""
    errors = sorted((run.evaluation["error"], name) for run, name in told if run.evaluation)
    if not errors:
        return f"None of these {len(told)} runs has been evaluated yet."
    (least, best), (most, worst) = errors[0], errors[-1]
    reach = f"from {percent(least)} ({best}) to {percent(most)} ({worst})"
    return f"Of {len(told)} runs, {len(errors)} are evaluated: their test errors reach {reach}."


def _result(run: Run, name: str, runs: Sequence[Run], called: Sequence[str]) -> str:
    """What one run came to: its error, its twin's, and its alignment."""
    if run.evaluation is None:
        return f"{name} has not been evaluated yet: its error and its pictures appear here after “stn evaluate”."
    tested = f"{run.things} of {run.data}" if run.photos else f"{run.data} {run.things}"
    text = f"{name} misreads {percent(run.evaluation['error'])} of the {tested}"
    twins = [pair for pair in zip(runs, called, strict=True) if _twin(run, pair[0])]
    if twins:
        twin, twin_name = min(twins, key=lambda pair: pair[0].config.get("seed") != run.config.get("seed"))
        assert twin.evaluation is not None
        text += f"; {twin_name}, its twin without a transformer, {percent(twin.evaluation['error'])}"
        times = duration(run.evaluation.get("train_seconds")), duration(twin.evaluation.get("train_seconds"))
        if all(times):
            same = times[0] == times[1]
            text += f" (both trained for {times[0]})" if same else f" (trained for {times[0]} and {times[1]})"
    return f"{text}. {_alignment(run)}".strip()


def _twin(run: Run, other: Run) -> bool:
    """Whether the other run is the same classifier on the same set, without the transformer."""
    if run.evaluation is None or other.evaluation is None:
        return False
    same = run.data == other.data and run.evaluation.get("digits") == other.evaluation.get("digits")
    if run.model == other.model == "resnet":
        return same and run.has_transformer and not other.has_transformer
    return same and run.model == f"st-{other.model}"


def learned(run: Run) -> list[str]:
    """What the transformer learned to undo: turn, shift, scale."""
    return [VERBS[word] for word, _, (before, after) in _measured(run) if after <= LEARNED * before]


def _measured(run: Run) -> list[tuple[str, str, tuple[float, float]]]:
    """Quantity, unit and residual (before, after), of those that the set distorts at all."""
    return [(word, unit, pair) for key, word, unit in QUANTITIES if (pair := run.pose(key)) and pair[0] > 1e-3]


def _alignment(run: Run) -> str:
    """One sentence on the residual pose; empty where it is not defined."""
    measured, fully = _measured(run), learned(run)
    if not measured:
        return ""
    partly = [VERBS[word] for word, _, (before, after) in measured if LEARNED * before < after <= PARTLY * before]
    verdict = "It did not learn to align the digits"
    if fully:
        place = "upright" if "turn" in fully else "into place"
        verdict = f"From class labels alone it learned to {_list(fully)} the digits {place}"
        verdict += f", and in part to {_list(partly)} them" if partly else ""
    elif partly:
        verdict = f"From class labels alone it learned in part to {_list(partly)} the digits"
    spread = [f"that of {word} {_went(pair, unit)}" for word, unit, pair in measured]
    spread[0] = spread[0].replace("that", "the spread", 1)
    return f"{verdict}: within a class, {_list(spread)}."


def _went(pair: tuple[float, float], unit: str) -> str:
    """A change as a verb with its object."""
    before, after = (f"{figure(value)}{unit}" for value in pair)
    return f"stayed at {before}" if before == after else f"went from {before} to {after}"


def rows(runs: Sequence[Run], called: Sequence[str]) -> list[list[Cell]]:
    """The table: one row for each run, in the order of HEADINGS. Columns that are empty throughout are left in."""
    return [_row(run, name) for run, name in zip(runs, called, strict=True)]


def _row(run: Run, name: str) -> list[Cell]:
    record = run.evaluation or {}
    steps = record.get("train_steps") or (run.loss.step[-1] if len(run.loss) else None)
    seconds = record.get("train_seconds") or (run.loss.seconds[-1] if len(run.loss) else None)
    parameters = record.get("parameters")
    error = Cell("not evaluated")
    if run.evaluation:
        error = Cell(error_text(run), _tested(record, "images" if run.photos else "digits"))
    return [
        Cell(name, "" if run.name in name else run.name),
        Cell(run.data, "" if run.photos else str(record.get("digits") or "")),
        error,
        *(Cell(change(run.pose(key), unit)) for key, _, unit in QUANTITIES),
        Cell(change(run.variance, ""), shares(run)),
        Cell(f"{parameters:,}" if isinstance(parameters, int) else NOTHING),
        Cell(duration(seconds) or NOTHING, f"{int(steps):,}{NBSP}steps" if steps else ""),
        Cell(str(run.config.get("seed", NOTHING))),
        Cell(str(run.environment.get("device", NOTHING))),
    ]


def _tested(record: dict[str, Any], things: str) -> str:
    """How many pictures the error is of: distortions times digits."""
    pictures, distortions = record.get("test_images"), record.get("distortions")
    if not isinstance(pictures, int):
        return ""
    if not isinstance(distortions, int) or distortions < 2 or pictures % distortions:
        return f"{pictures:,}{NBSP}{things}"
    return f"{distortions} \N{MULTIPLICATION SIGN} {pictures // distortions:,} {things}".replace(" ", NBSP)


def error_text(run: Run) -> str:
    """The test error with its spread over the distortions of the test set."""
    record = run.evaluation or {}
    spread = record.get("error_sd")
    text = percent(record["error"])
    if not isinstance(spread, int | float) or not spread or not math.isfinite(spread):
        return text
    return f"{text.removesuffix(f'{NBSP}%')} ± {spread:.2f}{NBSP}%"


def shares(run: Run) -> str:
    """Within-class variance as a share of the mean squared pixel, before → after; empty where it was not measured."""
    pair = run.variance_share
    return f"share {100 * pair[0]:.0f} → {100 * pair[1]:.0f} %".replace(" ", NBSP) if pair else ""


def change(pair: tuple[float, float] | None, unit: str) -> str:
    """before → after."""
    return f"{figure(pair[0])} → {figure(pair[1])}{unit}" if pair else NOTHING


def figure(value: float) -> str:
    """A measured value with two or three digits that mean something."""
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 1 else 2 if size >= 0.1 or not size else 3
    return f"{value:.{decimals}f}"


def percent(value: float) -> str:
    """An error in percent."""
    return f"{value:.1f}{NBSP}%" if value >= 10 else f"{value:.2f}{NBSP}%"


def duration(seconds: object) -> str:
    """Seconds in words that fit a table cell; empty when unknown."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return ""
    whole = round(seconds)
    if whole < 120:
        return f"{whole}{NBSP}s" if seconds >= 10 else f"{seconds:.1f}{NBSP}s"
    hours, minutes = divmod(whole // 60, 60)
    return (f"{minutes} min {whole % 60:02d} s" if not hours else f"{hours} h {minutes:02d} min").replace(" ", NBSP)


def _list(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
