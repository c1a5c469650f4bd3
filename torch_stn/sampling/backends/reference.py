"""The truth: plain PyTorch, every interpolation, padding and dimension; autograd makes all gradients, of any order.

Written to be read beside the paper's equations, not to be fast.
"""

import math

import torch
from torch import Tensor

from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.problem import Problem
from torch_stn.sampling.taps import Axis, axes_of, taps

UNITS = "pixel"  # of the points it reads
# Of these torch can hardly do more than hold them; the bits are the same.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def why_not(problem: Problem) -> str | None:
    """The reference runs everything."""
    return None


def not_by_default(problem: Problem) -> str | None:
    """It is the last in order of preference, so it never needs to step back."""
    return None


def sample(
    image: Tensor,  # (N, C, *in), float32, float64 or, under "nearest", whole numbers
    points: Tensor,  # (N, M, d), float32 or float64, finite, in UNITS
    interpolation: Interpolation,
    problem: Problem,
) -> Tensor:  # (N, C, M)
    """V_i = sum over taps of U[tap] prod_axes k(x_axis - tap_axis)."""
    axes = axes_of(points, interpolation, problem)
    if image.is_floating_point():
        return weighted(image, axes, problem)
    # Chosen, never multiplied: an int64 beyond 2^53 stays what it is.
    ((index, _, inside),) = taps(axes, problem.in_size)
    read = _read(image.flatten(2).view(_SIGNED.get(image.dtype, image.dtype)), index).view(image.dtype)
    return torch.where(inside[:, None], read, image.new_full((), problem.fill))


def weighted(image: Tensor, axes: list[Axis], problem: Problem) -> Tensor:  # (N, C, M)
    """The sum over all taps of pixels times weights."""
    flat_image, like = image.flatten(2), axes[0].weight
    total = like.new_zeros(image.shape[0], image.shape[1], like.shape[1])
    outside = like.new_zeros(like.shape[:2])
    for index, weight, inside in taps(axes, problem.in_size):
        # Selected, not multiplied by 0: an image may hold NaN or inf where a tap only seems to read.
        read = torch.where(inside[:, None], _read(flat_image, index), 0.0)
        total = total + read * weight[:, None]
        outside = outside + torch.where(inside, 0.0, weight)
    if not abs(problem.fill) < math.inf:
        return torch.where((outside != 0)[:, None], problem.fill, total)  # 0 * NaN would reach every point
    return total + problem.fill * outside[:, None] if problem.fill != 0.0 else total


def splat(
    values: Tensor,  # (N, C, M), float32 or float64
    points: Tensor,  # (N, M, d), same dtype, finite, in UNITS
    interpolation: Interpolation,
    problem: Problem,
) -> Tensor:  # (N, C, *in)
    """The adjoint of `sample`: U[tap] = sum over points of V_i prod_axes k(x_axis - tap_axis)."""
    flat_image = values.new_zeros(values.shape[0], values.shape[1], math.prod(problem.in_size))
    for index, weight, inside in taps(axes_of(points, interpolation, problem), problem.in_size):
        given = torch.where(inside[:, None], values * weight[:, None], 0.0)
        flat_image = _give(flat_image, index, given, problem.deterministic)
    return flat_image.unflatten(2, problem.in_size)


def _read(flat_image: Tensor, index: Tensor) -> Tensor:
    """U at flat indices: (N, C, pixels), (N, M) -> (N, C, M)."""
    if flat_image.is_cuda:
        # The gradient of advanced indexing sorts its indices on CUDA and is deterministic; that of gather adds
        # atomically.
        batch = torch.arange(len(flat_image), device=index.device)[:, None]
        return flat_image[batch, :, index].mT
    return flat_image.gather(2, index[:, None].expand(-1, flat_image.shape[1], -1))


def _give(flat_image: Tensor, index: Tensor, given: Tensor, deterministic: bool) -> Tensor:
    """U with (N, C, M) added at flat indices (N, M); in the same order every time, as `_read`'s gradient."""
    if flat_image.is_cuda and deterministic:
        batch = torch.arange(len(flat_image), device=index.device)[:, None]
        return flat_image.mT.index_put((batch, index), given.mT, accumulate=True).mT
    return flat_image.scatter_add(2, index[:, None].expand(-1, flat_image.shape[1], -1), given)
