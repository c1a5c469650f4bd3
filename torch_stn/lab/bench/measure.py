"""A suite, measured: parity of every case first, then times by turns, then memory; the record that all else reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch

from torch_stn.lab.bench import memory, parity, stopwatch
from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.contenders import OURS, all_of_ours
from torch_stn.lab.bench.inputs import Inputs, make
from torch_stn.lab.bench.machine import describe
from torch_stn.lab.bench.rivals import rivals
from torch_stn.lab.errors import UserError

FORMAT = 1  # of the record
FLOOR = "copy"  # the name of the memory floor among the contenders


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    suite: str
    cases: tuple[Case, ...]
    against: tuple[str, ...]
    effort: stopwatch.Effort

    @property
    def device(self) -> str:
        """Where the suite runs."""
        return "cuda" if self.suite == "gpu" else "cpu"


def check_device(order: Order) -> None:
    """Raises: UserError for the gpu suite without a GPU."""
    if order.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--suite: gpu needs a GPU that torch can use, there is none here")


def measure(order: Order, say: Callable[[str], None]) -> dict[str, Any]:
    """The record of a suite: plain numbers and words, microseconds and bytes. ``say`` gets a line a case.

    Raises: NoParity before anything is timed.
    """
    check_device(order)
    machine, whole = describe(order.device), stopwatch.Others()
    exact = []
    for case in order.cases:
        say(f"parity: {case.name}")
        exact.append(_parity(case, order))
    others, rows = stopwatch.Others(), []
    for number, (case, errors) in enumerate(zip(order.cases, exact, strict=True), start=1):
        say(f"time {number}/{len(order.cases)}: {case.name}")
        rows.append({"case": asdict(case), "promised_error": parity.promised(case), **_times(case, order, errors)})
    share = others.share()
    if order.device == "cpu":
        say("memory")
        for row, found in zip(rows, memory.peaks(order.cases, (OURS, *order.against)) or [], strict=False):
            for name, peak in found.items():
                if name in row["contenders"]:
                    row["contenders"][name]["peak"] = peak
    load = {"before": whole.load, "others": share, "drift": max((abs(row["drift"]) for row in rows), default=0.0)}
    return {
        "format": FORMAT,
        "suite": order.suite,
        "against": list(order.against),
        "quick": order.effort == stopwatch.QUICK,
        "machine": machine,
        "load": load,
        "warnings": warnings_of(load),
        "cases": rows,
    }


def _parity(case: Case, order: Order) -> dict[str, dict[str, float]]:
    """The errors of each of ours by name."""
    inputs = make(case, order.device)
    truth = parity.truth(inputs)
    return {contender.name: parity.require(contender, truth) for contender in all_of_ours(inputs)}


def _times(case: Case, order: Order, errors: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The contenders of a case, who is missing and why, and the floor."""
    inputs = make(case, order.device)
    able, missing = rivals(order.against, inputs)
    contenders = [*all_of_ours(inputs), *able]
    truth = parity.Truth(parity.picture(inputs), {})
    found: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        known = errors.get(contender.name) or {"picture": parity.error(contender, truth)}
        found[contender.name] = {"backend": contender.backend, "errors": known}
    if order.device == "cuda":
        for name, peak in memory.cuda_peaks(contenders).items():
            found[name]["peak"] = peak
    floor, drifts = {}, []
    for stage in ("forward", "both") if case.gradients else ("forward",):
        moved = bytes_moved(inputs, stage)
        calls = {FLOOR: _copy(moved, order.device)} | {
            c.name: getattr(c, stage) for c in contenders if stage == "forward" or c.trains
        }
        readings = stopwatch.interleaved(calls, order.effort, order.device)
        drifts.append(stopwatch.drift(readings))
        floor[stage] = {"bytes": moved, **stopwatch.summary(readings.pop(FLOOR))}
        for name, seconds in readings.items():
            found[name][stage] = stopwatch.summary(seconds)
    return {"contenders": found, "missing": missing, "floor": floor, "drift": max(drifts, key=abs)}


def bytes_moved(inputs: Inputs, stage: str) -> int:
    """What no implementation can do without: the image read, the picture written; backward, the upstream gradient and,
    for theta, the image read, the image's gradient written.
    """
    case, item = inputs.case, inputs.image.element_size()
    image, picture = prod(case.image) * item, prod(inputs.upstream.shape) * item
    given = inputs.theta.numel() * inputs.theta.element_size() if case.family == "points" else 0
    forward = image + picture + given
    if stage == "forward":
        return forward
    backward = picture + given
    if "image" in case.gradients:
        backward += image
    if "theta" in case.gradients:
        backward += image + given
    return forward + backward


def _copy(moved: int, device: str) -> Callable[[], object]:
    """A copy that reads and writes as many bytes in all."""
    source = torch.ones(max(1, moved // 2), dtype=torch.int8, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def warnings_of(load: dict[str, Any]) -> list[str]:
    """Why the times may be doubted, a line each."""
    lines = []
    if load["others"] is not None and load["others"] > stopwatch.BUSY:
        lines.append(f"the machine was busy: others used {load['others']:.0%} of it while we timed")
    if load["before"] is not None and load["before"] > 0.5:
        lines.append(f"the machine was busy before: load average {load['before']:.1f}")
    if load["drift"] > stopwatch.DRIFT:
        lines.append(f"times drifted: the last rounds of a case differ from its first by up to {load['drift']:.0%}")
    return lines
