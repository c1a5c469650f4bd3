"""The truth: plain PyTorch, every interpolation, padding and dimension; autograd makes all gradients, of any order.

Written to be read beside the paper's equations, not to be fast.
"""

import math
from itertools import product

import torch
from torch import Tensor

from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.padding import PADDINGS
from torch_stn.sampling.problem import Problem

UNITS = "pixel"  # of the points it reads
FAR = 2.0**30  # beyond every image, and still a whole number that fits an index


def why_not(problem: Problem) -> str | None:
    """The reference runs everything."""
    return None


def not_by_default(problem: Problem) -> str | None:
    """It is the last in order of preference, so it never needs to step back."""
    return None


def sample(
    image: Tensor,  # (N, C, *in), float32 or float64
    points: Tensor,  # (N, M, d), same dtype, finite, in UNITS
    interpolation: Interpolation,
    problem: Problem,
) -> Tensor:  # (N, C, M)
    """V_i = sum over taps of U[tap] prod_axes k(x_axis - tap_axis)."""
    in_size, dims = problem.in_size, problem.dims
    kernels = [interpolation.along(dims - 1 - axis) for axis in range(dims)]
    axes = [_axis(points, axis, kernel, problem) for axis, kernel in enumerate(kernels)]

    flat_image = image.flatten(2)
    total = points.new_zeros(image.shape[0], image.shape[1], points.shape[1])
    outside = points.new_zeros(points.shape[:2])
    for taps in product(*[range(kernel.support) for kernel in kernels]):
        index = torch.zeros_like(axes[0][0][..., 0])
        weight = torch.ones_like(outside)
        inside = torch.ones_like(outside, dtype=torch.bool)
        for axis, tap in enumerate(taps):
            indices, weights, insides = axes[axis]
            index = index * in_size[axis] + indices[..., tap]
            weight = weight * weights[..., tap]
            inside = inside & insides[..., tap]
        # Selected, not multiplied by 0: an image may hold NaN or inf where a tap only seems to read.
        read = torch.where(inside[:, None], _read(flat_image, index), 0.0)
        total = total + read * weight[:, None]
        outside = outside + torch.where(inside, 0.0, weight)
    if not math.isfinite(problem.fill):
        return torch.where((outside != 0)[:, None], problem.fill, total)  # 0 * NaN would reach every point
    return total + problem.fill * outside[:, None] if problem.fill != 0.0 else total


def _axis(points: Tensor, axis: int, interpolation: Interpolation, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis of the image: tap indices in [0, n), their weights, and whether the tap lies in the image; each
    (N, M, support).
    """
    coordinate = problem.dims - 1 - axis  # points are (x, y[, z]), the image's axes ([D,] H, W)
    x, n = points[..., coordinate], problem.in_size[axis]
    support, rule = interpolation.support, PADDINGS[problem.padding[coordinate]]
    if rule is not None and problem.interpolation in ("nearest", "bilinear"):
        # The coordinate is brought inside, not each tap: the same values, and the slopes of F.grid_sample.
        x = rule(x, n, problem.align_corners)
    x = x.clamp(-FAR, FAR)
    centre = (x.detach().floor() if support % 2 == 0 else x.detach().round()).to(x.dtype)
    weights = interpolation.weights(x - centre)
    first = centre + interpolation.first_tap()
    taps = first[..., None] + torch.arange(support, dtype=x.dtype, device=x.device)
    if rule is not None:
        taps = rule(taps, n, problem.align_corners)
    inside = (taps >= 0) & (taps <= n - 1)
    return taps.clamp(0, n - 1).round().long(), weights, inside


def _read(flat_image: Tensor, index: Tensor) -> Tensor:
    """U at flat indices: (N, C, pixels), (N, M) -> (N, C, M)."""
    if flat_image.is_cuda:
        # The gradient of advanced indexing sorts its indices on CUDA and is deterministic; that of gather adds
        # atomically.
        batch = torch.arange(len(flat_image), device=index.device)[:, None]
        return flat_image[batch, :, index].mT
    return flat_image.gather(2, index[:, None].expand(-1, flat_image.shape[1], -1))
