"""Which pixels a point reads, and with what weights: what reading, its adjoint, its slopes and votes have in common."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.padding import PADDINGS
from torch_stn.sampling.problem import Problem


class Axis(NamedTuple):
    """Along one axis of the image, each (N, M, support)."""

    pixel: Tensor  # which one the tap reads, in [0, n)
    weight: Tensor
    inside: Tensor  # whether the tap lies in the image; what lies outside reads the fill value


def axes_of(points: Tensor, interpolation: Interpolation, problem: Problem) -> list[Axis]:
    """The taps along each axis of the image, ([D,] H, W), of pixel points (N, M, d)."""
    axes = range(problem.dims)
    return [axis_of(points[..., problem.dims - 1 - axis], axis, interpolation, problem) for axis in axes]


def axis_of(x: Tensor, axis: int, interpolation: Interpolation, problem: Problem) -> Axis:
    """The taps along one axis of the image, of the coordinate (N, M) that belongs to it."""
    coordinate = problem.dims - 1 - axis  # points are (x, y[, z]), the image's axes ([D,] H, W)
    kernel, n = interpolation.along(coordinate), problem.in_size[axis]
    support, rule = kernel.support, PADDINGS[problem.padding[coordinate]]
    if rule is not None and problem.interpolation in ("nearest", "bilinear"):
        # The coordinate is brought inside, not each tap: the same values, and the slopes of F.grid_sample.
        x = rule(x, n, problem.align_corners)
    centre = (x.detach().floor() if support % 2 == 0 else x.detach().round()).to(x.dtype)
    weights = kernel.weights(x - centre)
    first = centre + kernel.first_tap()
    taps = first[..., None] + torch.arange(support, dtype=x.dtype, device=x.device)
    if rule is not None:
        taps = rule(taps, n, problem.align_corners)
    inside = (taps >= 0) & (taps <= n - 1)
    return Axis(taps.clamp(0, n - 1).round().long(), weights, inside)


def taps(axes: list[Axis], in_size: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Every tap of every point: its index in the flattened image, its weight, whether it lies inside; each (N, M)."""
    for chosen in product(*[range(axis.weight.shape[-1]) for axis in axes]):
        columns = [[part[..., tap] for part in axis] for axis, tap in zip(axes, chosen, strict=True)]
        index, weight, inside = columns[0]
        for (other, factor, within), n in zip(columns[1:], in_size[1:], strict=True):
            index, weight, inside = index * n + other, weight * factor, inside & within
        yield index, weight, inside
