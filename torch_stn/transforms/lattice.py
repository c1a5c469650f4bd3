"""Vectors on a regular lattice: read linearly between the nodes, constant beyond the border.

Nodes lie as pixels do: ``align_corners=False`` puts them at the pixel centres of an image of the size of the lattice,
``align_corners=True`` puts the outermost ones at -1 and 1.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.coordinates import base_axis, half_extents


def read(
    values: Tensor,  # (N, *shape, d)
    xy: Tensor,  # (N or 1, M, d), normalised
    *,
    align_corners: bool,
) -> Tensor:  # (N, M, d)
    """The vectors at any points. Differentiable twice in values and points; NaN points give NaN."""
    corners, fractions, _ = _cell(values, xy, align_corners)
    for fraction in reversed(fractions):  # halves the corners axis by axis, x last in and first out
        half = len(corners) // 2
        corners = [torch.lerp(low, high, fraction) for low, high in zip(corners[:half], corners[half:], strict=True)]
    return corners[0]


def read_with_slopes(
    values: Tensor,  # (N, *shape, d)
    xy: Tensor,  # (N or 1, M, d), normalised
    *,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:  # (N, M, d), (N, M, d, d)
    """The vectors at any points and their Jacobian, [..., i, j] = d u_i / d x_j; at a kink the right-hand one."""
    corners, fractions, inside = _cell(values, xy, align_corners)
    scale = half_extents(values.shape[1:-1], align_corners)
    stacked = torch.stack(corners)
    slopes = []
    for axis in range(len(fractions)):  # x, y[, z]
        reduced = stacked
        for other in reversed(range(len(fractions))):
            low, high = reduced.chunk(2)
            weight = fractions[other]
            reduced = (high - low) * inside[other] * scale[other] if other == axis else torch.lerp(low, high, weight)
        slopes.append(reduced[0])
    reduced = stacked
    for fraction in reversed(fractions):
        low, high = reduced.chunk(2)
        reduced = torch.lerp(low, high, fraction)
    return reduced[0], torch.stack(slopes, dim=-1)


def _cell(values: Tensor, xy: Tensor, align_corners: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The vectors at the 2^d nodes around each point, the last axis, z or y, being the slowest; the fractions along
    x, y[, z], (N, M, 1); and where the point is not beyond the border, hence the slope not 0.
    """
    # A chain's coordinates have the precision of its most exact map.
    dtype = torch.promote_types(values.dtype, xy.dtype)
    values, xy = values.to(dtype), xy.to(dtype)
    shape = values.shape[1:-1]
    offsets: list[tuple[Tensor, Tensor]] = []
    fractions, insides = [], []
    stride = 1
    for axis, (count, half) in enumerate(zip(reversed(shape), half_extents(shape, align_corners), strict=True)):
        position = xy[..., axis] * half + (count - 1) / 2
        inside = (position >= 0) & (position < count - 1)
        clamped = position.clamp(0, count - 1)
        # A NaN point must read somewhere; its fraction stays NaN.
        low = clamped.detach().nan_to_num(0.0).floor().clamp(max=max(count - 2, 0))
        fractions.append((clamped - low)[..., None])
        insides.append(inside[..., None].to(xy.dtype))
        start = low.long() * stride
        offsets.append((start, start + (stride if count > 1 else 0)))
        stride *= count
    flat = values.flatten(1, -2)
    batch = _checks.broadcast_batch("values", values.shape[0], "xy", xy.shape[0])
    corners = []
    for choice in product((0, 1), repeat=len(offsets)):  # the last of them varies fastest: it is x
        index = sum(pair[side] for pair, side in zip(reversed(offsets), choice, strict=True))
        corners.append(_nodes(flat, index, batch))  # type: ignore[arg-type]
    return corners, fractions, insides


def _nodes(
    flat: Tensor,  # (N, L, d)
    index: Tensor,  # (N or 1, M)
    batch: int,
) -> Tensor:  # (N, M, d)
    if index.shape[0] == 1:
        return flat.index_select(1, index[0])
    flat = flat.expand(batch, -1, -1)
    return flat.gather(1, index[..., None].expand(-1, -1, flat.shape[-1]))


def resample(
    values: Tensor,  # (N, *shape, d)
    size: Sequence[int],
    *,
    align_corners: bool,
    grid_corners: bool | None = None,
) -> Tensor:  # (N, *size, d)
    """The vectors at every pixel centre of an image of ``size``, one axis after the other.

    ``grid_corners`` is the align_corners of that image, where it is not the lattice's.
    """
    grid_corners = align_corners if grid_corners is None else grid_corners
    shape = values.shape[1:-1]
    halves = half_extents(shape, align_corners)[::-1]
    for axis, (count, wanted, half) in enumerate(zip(shape, size, halves, strict=True), start=1):
        if count == wanted and grid_corners == align_corners:
            continue  # node on node, exactly
        at = base_axis(wanted, align_corners=grid_corners, dtype=values.dtype, device=values.device)
        position = (at * half + (count - 1) / 2).clamp(0, count - 1)
        low = position.floor().clamp(max=max(count - 2, 0))
        first = low.long()
        fraction = (position - low).reshape(-1, *[1] * (values.dim() - 1 - axis))
        second = first + 1 if count > 1 else first
        values = torch.lerp(values.index_select(axis, first), values.index_select(axis, second), fraction)
    return values
