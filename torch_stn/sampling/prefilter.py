"""From an image to the coefficients of the spline that passes through it.

A B-spline of degree 2 and more does not pass through its own coefficients: reading sum_k c_k beta(x - k) gives back the
image at the pixels only where c is the image with b = beta at the integers divided out. The inverse of b is a
symmetric, exponentially short response; it is applied along each axis as a product of blocks of pixels with one small
matrix, which every gradient, vmap and exporter knows.

Source: Unser, "Splines: a perfect fit for signal and image processing", 1999, sections on direct B-spline filtering.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from torch_stn.coordinates import row_of
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.padding import PADDINGS
from torch_stn.sampling.problem import Problem

BLOCK = 64  # pixels that one product makes; a block reads BLOCK + 2 reach pixels


def prefilter(image: Tensor, interpolation: Interpolation, problem: Problem) -> tuple[Tensor, Problem, Tensor | None]:
    """The coefficients to read from, the problem of reading them, and how many pixels came before x, y[, z].

    A periodic or mirrored image has periodic or mirrored coefficients. Where the image goes on as its border or as the
    fill value, its coefficients ring on outside until rounding swallows them: as many pixels are added.
    """
    along = responses(interpolation, problem.dims)
    if not any(along):
        return image, problem, None
    if "zeros" in problem.padding and not abs(problem.fill) < math.inf:
        raise ValueError(
            f"fill: wanted a finite number with {interpolation}, whose prefilter spreads it, got {problem.fill}"
        )
    negligible = torch.finfo(image.dtype).eps / 16
    margins = []
    for axis, (response, rule) in enumerate(zip(along, problem.padding, strict=True)):
        reach = next((k for k, weight in enumerate(response) if abs(weight) < negligible), len(response))
        margins.append(reach if rule in ("zeros", "border") else 0)
        if response:
            image = _filtered(image, image.dim() - 1 - axis, response[:reach], rule, margins[-1], problem)
    padded = replace(problem, in_size=tuple(image.shape[2:]), units="pixel")
    return image, padded, row_of(margins, image)


def responses(interpolation: Interpolation, dims: int) -> list[list[float]]:
    """The prefilter's response along x, y[, z]; empty where the axis is read as it is."""
    return [interpolation.along(axis).response or [] for axis in range(dims)]


def _filtered(image: Tensor, axis: int, response: list[float], rule: str, margin: int, problem: Problem) -> Tensor:
    """One axis of n pixels -> n + 2 margin coefficients."""
    n, device, dtype = image.shape[axis], image.device, image.dtype
    reach = len(response) - 1
    wanted = n + 2 * margin
    blocks = -(-wanted // BLOCK)
    first = torch.arange(blocks, device=device)[:, None] * BLOCK - margin - reach
    where = (first + torch.arange(BLOCK + 2 * reach, device=device)).flatten()
    inside = (where >= 0) & (where < n)
    pad = PADDINGS[rule]
    known = where.clamp(0, n - 1) if pad is None else pad(where.double(), n, problem.align_corners).round().long() % n
    pixels = image.movedim(axis, -1)[..., known]
    if pad is None:
        pixels = torch.where(inside, pixels, pixels.new_full((), problem.fill))
    weights = torch.tensor(response, dtype=dtype, device=device)
    distance = torch.arange(BLOCK + 2 * reach, device=device)[:, None] - torch.arange(BLOCK, device=device) - reach
    near = distance.abs() <= reach
    toeplitz = torch.where(near, weights[distance.abs().clamp(max=reach)], weights.new_zeros(()))
    with torch.autocast(device.type, enabled=False):
        made = torch.matmul(pixels.unflatten(-1, (blocks, -1)), toeplitz)
    return made.flatten(-2)[..., :wanted].movedim(-1, axis)
