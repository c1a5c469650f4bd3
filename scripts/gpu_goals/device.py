"""Where the goals are measured: a GPU and its clock, or with --tiny a CPU, small shapes and Triton's interpreter."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from math import ceil, prod
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

from gpu_goals.lines import NotRunError, WrongError
from torch_stn.lab.bench import parity, stopwatch
from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.contenders import Contender, ours
from torch_stn.lab.bench.inputs import Inputs, make
from torch_stn.lab.bench.measure import bytes_moved
from torch_stn.lab.bench.rivals import RIVALS, rivals

T = TypeVar("T")
Call = Callable[[], Any]
COPY = "copy"
COPIED = 1 << 30  # bytes: read once and written once
SETS = 8  # of inputs at most, between which small cases take turns
LIMIT = 515.0  # seconds of a run, after which nothing is begun


@dataclass(frozen=True)
class Times:
    """Medians of contenders that took turns, the copy among them."""

    seconds: Mapping[str, float]  # of one call
    bandwidth: float  # bytes a second, read and written by the copy
    note: str  # whom no CUDA graph could hold

    def floor(self, moved: float) -> float:
        """Seconds in which the copy moves so many bytes."""
        return moved / self.bandwidth


class Device:
    """The device, what was found right on it, and how long to measure."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.name = "cpu" if tiny else "cuda"
        self.effort = stopwatch.Effort(2, 0.0) if tiny else stopwatch.Effort(9, 0.3)
        self.runs = 2 if tiny else 20
        self.end = time.monotonic() + LIMIT
        self.cache = 0 if tiny else torch.cuda.get_device_properties(0).L2_cache_size
        self._seeds = count()
        self._found: dict[Case, str] = {}  # what is wrong with ours, "" where nothing is
        source = torch.randn(1 << 12 if tiny else COPIED // 4, device=self.name)
        target = torch.empty_like(source)
        self.copied = 2 * source.nbytes
        self._copy: Call = lambda: target.copy_(source)

    def left(self) -> float:
        """Seconds until the run must be over."""
        return max(0.0, self.end - time.monotonic())

    def some(self, cases: Sequence[T]) -> Sequence[T]:
        """All of them; with --tiny the first, which takes the same way as the others."""
        return cases[:1] if self.tiny else cases

    def fitted(self, case: Case, least: int | None = None) -> Case:
        """The case; with --tiny one of its kind that the interpreter has done soon, each side ``least`` or longer."""
        if not self.tiny:
            return case
        least = least or {2: 5, 3: 2}[case.dims]
        n, c, *size = case.image
        image = (min(n, 2), min(c, 4), *(least + side % 7 for side in size))
        out = tuple(least + side % 7 for side in case.size)
        return replace(case, name="x".join(map(str, image)), image=image, size=out)

    def fresh(self, case: Case) -> Inputs:
        """Inputs that no call has seen."""
        return make(case, self.name, seed=next(self._seeds))

    def ready(self, case: Case) -> list[Inputs]:
        """Fresh inputs of a case on which ours is right; several where one would be served from the cache.

        Raises: WrongError.
        """
        if case not in self._found:
            try:
                self.check(self.fresh(case))
                self._found[case] = ""
            except WrongError as reason:
                self._found[case] = str(reason)
        if self._found[case]:
            raise WrongError(self._found[case])
        first = self.fresh(case)
        sets = min(SETS, max(1, ceil(2 * self.cache / bytes_moved(first, "forward"))))
        return [first, *(self.fresh(case) for _ in range(sets - 1))]

    def check(self, inputs: Inputs, *, deterministic: bool = True) -> dict[str, float]:
        """The errors of ours against float64, written to memory that held NaN before. Raises: WrongError."""
        truth = parity.truth(inputs)
        try:
            with poisoned():
                return parity.require(mine(inputs, deterministic=deterministic), truth)
        except parity.NoParity as reason:
            raise WrongError(str(reason)) from None

    def times(self, calls: Mapping[str, Sequence[Call]]) -> Times:
        """Seconds of one call of each contender, and of the copy; each brings a call for each set of inputs."""
        held = {name: self._held(each) for name, each in calls.items()}
        turns = {COPY: self._copy} | {name: call for name, (call, _) in held.items()}
        number = {COPY: 1} | {name: len(each) for name, each in calls.items()}
        readings = stopwatch.interleaved(turns, self.effort, self.name)
        seconds = {name: median(each) / number[name] for name, each in readings.items()}
        loose = [f"{name} by events, no graph: {why}" for name, (_, why) in held.items() if why]
        return Times(seconds, self.copied / seconds[COPY], "; ".join(loose))

    def host_seconds(self, call: Call) -> float:
        """What a call costs the host while it waits for nothing: the median of readings of many."""
        calls, readings = (2, 3) if self.tiny else (200, 25)
        found = []
        for _ in range(readings):
            self.wait()
            begun = time.perf_counter()
            for _ in range(calls):
                call()
            found.append((time.perf_counter() - begun) / calls)
        self.wait()
        return median(found)

    def wait(self) -> None:
        """Until nothing is queued."""
        if not self.tiny:
            torch.cuda.synchronize()

    def clear(self) -> None:
        """Give back what the last task held: its graphs keep memory of their own."""
        gc.collect()
        if not self.tiny:
            torch.cuda.empty_cache()

    def _held(self, calls: Sequence[Call]) -> tuple[Call, str]:
        """The calls as one CUDA graph, each with results of its own; or as they are, and why no graph holds them."""

        def one_by_one() -> list[Any]:
            return [call() for call in calls]

        for _ in range(1 if self.tiny else 2):
            one_by_one()  # compiles, and fills the pools that must not grow while a graph is made
        if self.tiny:
            return one_by_one, ""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                results = one_by_one()
        except RuntimeError as error:
            self.wait()
            return one_by_one, (str(error).strip() or "no word").splitlines()[0][:120]
        floating = [tensor for tensor in _tensors(results) if tensor.is_floating_point()]
        for tensor in floating:
            tensor.fill_(float("nan"))
        graph.replay()
        if not all(bool(tensor.isfinite().all()) for tensor in floating):
            raise WrongError("a replayed graph does not write all of its results")
        return graph.replay, ""


def mine(inputs: Inputs, *, deterministic: bool = True) -> Contender:
    """Ours by name: what steps back by default is measured all the same."""
    return ours(inputs, "triton", deterministic=deterministic)


def against(name: str, sets: Sequence[Inputs]) -> list[Contender]:
    """A rival, for each set of inputs. Raises: NotRunError with its reason."""
    able, missing = rivals((name,), sets[0])
    if missing:
        raise NotRunError(f"{name}: {missing[name]}")
    if name == "compile":  # once: another would forget what this one compiled
        return [replace(able[0], inputs=each) for each in sets]
    return [*able, *(RIVALS[name](each) for each in sets[1:])]


@contextmanager
def poisoned() -> Iterator[None]:
    """New tensors hold NaN, or the greatest integer, until something is written to them."""
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # the mode in which torch fills what it allocates
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operators that are not deterministic: others' business here
            yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)


def shape_of(case: Case) -> str:
    """The case in words: 32x3x512x512 to 224x224 float32."""
    image, out = ("x".join(map(str, size)) for size in (case.image, case.size))
    return f"{image}{'' if case.size == case.image[2:] else f' to {out}'} {case.dtype}"


def picture_bytes(inputs: Inputs) -> int:
    """Of the output."""
    return prod(inputs.upstream.shape) * inputs.upstream.element_size()


def _tensors(results: Any) -> Iterator[Tensor]:
    if isinstance(results, Tensor):
        yield results
    elif isinstance(results, list | tuple):
        for each in results:
            yield from _tensors(each)
