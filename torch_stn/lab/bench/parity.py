"""Before anything is timed: ours against the reference backend in float64, the picture and every gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.contenders import Contender, ours
from torch_stn.lab.bench.inputs import Inputs
from torch_stn.lab.errors import UserError

AT_ONCE = 2_000_000  # values of output that the reference computes in one piece: its memory is some hundred bytes each
# Of a float32 coordinate on the longest axis, in pixels: what the house promises of its float32 pictures.
COORDINATE = 6e-8
ROUNDING = {"float32": 1e-6, "float64": 1e-12, "bfloat16": 4e-3, "float16": 5e-4}  # of values, whatever the size
THETA = {
    "float32": 1e-3,
    "float64": 1e-12,
    "bfloat16": 1e-2,
    "float16": 2e-3,
}  # of theta on a smooth image; F.grid_sample: 3e-4


class NoParity(UserError):
    """One of ours is wrong: there is nothing to time."""


@dataclass(frozen=True)
class Truth:
    """What float64 says of a case."""

    picture: Tensor
    gradients: dict[str, Tensor]  # "image" and "theta", as far as the case asks for them


def truth(inputs: Inputs) -> Truth:
    """The reference's picture of the noise; its gradients for the smooth image, on which theta's is well-defined.

    (The image's gradient does not depend on the image.)
    """
    case, smooth = inputs.case, inputs.smooth().exact()
    gradients = {name: torch.zeros_like(getattr(smooth, name)) for name in case.gradients}
    for images, maps in _parts(case) if case.gradients else ():
        piece = Inputs(case, smooth.image[images], smooth.theta[maps], smooth.upstream[maps])
        for name, gradient in zip(case.gradients, ours(piece, "reference").both(), strict=True):
            gradients[name][images if name == "image" else maps] += gradient
    return Truth(picture(inputs), gradients)


def picture(inputs: Inputs) -> Tensor:
    """The reference's picture in float64."""
    exact = inputs.exact()
    read = ours(exact, "reference").read
    with torch.no_grad():
        return torch.cat([read(exact.image[images], exact.theta[maps]) for images, maps in _parts(inputs.case)])


def _parts(case: Case) -> list[tuple[slice, slice]]:
    """The batch in pieces that the reference has memory for: images, maps."""
    step = max(1, AT_ONCE // (case.image[1] * prod(case.size)))
    parts = [slice(first, first + step) for first in range(0, case.batch, step)]
    return [(slice(None) if case.maps else part, part) for part in parts]


def relative(got: Tensor, wanted: Tensor) -> float:
    """||got - wanted|| / ||wanted||, computed in float64."""
    return float((got.double() - wanted).norm() / wanted.norm().clamp(min=1e-300))


def error(contender: Contender, truth: Truth) -> float:
    """The relative L2 error of a picture, NaN where it has another shape."""
    picture = contender.as_tensor(contender.forward()).to(truth.picture.device)
    return relative(picture, truth.picture) if picture.shape == truth.picture.shape else math.nan


def errors(contender: Contender, truth: Truth) -> dict[str, float]:
    """The relative L2 errors of one of ours: its "picture", and the gradients by name."""
    found = {"picture": error(contender, truth)}
    if truth.gradients:
        smooth = Contender(contender.name, contender.read, contender.inputs.smooth())
        for name, gradient in zip(smooth.inputs.case.gradients, smooth.both(), strict=True):
            found[name] = relative(gradient, truth.gradients[name])
    return found


def promised(case: Case) -> float | None:
    """The largest error of a picture that the house promises; only float32 ones have a promise."""
    continuous = case.dtype == "float32" and case.mode != "nearest"
    return COORDINATE * max(*case.image[2:], *case.size) if continuous else None


def allowed(case: Case, what: str) -> float:
    """The largest error of "picture", "image" or "theta" beyond which a backend is wrong, not rounded."""
    if what == "theta":
        return THETA[case.dtype]
    linear = ROUNDING[case.dtype]
    if case.dtype == "float32":
        linear += 2 * COORDINATE * max(*case.image[2:], *case.size)
    # Nearest: a coordinate that rounding moves across a half reads another pixel, and noise is as far off as can be.
    return math.sqrt(8 * linear) if case.mode == "nearest" else linear


def require(contender: Contender, truth: Truth) -> dict[str, float]:
    """The errors of one of ours. Raises: NoParity where one is more than rounding explains, NaN included."""
    found = errors(contender, truth)
    case = contender.inputs.case
    for what, error in found.items():
        limit = allowed(case, what)
        if not error <= limit:
            thing = "picture" if what == "picture" else f"gradient of {what}"
            raise NoParity(
                f"{case.name}: the {thing} of {contender.name} ({contender.backend}) is off by {error:.1e} "
                f"from float64, at most {limit:.1e} is rounding; nothing was timed"
            )
    return found
