"""The coordinate convention: its one home.

A point is (x, y) in 2-D and (x, y, z) in 3-D, always in the last axis: x runs along the width W, y along the height H,
z along the depth D. An image size is written the other way round, (H, W) or (D, H, W), as its tensor axes stand.

Units:
    pixel         pixel centres are the integers: 0 is the centre of the first pixel, n - 1 of the last one.
    normalized    [-1, 1] over an axis. align_corners=False (default): -1 and 1 are the *outer edges* of the first and
    last pixel;
                  align_corners=True: they are the *centres* of the first and last pixel.
    displacement  pixels of the image, counted from where the identity would read.

    align_corners=False    |-1  . 0 .  1|        pixel = ((u + 1) n - 1) / 2
                           |[ ] [ ] [ ] |
    align_corners=True      -1   0   1           pixel = (u + 1) (n - 1) / 2
                            [ ] [ ] [ ]

An axis of one pixel has, with align_corners=True, its only centre at u = 0, as F.affine_grid has it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

UNITS = ("normalized", "pixel", "displacement")


def base_axis(
    n: int, *, align_corners: bool = False, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Normalised coordinates of the ``n`` pixel centres of one axis: (n,).

    >>> base_axis(4).tolist()
    [-0.75, -0.25, 0.25, 0.75]
    >>> base_axis(3, align_corners=True).tolist()
    [-1.0, 0.0, 1.0]
    """
    index = torch.arange(n, dtype=dtype, device=device)
    if align_corners:
        return (2 * index - (n - 1)) / max(n - 1, 1)
    return (2 * index - (n - 1)) / n


def base_grid(
    size: Sequence[int],
    *,
    align_corners: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Normalised pixel centres of an image of ``size`` (h, w) or (d, h, w): (*size, d), last axis (x, y[, z]).

    >>> base_grid((2, 4))[0, :, 0].tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    axes = [base_axis(n, align_corners=align_corners, dtype=dtype, device=device) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)


def base_pixel_axis(
    n_out: int,
    n_in: int,
    *,
    align_corners: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Where the identity reads along one axis, in pixels of an input of ``n_in``: (n_out,).

    For ``n_out == n_in`` these are exactly the integers, which is why maps add displacements to them: in normalised
    float32 coordinates the identity would be off by up to 1.2e-4 pixel at 4,097 pixels.

    >>> base_pixel_axis(3, 3).tolist()
    [0.0, 1.0, 2.0]
    >>> base_pixel_axis(2, 4).tolist()
    [0.5, 2.5]
    """
    index = torch.arange(n_out, dtype=dtype, device=device)
    if not align_corners:
        return (index + 0.5) * (n_in / n_out) - 0.5
    if n_out > 1:
        return index * ((n_in - 1) / (n_out - 1))
    return index + (n_in - 1) / 2


def base_pixels(size: Sequence[int], in_size: Sequence[int], *, align_corners: bool, like: Tensor) -> Tensor:
    """Where the identity reads, in pixels of an image of ``in_size``, for an output of ``size``: (*size, d)."""
    pairs = zip(size, in_size, strict=True)
    axes = [base_pixel_axis(*pair, align_corners=align_corners, dtype=like.dtype, device=like.device) for pair in pairs]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)


def half_extents(in_size: Sequence[int], align_corners: bool) -> list[float]:
    """Pixels per normalised unit along x, y[, z]: n / 2 or (n - 1) / 2."""
    return [(n - 1) / 2 if align_corners else n / 2 for n in reversed(in_size)]


def as_list(points: Tensor) -> Tensor:
    """Points of any arrangement (N, *S, d) as a list (N, M, d)."""
    return points.flatten(1, -2) if points.dim() > 2 else points[:, None]


def to_pixel(points: Tensor, in_size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Normalised points (..., d) -> pixel points of an image of ``in_size`` (H, W) or (D, H, W).

    >>> to_pixel(torch.tensor([[-1.0, 1.0]]), (4, 4)).tolist()
    [[-0.5, 3.5]]
    """
    half, centre = (row_of(half_extents(in_size, ac), points) for ac in (align_corners, True))
    return torch.addcmul(centre, points, half)


def to_normalized(points: Tensor, in_size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Pixel points (..., d) of an image of ``in_size`` -> normalised points; the inverse of :func:`to_pixel`.

    >>> to_normalized(torch.tensor([[-0.5, 3.5]]), (4, 4)).tolist()
    [[-1.0, 1.0]]
    """
    half, centre = (row_of(half_extents(in_size, ac), points) for ac in (align_corners, True))
    # align_corners=True over one pixel: every normalised point is the same pixel, so any unit serves.
    return (points - centre) / torch.where(half == 0, torch.ones_like(half), half)


def in_units(points: Tensor, have: str, wanted: str, in_size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Points (N, *S, d) of any of UNITS as "pixel" or "normalized" ones; untouched where they are so already."""
    if have == "displacement":
        base = base_pixels(points.shape[1:-1], in_size, align_corners=align_corners, like=points)
        points, have = points + base, "pixel"
    if have == wanted:
        return points
    convert = to_pixel if wanted == "pixel" else to_normalized
    return convert(points, in_size, align_corners=align_corners)


def row_of(numbers: Sequence[float], like: Tensor) -> Tensor:
    """(d,) made on the device itself: a CPU tensor copied there would break the capture of a CUDA graph."""
    return torch.stack([torch.full((), number, dtype=like.dtype, device=like.device) for number in numbers])
