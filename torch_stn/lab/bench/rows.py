"""What a record says, a row a case and stage: screen, page and picture show the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = "stn"
STAGES = {"forward": "Forward", "both": "Forward and backward"}
TITLES = {"aten": "eager", "compile": "compiled", "kornia": "kornia", "opencv": "OpenCV"}
FORMAT = 1
OTHER_PICTURE = 0.03  # a rival's relative error from which on it does not read the same points; OpenCV rounds to 0.02


@dataclass(frozen=True)
class Against:
    """A contender beside ours."""

    name: str  # "aten", ..., or "stn/cpu": a backend of ours that steps back
    ratio: float  # its time over ours: below 1 we lose
    error: float
    other_picture: bool


@dataclass(frozen=True)
class Row:
    """One case in one stage."""

    name: str
    backend: str
    median: float  # microseconds
    spread: float  # half the distance between the quartiles, over the median
    against: dict[str, Against]
    wanted: float | None  # what the project asks for against eager
    floor: float  # the time of a copy of the bytes that must move, over ours
    peak: float | None  # bytes
    eager_peak: float | None
    error: float
    promised_error: float | None

    @property
    def losses(self) -> list[Against]:
        """Those who were faster than the library as it chose."""
        return [other for other in self.against.values() if other.ratio < 1]

    @property
    def missed(self) -> bool:
        """Whether the project asked for more."""
        eager = self.against.get("aten")
        return self.wanted is not None and eager is not None and eager.ratio < self.wanted


def rows(record: Mapping[str, Any], stage: str) -> list[Row]:
    """The rows of a stage, in the order of the suite; a case that has no gradients has none for "both"."""
    return [_row(case, stage) for case in record["cases"] if stage in case["contenders"][OURS]]


def _row(case: Mapping[str, Any], stage: str) -> Row:
    contenders = case["contenders"]
    ours = contenders[OURS]
    time = ours[stage]
    against = {}
    for name, other in contenders.items():
        if name != OURS and stage in other:
            error = other["errors"]["picture"]
            same = error is not None and error < OTHER_PICTURE
            against[name] = Against(name, other[stage]["median"] / time["median"], error, not same)
    return Row(
        name=case["case"]["name"],
        backend=ours["backend"],
        median=time["median"],
        spread=(time["q3"] - time["q1"]) / 2 / time["median"],
        against=against,
        wanted=case["case"]["wanted"][list(STAGES).index(stage)],
        floor=case["floor"][stage]["median"] / time["median"],
        peak=ours.get("peak", {}).get(stage),
        eager_peak=contenders.get("aten", {}).get("peak", {}).get(stage),
        error=ours["errors"]["picture"],
        promised_error=case["promised_error"],
    )


def columns(record: Mapping[str, Any]) -> list[str]:
    """The rivals asked for, in the order of the command."""
    return list(record["against"])


def titled(name: str) -> str:
    """A contender's name for a reader."""
    return TITLES.get(name, name)


def ratio_text(other: Against | None) -> str:
    """How many times our time it takes; "≠" where it does not read the same points."""
    if other is None:
        return ""
    digits = 2 if other.ratio < 9.95 else 0
    return f"{other.ratio:.{digits}f}" + (" ≠" if other.other_picture else "")


def time_text(microseconds: float) -> str:
    """Three digits, in µs or ms."""
    value, unit = (microseconds, "µs") if microseconds < 1000 else (microseconds / 1000, "ms")
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def memory_text(size: float | None) -> str:
    """MiB."""
    return "" if size is None else f"{size / 2**20:.1f}" if size < 100 * 2**20 else f"{size / 2**20:.0f}"


def losses(record: Mapping[str, Any]) -> list[str]:
    """A line for each case and stage in which a rival was faster."""
    return [
        f"{row.name}, {title.lower()}: {titled(other.name)} takes {other.ratio:.2f} of our time"
        + (" (and reads other points)" if other.other_picture else "")
        for stage, title in STAGES.items()
        for row in rows(record, stage)
        for other in row.losses
    ]


def missed(record: Mapping[str, Any]) -> list[str]:
    """A line for each case and stage that falls short of what the project asks of itself, and each error too large."""
    lines = [
        f"{row.name}, {title.lower()}: {row.against['aten'].ratio:.2f} times eager, wanted {row.wanted:g}"
        for stage, title in STAGES.items()
        for row in rows(record, stage)
        if row.missed
    ]
    return lines + [
        f"{row.name}: relative error {row.error:.1e}, wanted {row.promised_error:.1e}"
        for row in rows(record, "forward")
        if row.promised_error is not None and row.error > row.promised_error
    ]


def absent(record: Mapping[str, Any]) -> list[str]:
    """A line for each rival and reason: why it was not there, and in how many cases."""
    reasons: dict[tuple[str, str], int] = {}
    for case in record["cases"]:
        for name, reason in case["missing"].items():
            reasons[name, reason] = reasons.get((name, reason), 0) + 1
    return [
        f"{titled(name)}: {reason} ({count} case{'s' if count > 1 else ''})"
        for (name, reason), count in reasons.items()
    ]


def machine_text(record: Mapping[str, Any]) -> str:
    """One line: processor, threads, versions, commit, date."""
    machine = record["machine"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] != 1 else ''}"
    rivals = [f"{titled(name)} {version}" for name, version in machine["rivals"].items() if version]
    parts = [machine["processor"], f"{machine['instructions']}, {threads}", f"torch {machine['torch']}", *rivals]
    parts += [f"commit {(machine['commit'] or 'unknown')[:12]}", machine["started"][:10]]
    if "changed" in (machine["commit"] or ""):
        parts.append("tree changed since the commit")
    return "; ".join(parts)
