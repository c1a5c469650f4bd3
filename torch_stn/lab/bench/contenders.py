"""Who is measured: our samplers, as a user calls them; and which backend serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from torch_stn.lab.bench.inputs import Inputs, transform_of
from torch_stn.sampling.choose import BACKENDS, reasons
from torch_stn.sampling.problem import Problem
from torch_stn.sampling.sample import sample
from torch_stn.warping import warp

OURS = "stn"
Read = Callable[[Tensor, Tensor], Any]  # image, theta -> the picture read

_LISTENERS = count()


@dataclass(frozen=True)
class Contender:
    """A way to do what the case asks, ready to be called."""

    name: str
    read: Read
    inputs: Inputs
    backend: str | None = None  # of ours
    trains: bool = True
    as_tensor: Callable[[Any], Tensor] = lambda picture: picture  # for comparing, never timed

    def forward(self) -> Any:
        """As at inference: no graph."""
        with torch.no_grad():
            return self.read(self.inputs.image, self.inputs.theta)

    def both(self) -> tuple[Tensor, ...]:
        """Forward and backward: the gradients that the case asks for."""
        picture, leaves = self._graph()
        return torch.autograd.grad(picture, leaves, self.inputs.upstream)

    def pull(self) -> Callable[[], tuple[Tensor, ...]]:
        """Backward alone: forward now, and a call that goes back through that graph, as often as one likes."""
        picture, leaves = self._graph()
        return lambda: torch.autograd.grad(picture, leaves, self.inputs.upstream, retain_graph=True)

    def _graph(self) -> tuple[Tensor, list[Tensor]]:
        """A picture, and what it is differentiated by."""
        leaves = {
            "image": self.inputs.image.detach().requires_grad_("image" in self.inputs.case.gradients),
            "theta": self.inputs.theta.detach().requires_grad_("theta" in self.inputs.case.gradients),
        }
        picture = self.read(leaves["image"], leaves["theta"])
        return picture, [leaves[name] for name in self.inputs.case.gradients]


def ours(inputs: Inputs, backend: str | None = None, name: str = OURS, *, deterministic: bool = True) -> Contender:
    """Our warp, or sample where the points are given; the library chooses the backend unless it is named."""
    case = inputs.case
    options: dict[str, Any] = {
        "mode": case.mode,
        "padding_mode": case.padding,
        "align_corners": case.align_corners,
        "backend": backend,
        "deterministic": deterministic,
    }
    if case.family == "points":
        return Contender(name, lambda image, points: sample(image, points, **options), inputs, backend)
    transform = transform_of(case).to(inputs.image.device)
    return Contender(name, lambda image, theta: warp(image, transform(theta), case.size, **options), inputs, backend)


def all_of_ours(inputs: Inputs) -> list[Contender]:
    """What the library chooses, then each backend that it passes over though it could serve: its row is the evidence
    for stepping back.
    """
    chosen, passed_over = who_serves(ours(inputs))
    default = Contender(OURS, ours(inputs).read, inputs, chosen)
    return [default, *(ours(inputs, name, f"{OURS}/{name}") for name in passed_over)]


def who_serves(contender: Contender) -> tuple[str, list[str]]:
    """The backend that serves a training step of the contender, and those before it that can but step back."""
    with _listening() as problems:
        contender.both() if contender.inputs.case.gradients else contender.forward()
    answers = reasons(problems[-1])
    chosen = next(name for name, reason in answers.items() if reason is None)
    before = list(BACKENDS)[: list(BACKENDS).index(chosen)]
    return chosen, [name for name in before if BACKENDS[name].why_not(problems[-1]) is None]


@contextmanager
def _listening() -> Iterator[list[Problem]]:
    """The problems that are put to the backends meanwhile: a first backend that hears each and declines it.

    Made up here, they would have to be taught every field that a backend ever wants to know of.
    """
    heard: list[Problem] = []

    def why_not(problem: Problem) -> str:
        heard.append(problem)
        return "it only listens"

    listener: Any = SimpleNamespace(UNITS="pixel", FUSED=False, why_not=why_not, not_by_default=why_not, sample=None)
    there = dict(BACKENDS)
    BACKENDS.clear()
    BACKENDS.update({f"listener {next(_LISTENERS)}": listener, **there})  # a new name: `warp` remembers who served it
    try:
        yield heard
    finally:
        BACKENDS.clear()
        BACKENDS.update(there)
