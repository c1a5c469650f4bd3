"""What a sampler reads beyond the border of the image.

A rule maps a coordinate that may lie outside to one inside; ``zeros`` has no rule: taps outside read the fill value.

    zeros        0 0 0 | a b c d | 0 0 0
    border       a a a | a b c d | d d d
    symmetric    c b a | a b c d | d c b      half-sample symmetric: about the outer edges of the border pixels
    mirror       d c b | a b c d | c b a      whole-sample symmetric: about the centres of the border pixels
    wrap         b c d | a b c d | a b c      periodic
    reflection   F.grid_sample's: symmetric with align_corners=False, mirror with align_corners=True

One word serves all axes; a sequence names one rule per axis, in the order of the points, (x, y[, z]).
Slopes at the edges are F.grid_sample's: nearest and bilinear reading clamp the folded coordinate, so the slope is zero
between a border pixel's centre and its outer edge, and beyond under ``border``; ``wrap`` has no edge.

With ``zeros``, EDGES says what becomes of a tap outside that serves a point near the border:

    blend     it reads the fill value, so the border fades into it over one kernel width, as F.grid_sample has it
    extend    points up to half a pixel outside the border pixels' centres read as under ``border``, and points farther
              out read the fill value alone: no dark seam
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torch_stn import _checks

PaddingRule = Callable[[Tensor, int, bool], Tensor]
EDGES = ("blend", "extend")


def border(coordinate: Tensor, n: int, align_corners: bool) -> Tensor:
    """The nearest coordinate in [0, n - 1]."""
    # Written with `where`, because clamp passes the gradient at the bounds themselves and F.grid_sample does not.
    zero = torch.zeros_like(coordinate)
    return torch.where(coordinate <= 0, zero, torch.where(coordinate >= n - 1, zero + (n - 1), coordinate))


def symmetric(coordinate: Tensor, n: int, align_corners: bool) -> Tensor:
    """Mirrored as often as needed about -1/2 and n - 1/2."""
    return _mirrored(coordinate, n, -0.5, float(n))


def mirror(coordinate: Tensor, n: int, align_corners: bool) -> Tensor:
    """Mirrored as often as needed about 0 and n - 1."""
    return _mirrored(coordinate, n, 0.0, float(n - 1))


def reflection(coordinate: Tensor, n: int, align_corners: bool) -> Tensor:
    """``mirror`` with align_corners, else ``symmetric``."""
    return (mirror if align_corners else symmetric)(coordinate, n, align_corners)


def wrap(coordinate: Tensor, n: int, align_corners: bool) -> Tensor:
    """The image again and again, with a period of n pixels."""
    return coordinate - n * torch.floor(coordinate.detach() / n)


def _mirrored(coordinate: Tensor, n: int, low: float, span: float) -> Tensor:
    if span == 0:
        return torch.zeros_like(coordinate)
    shifted = coordinate - low
    distance = torch.where(shifted < 0, -shifted, shifted)
    flips = torch.floor(distance.detach() / span)
    within = distance - flips * span
    mirrored = torch.where(flips % 2 == 0, within, span - within) + low
    return border(mirrored, n, False)


PADDINGS: dict[str, PaddingRule | None] = {
    "zeros": None,
    "border": border,
    "reflection": reflection,
    "symmetric": symmetric,
    "mirror": mirror,
    "wrap": wrap,
}


def folds(padding: Sequence[str]) -> bool:
    """Whether an axis is mirrored or repeated beyond the image, so that a point far out may lie anywhere in it."""
    return any(PADDINGS[name] not in (None, border) for name in padding)


def as_paddings(padding_mode: str | Sequence[str], dims: int) -> tuple[str, ...]:
    """One name per axis, in the order (x, y[, z]); checked."""
    if isinstance(padding_mode, str):
        return (_checks.one_of("padding_mode", padding_mode, PADDINGS),) * dims
    if not isinstance(padding_mode, Sequence):
        raise TypeError(f"padding_mode: wanted a word, or one per axis, got {type(padding_mode).__name__}")
    names = tuple(_checks.one_of("padding_mode", name, PADDINGS) for name in padding_mode)
    if len(names) != dims:
        raise ValueError(f"padding_mode: wanted one word, or one for each of {dims} axes (x, y, z), got {len(names)}")
    return names
