"""Other slopes for the coordinates than the exact ones: the values and the image gradient stay what they are.

The exact slope of bilinear reading sees the two pixels beside the point and nothing beyond: a picture that is off by
more than its details are wide feels no pull. These see farther.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from torch_stn import _checks
from torch_stn.coordinates import in_units
from torch_stn.sampling.padding import PADDINGS
from torch_stn.sampling.problem import Problem

PointsIn = Callable[[str], Tensor]  # "pixel" | "normalized" -> (N, *S, d)
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


class At(Protocol):
    """Reads an image, with exact gradients."""

    def __call__(self, image: Tensor, points_in: PointsIn, problem: Problem, /) -> Tensor:
        """(N, C, *in) -> (N, C, *S)."""


class CoordinateGradient:
    """What ``coordinate_gradient`` takes beside its names; a subclass says what it passes back to the points."""

    def read(self, at: At, image: Tensor, points_in: PointsIn, problem: Problem) -> Tensor:
        """The exact values, with the gradients of this kind."""
        if not _wanted(points_in("pixel")):
            return at(image, points_in, problem)
        values = at(image, lambda units: points_in(units).detach(), problem)
        return values + self.pull(at, image.detach(), points_in("pixel"), problem)

    def pull(self, at: At, image: Tensor, points: Tensor, problem: Problem) -> Tensor:
        """Zeros (N, C, *S) whose gradient to the pixel points (N, *S, d) is the one wanted."""
        raise NotImplementedError(f"{type(self).__name__}.pull")


@dataclass(frozen=True)
class ExactGradient(CoordinateGradient):
    """The derivative of what is read."""

    def read(self, at: At, image: Tensor, points_in: PointsIn, problem: Problem) -> Tensor:
        return at(image, points_in, problem)


@dataclass(frozen=True)
class LinearizedGradient(CoordinateGradient):
    """The slope of the plane that fits ``samples`` readings around the point best: linearised multi-sampling.

    The readings lie in a ball of ``radius`` pixels, in pairs on opposite sides, so an image that is quadratic there
    gives its true slope. Their pattern is fixed (a sunflower), hence the same bits every time; with a ``generator``
    each call draws a new one, the same for all points. It gives nearest reading a slope, too. Costs ``samples`` more
    readings. Second derivatives with respect to the points are zero.

    Source: Jiang, Sun, Tagliasacchi, Trulls, Yi: Linearized Multi-Sampling for Differentiable Image Transformation,
    2019.

    Example:
        >>> from torch_stn import sample
        >>> image = torch.tensor([[[0.0, 0, 0, 6, 0, 0, 0]]])
        >>> points = torch.tensor([[[1.0]]], requires_grad=True)  # two pixels from the peak: flat around
        >>> near_sighted, far_sighted = LinearizedGradient(radius=0.5), LinearizedGradient(radius=3)
        >>> for gradient in (near_sighted, far_sighted):
        ...     value = sample(image, points, units="pixel", coordinate_gradient=gradient)
        ...     print(value.item(), torch.autograd.grad(value, points)[0].item() > 0)
        0.0 False
        0.0 True
    """

    samples: int = 8
    radius: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 2 or self.samples % 2:
            raise ValueError(f"samples: wanted an even number, two a direction, got {self.samples!r}")
        if not 0 < _checks.number("radius", self.radius) < math.inf:
            raise ValueError(f"radius: wanted a number of pixels over 0, got {self.radius!r}")

    def pull(self, at: At, image: Tensor, points: Tensor, problem: Problem) -> Tensor:
        if self.samples < 2 * problem.dims:
            raise ValueError(f"samples: wanted at least {2 * problem.dims} in {problem.dims}-D, got {self.samples}")
        offsets = self.offsets(problem.dims).to(points)
        # The least-squares slope is linear in the readings, and as the offsets' mean is 0 the plane's height drops out.
        with torch.autocast(image.device.type, enabled=False):
            weights = torch.linalg.pinv(offsets).unbind(dim=1)
        moved = points - points.detach()
        moved = torch.where(torch.isfinite(points).all(dim=-1, keepdim=True), moved, 0.0)
        total = None
        for offset, weight in zip(offsets, weights, strict=True):
            beside = points.detach() + offset
            value = at(image, _pixels(beside, problem), problem)
            value = torch.where(torch.isfinite(value), value, 0.0)  # next to a fill of NaN there is no slope
            part = value * (moved * weight).sum(dim=-1)[:, None]
            total = part if total is None else total + part
        assert total is not None
        return total

    def offsets(self, dims: int) -> Tensor:
        """(samples, dims) in pixels: half of them, then their opposites; float64."""
        half = self.samples // 2
        if self.generator is not None:
            device = self.generator.device
            steps = torch.randn(half, dims, generator=self.generator, dtype=torch.float64, device=device)
            reach = torch.rand(half, 1, generator=self.generator, dtype=torch.float64, device=device) ** (1 / dims)
            steps = steps / steps.norm(dim=-1, keepdim=True) * reach * self.radius
            return torch.cat([steps, -steps])
        k = torch.arange(half, dtype=torch.float64)
        reach = self.radius * ((k + 0.5) / half) ** (1 / dims)
        height = (k + 0.5) / half if dims == 3 else torch.zeros_like(k)
        around = (1 - height.square()).sqrt()
        spread = [around * (k * GOLDEN_ANGLE).cos(), around * (k * GOLDEN_ANGLE).sin(), height]
        steps = torch.stack(spread[:dims] if dims > 1 else [torch.ones_like(k)], dim=-1) * reach[:, None]
        return torch.cat([steps, -steps])


@dataclass(frozen=True)
class CoarseToFineGradient(CoordinateGradient):
    """The derivative of the image blurred by a Gaussian of ``sigma`` pixels: start wide, then lower sigma.

    Under zeros padding the blur reaches 3 sigma beyond the image, so points outside are pulled, too. Derivatives with
    respect to the points are those of the blurred image, of every order. Costs one blur and one more reading.

    Source: the scale space of Lindeberg, Scale-Space Theory in Computer Vision, 1994.

    Example:
        >>> from torch_stn import sample
        >>> image = torch.tensor([[[0.0, 0, 0, 6, 0, 0, 0]]])
        >>> points = torch.tensor([[[1.0]]], requires_grad=True)
        >>> value = sample(image, points, units="pixel", coordinate_gradient=CoarseToFineGradient(sigma=2.0))
        >>> print(value.item(), torch.autograd.grad(value, points)[0].item() > 0)
        0.0 True
    """

    sigma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < _checks.number("sigma", self.sigma) < math.inf:
            raise ValueError(f"sigma: wanted a number of pixels over 0, got {self.sigma!r}")

    def pull(self, at: At, image: Tensor, points: Tensor, problem: Problem) -> Tensor:
        problem = replace(problem, fill=problem.fill if math.isfinite(problem.fill) else 0.0, units="pixel")
        reach = math.ceil(3 * self.sigma)
        margins = [reach if rule == "zeros" else 0 for rule in problem.padding]
        for coordinate, margin in enumerate(margins):
            image = self._blurred(image, coordinate, reach, margin, problem)
        problem = replace(problem, in_size=tuple(image.shape[2:]))
        shift = torch.stack([torch.full_like(points[..., axis], margin) for axis, margin in enumerate(margins)], dim=-1)
        value = at(image, _pixels(points + shift, problem), problem)
        return torch.where(torch.isfinite(value), value - value.detach(), 0.0)

    def _blurred(self, image: Tensor, coordinate: int, reach: int, margin: int, problem: Problem) -> Tensor:
        """One axis of n pixels, x, y or z, -> n + 2 margin blurred ones."""
        axis = image.dim() - 1 - coordinate
        n, rule = image.shape[axis], PADDINGS[problem.padding[coordinate]]
        where = torch.arange(-reach - margin, n + reach + margin, device=image.device)
        known = where.clamp(0, n - 1)
        if rule is not None:
            known = rule(where.double(), n, problem.align_corners).round().long().clamp(0, n - 1)
        lines = image.movedim(axis, -1)[..., known]
        if rule is None:
            lines = torch.where((where >= 0) & (where < n), lines, problem.fill)
        distance = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
        weights = torch.softmax(-0.5 * (distance / self.sigma).square(), dim=0)
        with torch.autocast(image.device.type, enabled=False):
            blurred = F.conv1d(lines.reshape(-1, 1, lines.shape[-1]), weights[None, None])
        return blurred.reshape(*lines.shape[:-1], -1).movedim(-1, axis)


GRADIENTS: dict[str, type[CoordinateGradient]] = {
    "exact": ExactGradient,
    "linearized": LinearizedGradient,
    "coarse-to-fine": CoarseToFineGradient,
}


def as_gradient(value: "str | CoordinateGradient") -> CoordinateGradient:
    """The object behind ``coordinate_gradient``; checked."""
    if isinstance(value, CoordinateGradient):
        return value
    if not isinstance(value, str):
        raise TypeError(f"coordinate_gradient: wanted a name or a CoordinateGradient, got {type(value).__name__}")
    return GRADIENTS[_checks.one_of("coordinate_gradient", value, GRADIENTS)]()


def _pixels(points: Tensor, problem: Problem) -> PointsIn:
    """Pixel points, in the units that a backend asks for."""
    return lambda units: in_units(points, "pixel", units, problem.in_size, align_corners=problem.align_corners)


def _wanted(points: Tensor) -> bool:
    """Whether anybody can ask for a gradient of the points: an evaluation should not pay for one."""
    if torch.compiler.is_compiling():
        return True
    return points.requires_grad or forward_ad.unpack_dual(points).tangent is not None
