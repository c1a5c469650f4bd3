"""The footprint of a map: what an output pixel covers in the image, read with a few probes from an image pyramid.

An output pixel covers the parallelogram that the columns of the map's Jacobian span (a parallelepiped in 3-D). Its mean
is taken with ``k`` equally spaced bilinear probes along each column, on the pyramid level whose cells are about as wide
as the probes lie apart:

    +--------------+        columns a, b: source pixels per output pixel
    | o    o    o  |        o: probes, k_a x k_b of them
    |   o    o    o  |      level l: means of 2^l x 2^l pixels
      +--------------+

A level smooths by itself, so the probes lie closer by just that: mean and covariance of all that is read are those of
the parallelogram. docs/antialiasing.md has the measurements that the constants below come from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from torch_stn.coordinates import row_of
from torch_stn.sampling.pyramid import top_level

MOST = {1: 8, 2: 8, 3: 3}  # probes along one output axis, by dims, unless asked for otherwise
PLAIN = 1.001  # a column up to this long magnifies: one probe, plain bilinear; the excess covers rounding
FULL = 1.5  # from this length on probes cover the whole column; in between they move apart
FIRST = 4.6  # pixels: narrower footprints are read from the image itself
CELLS = 1.98  # a footprint is at least this many cells of its level wide, and less than twice as many
ONE = 1.75  # cells that a single probe covers, where no more are allowed
TWO = 2.1  # cells that two probes cover
APART = 1.55  # cells that each of three probes or more covers
LEAST = 1e-2  # cells: what probes cover where a level alone is wide enough; up to twice this they are one
FEW = 2**10  # numbers
FAR = 1e6  # pixels: a longer column is as good as endless, and its powers still fit a float32


@dataclass(frozen=True)
class Footprint:
    """What the pixels of an output cover: each (N, *out, ...), or 1s where all pixels are alike."""

    steps: Tensor  # (..., d, d): from one probe to the next along output axis x, y[, z] = j, in pixels: [..., j, :]
    counts: Tensor  # (..., d): probes along each
    level: Tensor  # (...): of the pyramid, as a float


def affine_columns(
    matrix: Tensor,  # (N, d, d + 1)
    size: Sequence[int],
    in_size: Sequence[int],
    *,
    align_corners: bool,
) -> Tensor:
    """The Jacobian's columns of an affine map: (N, [1,] 1, 1, d, d), [..., j, i] pixels along i per output pixel j."""
    d, less = len(size), int(align_corners)
    # Pixels of the image per pixel of the output, down: output axes, across: image axes.
    scales = [[(n - less) / max(m - less, 1) for n in reversed(in_size)] for m in reversed(size)]
    linear = matrix[..., :d].transpose(1, 2)
    return (linear * table(scales, matrix)).reshape(-1, *[1] * d, d, d)


def table(numbers: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Rows of numbers as a tensor, made where ``like`` is: a copy to a GPU would break the capture of a CUDA graph."""
    if like.device.type == "cpu" and not torch.compiler.is_compiling():  # where numbers may be symbols
        return torch.tensor(numbers, dtype=like.dtype, device=like.device)
    return torch.stack([row_of(row, like) for row in numbers])


def columns(points: Tensor) -> Tensor:
    """The Jacobian's columns by central differences of pixel points on a grid: (N, *out, d) -> (N, *out, d, d).

    One-sided at the border of the grid; zero, hence plain reading, along an axis of one pixel.
    """
    d = points.shape[-1]
    found = []
    for axis in range(d, 0, -1):  # x, y[, z] are the output's axes from the last to the first
        if points.shape[axis] < 2:
            found.append(torch.zeros_like(points))
            continue
        steps = points.diff(dim=axis)
        first, last = steps.narrow(axis, 0, 1), steps.narrow(axis, steps.shape[axis] - 1, 1)
        found.append((torch.cat([first, steps], axis) + torch.cat([steps, last], axis)) / 2)
    return torch.stack(found, dim=-2)


def footprint(columns: Tensor, in_size: Sequence[int], most: int) -> Footprint:
    """Level, number and distance of the probes for the columns (..., d, d) of the Jacobian.

    Level and number are steps and carry no gradient; the distance does. Columns that are not finite count as zero.
    """
    if _few_plain_numbers(columns):  # numpy takes a third of the time that torch takes for as little as this
        given = columns.detach().numpy()
        found = _footprint(np, np.where(np.isfinite(given), given, 0), in_size, most)
        return Footprint(*[torch.from_numpy(each.astype(given.dtype, copy=False)) for each in found])
    return Footprint(*_footprint(torch, columns.nan_to_num(0.0, 0.0, 0.0), in_size, most))


def _few_plain_numbers(columns: Tensor) -> bool:
    """Whether columns hold few values, that can be looked at, and of which no derivative is asked."""
    if torch.compiler.is_compiling() or torch.jit._trace.is_tracing() or columns.device.type != "cpu":
        return False
    if columns.requires_grad or columns.numel() > FEW or torch._C._len_torch_dispatch_stack() > 0:
        return False
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def _footprint(xp: Any, columns: Any, in_size: Sequence[int], most: int) -> tuple[Any, Any, Any]:
    """Steps, counts and level of a Footprint, by torch or by numpy: ``xp`` and what it computes with."""
    at_least, at_most = (torch.clamp_min, torch.clamp_max) if xp is torch else (np.maximum, np.minimum)
    columns = at_most(at_least(columns, -FAR), FAR)
    squares = at_least((columns * columns).sum(axis=-1), 1e-12)
    fixed = (columns.detach(), squares.detach()) if xp is torch else (columns, squares)
    level = _level(xp, fixed[0], fixed[1], in_size, most)
    cells = xp.exp2(level)[..., None]
    # In units of 1/12 pixel^2 the variances are: of a column `squares`, of a level's box and tent 3 cells^2 - 1, of the
    # tent of the image itself 2. What the level does not bring, the probes must.
    own = 3 * (cells * cells - 1)
    left = at_least(squares - own, 0) + own * (LEAST**2 / 3)
    long = xp.sqrt(squares)
    ramp = at_most(at_least((long - PLAIN) / (FULL - PLAIN), 0), 1)
    spread = ramp * xp.sqrt(xp.minimum(left, squares) / squares)
    length = spread * long / cells
    length = length.detach() if xp is torch else length
    counts = xp.where(length > TWO, at_least(xp.ceil(length / APART), 3), 1 + 1.0 * (length > 2 * LEAST))
    counts = at_most(counts, most)
    # k points a step apart have the variance step^2 (k^2 - 1) / 12, a continuous stretch length^2 / 12.
    gaps = xp.sqrt(at_least(counts * counts - 1, 1))
    return columns * (spread / gaps)[..., None], counts, level


def _level(xp: Any, columns: Any, squares: Any, in_size: Sequence[int], most: int) -> Any:
    """The pyramid level (...) whose cells fit the footprint's narrow side, coarser where `most` probes are too few."""
    narrow = xp.minimum(_thickness(xp, columns, squares), xp.amin(squares, axis=-1))  # squared, as what follows
    by_width = xp.floor(xp.log2(xp.clip(narrow / CELLS**2, 1, None)) / 2) * (narrow >= FIRST**2)
    covered = {1: ONE, 2: TWO}.get(most, APART * most)
    by_count = xp.ceil(xp.log2(xp.amax(squares, axis=-1) / covered**2) / 2)
    return xp.clip(xp.maximum(by_width, by_count), 0, top_level(in_size))


def _thickness(xp: Any, columns: Any, squares: Any) -> Any:
    """The harmonic mean of the squared singular values of columns (..., d, d): near the least one where they differ."""
    d = columns.shape[-1]
    if d == 1:
        return squares[..., 0]
    if d == 2:
        volume = columns[..., 0, 0] * columns[..., 1, 1] - columns[..., 0, 1] * columns[..., 1, 0]
        cofactors = squares.sum(axis=-1)
    else:
        cross = torch.linalg.cross if xp is torch else np.cross
        a, b, c = (columns[..., j, :] for j in range(3))
        normals = [cross(*pair) for pair in ((a, b), (b, c), (c, a))]
        volume = (normals[0] * c).sum(axis=-1)
        cofactors = sum((normal * normal).sum(axis=-1) for normal in normals)
    return d * volume * volume / xp.clip(cofactors, 1e-30, None)


@dataclass(frozen=True)
class Extent:
    """What the pixels of an output ask for, all together."""

    counts: list[int]  # probes along x, y[, z]
    levels: tuple[int, int]  # first and last
    alike: bool  # every pixel asks for these counts and for the one level

    @property
    def plain(self) -> bool:
        """Whether every pixel reads the image itself, once."""
        return self.levels == (0, 0) and max(self.counts) == 1


def extent(foot: Footprint, in_size: Sequence[int], most: int) -> Extent:
    """A look at the values; where there are none to look at (a compiled graph, a vmap, the capture of a CUDA graph),
    the most there can be. What is read beyond need counts for nothing.
    """
    everything = Extent([most] * len(in_size), (0, top_level(in_size)), alike=False)
    if torch.compiler.is_compiling() or (foot.level.is_cuda and torch.cuda.is_current_stream_capturing()):
        return everything
    needs = torch.cat([foot.counts, foot.level[..., None]], dim=-1).flatten(0, -2)
    try:
        low, high = torch.stack([needs.amin(dim=0), needs.amax(dim=0)]).int().tolist()
    except RuntimeError:
        return everything
    return Extent(high[:-1], (low[-1], high[-1]), alike=low == high)


def rows(points: Tensor, foot: Footprint, counts: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """The probes, a row at a time: where they read, (N, R, *out, d), and what they count for, (N, R, *out or 1s)."""
    for first in range(counts[0]):
        offsets, weights = [], []
        for place in product((first,), *(range(count) for count in counts[1:])):
            offset, weight = torch.zeros_like(foot.steps[..., 0, :]), torch.ones_like(foot.level)
            for j, m in enumerate(place):
                count = foot.counts[..., j]
                needed = m < count
                away = torch.where(needed, m - (count - 1) / 2, 0.0)
                offset = torch.addcmul(offset, away[..., None], foot.steps[..., j, :])
                weight = weight * needed / count
            offsets.append(offset)
            weights.append(weight)
        yield points[:, None] + torch.stack(offsets, dim=1), torch.stack(weights, dim=1)


def offsets(steps: Tensor, counts: Sequence[int], places: Sequence[Sequence[int]]) -> Tensor:
    """How far probes lie from the centre where all pixels are alike: (N, *out or 1s, d, d) -> (N, R, *out or 1s, d)."""
    along = [[m - (count - 1) / 2 for m, count in zip(place, counts, strict=True)] for place in places]
    factors = torch.tensor(along, dtype=steps.dtype, device=steps.device)
    return (steps[:, None] * factors.reshape(len(places), *[1] * (steps.dim() - 3), -1, 1)).sum(dim=-2)
