"""Times: contenders by turns, so that what changes on the machine changes for all; medians with their quartiles."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

SHORTEST = 2e-3  # seconds: a faster call is repeated until a reading takes that long
MOST_ROUNDS = 200
FLUSHED = 1 << 30  # bytes read between two calls on a GPU: many times any cache there, and a third of a millisecond
BUSY = 0.05  # of the machine, taken by others, from which on times are doubtful
DRIFT = 0.10  # of a round's time, between the first and the last third of the rounds

Calls = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Effort:
    """How long to measure: at least so many rounds, and so many seconds for all contenders of a stage together."""

    rounds: int = 7
    seconds: float = 2.0


QUICK = Effort(rounds=3, seconds=0.2)


def interleaved(calls: Calls, effort: Effort, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds a call, one reading a round and contender; who begins changes from round to round."""
    read = _cuda_reader() if device == "cuda" else _cpu_reading
    for call in calls.values():
        call()
    repeats = {name: max(1, min(200, int(SHORTEST / max(read(call, 1), 1e-9)))) for name, call in calls.items()}
    readings: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    collecting = gc.isenabled()
    gc.disable()
    try:
        begun, rounds = time.perf_counter(), 0
        while rounds < effort.rounds or (time.perf_counter() - begun < effort.seconds and rounds < MOST_ROUNDS):
            first = rounds % len(names)
            for name in names[first:] + names[:first]:
                readings[name].append(read(calls[name], repeats[name]))
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    return readings


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles, in microseconds."""
    low, _, high = quantiles(seconds, n=4, method="inclusive")
    return {"median": median(seconds) * 1e6, "q1": low * 1e6, "q3": high * 1e6, "rounds": len(seconds)}


def drift(readings: Mapping[str, list[float]]) -> float:
    """By which share the last third of the rounds took longer than the first, all contenders together."""
    rounds = [sum(row) for row in zip(*readings.values(), strict=True)]
    third = max(1, len(rounds) // 3)
    return median(rounds[-third:]) / median(rounds[:third]) - 1


def _cpu_reading(call: Callable[[], Any], repeats: int) -> float:
    begun = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begun) / repeats


def _cuda_reader() -> Callable[[Callable[[], Any], int], float]:
    """A reader with CUDA events, the caches flushed before each call; that flush also lets the CPU run ahead.

    Flushed by reading: written lines would go back to memory while the call is timed.
    """
    other = torch.ones(FLUSHED // 4, device="cuda")

    def reading(call: Callable[[], Any], repeats: int) -> float:
        pairs = []
        for _ in range(min(repeats, 10)):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            other.sum()
            begin.record()
            call()
            end.record()
            pairs.append((begin, end))
        torch.cuda.synchronize()
        return median(begin.elapsed_time(end) for begin, end in pairs) * 1e-3

    return reading


class Others:
    """How much of the machine somebody else uses while we look."""

    def __init__(self) -> None:
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._wall, self._own, self._all = time.perf_counter(), _own_seconds(), _busy_seconds()

    def share(self) -> float | None:
        """The share of all cores that others used since the beginning; None where the system does not tell."""
        now = _busy_seconds()
        if now is None or self._all is None:
            return None
        theirs = (now - self._all) - (_own_seconds() - self._own)
        capacity = (time.perf_counter() - self._wall) * (os.cpu_count() or 1)
        return max(0.0, theirs / capacity)


def _own_seconds() -> float:
    """CPU seconds of this process and of the children it has waited for: compilers are no strangers."""
    return sum(os.times()[:4])


def _busy_seconds() -> float | None:
    """Seconds that all cores together were not idle, steal included; from Linux's /proc/stat."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
