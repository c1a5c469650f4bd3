"""A goal's lines before they are measured, and the rows of the table that become of them; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MET, SHORT = "met", "short"
TOLD = "told"  # nothing was wanted of it
WRONG = "wrong"  # no parity with float64: never timed
FAILED = "failed"  # it ended in an error
NOT_RUN = "not run"

# What a value is multiplied by to be read, and the words behind it.
UNITS = {
    "floor": (100, " % of the floor"),
    "eager": (1, " x eager's speed"),
    "compile": (1, " x torch.compile's speed"),
    "kornia": (1, " x kornia's speed"),
    "torch": (1, " x torch's time"),
    "us": (1e6, " µs"),
    "ms": (1e3, " ms"),
    "error": (100, " % off"),
    "runs": (1, " runs alike"),
    "picture": (1, " x the picture"),
    "step": (100, " % of the step"),
    "exit": (1, " as exit code"),
}


class NotRunError(Exception):
    """Why a line cannot be measured here."""


class WrongError(Exception):
    """A result that is not what float64 says, so that its time means nothing."""


def text(value: float, unit: str) -> str:
    """A value for a reader.

    >>> text(0.8196, "floor"), text(40e-6, "us")
    ("81.96 % of the floor", '40 µs')
    """
    scale, words = UNITS[unit]
    return f"{value * scale:.4g}{words}"


@dataclass(frozen=True)
class Wanted:
    """A bound on a value in SI units, in whose own unit it is read: at least, or with ``most`` at most."""

    bound: float
    unit: str
    most: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value keeps to the bound; NaN never does."""
        return value <= self.bound if self.most else value >= self.bound

    def __str__(self) -> str:
        return f"at {'most' if self.most else 'least'} {text(self.bound, self.unit)}"


@dataclass(frozen=True)
class Line:
    """What is measured and what is wanted of it: a bound, or only a unit, where the value is told and not judged."""

    what: str
    wanted: Wanted | str


@dataclass(frozen=True)
class Got:
    """What was measured for a line."""

    value: float
    note: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)  # what else the record keeps: seconds, bytes, errors
    words: str = ""  # shown in place of the value


@dataclass(frozen=True)
class Task:
    """Lines that are measured together."""

    lines: Sequence[Line]
    measure: Callable[[], Sequence[Got]]


@dataclass(frozen=True)
class Row:
    """A line of the table and of the record."""

    goal: int
    what: str
    wanted: str
    got: str
    verdict: str
    note: str = ""
    value: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.goal}. {self.what}: {self.got or '-'}, wanted {self.wanted or 'no bound'}: {self.verdict}{note}"


def judged(goal: int, line: Line, got: Got) -> Row:
    """The row of a line that was measured."""
    unit = line.wanted if isinstance(line.wanted, str) else line.wanted.unit
    verdict = TOLD if isinstance(line.wanted, str) else MET if line.wanted.holds(got.value) else SHORT
    value = got.value if math.isfinite(got.value) else None
    return Row(
        goal, line.what, _wanted(line), got.words or text(got.value, unit), verdict, got.note, value, got.numbers
    )


def unmeasured(goal: int, task: Task, verdict: str, why: str) -> list[Row]:
    """The rows of lines of which there is no value."""
    return [Row(goal, line.what, _wanted(line), "", verdict, why) for line in task.lines]


def measured(goal: int, task: Task) -> list[Row]:
    """The rows of a task, whatever happens: nothing that fails keeps the others from being measured."""
    try:
        got = task.measure()
        return [judged(goal, line, each) for line, each in zip(task.lines, got, strict=True)]
    except NotRunError as reason:
        return unmeasured(goal, task, NOT_RUN, str(reason))
    except WrongError as reason:
        return unmeasured(goal, task, WRONG, str(reason))
    except Exception as error:
        first = (str(error).strip() or "no word").splitlines()[0]
        return unmeasured(goal, task, FAILED, f"{type(error).__name__}: {first}"[:240])


def _wanted(line: Line) -> str:
    return "" if isinstance(line.wanted, str) else str(line.wanted)


@dataclass(frozen=True)
class Goal:
    """A line of the project's goals: its number there, its share of the run's seconds, and who measures it."""

    number: int
    title: str
    seconds: float
    tasks: Callable[[Any], Sequence[Task]]  # of a Device


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows got which verdict."""
    verdicts = (MET, SHORT, WRONG, FAILED, NOT_RUN, TOLD)
    return {verdict: sum(row.verdict == verdict for row in rows) for verdict in verdicts}
