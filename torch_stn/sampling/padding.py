"""What a sampler reads beyond the border of the image.

A rule maps a coordinate that may lie outside to one inside; ``zeros`` has no rule: taps outside read the fill value.

    zeros        0 0 0 | a b c d | 0 0 0
    border       a a a | a b c d | d d d
    reflection   c b a | a b c d | d c b      align_corners=False: about the outer edges of the border pixels
                 d c b | a b c d | c b a      align_corners=True:  about the centres of the border pixels

Slopes at the edges are F.grid_sample's: zero at and beyond the first and last pixel centre.
"""

from collections.abc import Callable

import torch
from torch import Tensor

PaddingRule = Callable[[Tensor, int, bool], Tensor]


def border(coordinate: Tensor, n: int, align_corners: bool) -> Tensor:
    """The nearest coordinate in [0, n - 1]."""
    # Written with `where`, because clamp passes the gradient at the bounds themselves and F.grid_sample does not.
    zero = torch.zeros_like(coordinate)
    return torch.where(coordinate <= 0, zero, torch.where(coordinate >= n - 1, zero + (n - 1), coordinate))


def reflection(coordinate: Tensor, n: int, align_corners: bool) -> Tensor:
    """Mirrored as often as needed, about -1/2 and n - 1/2, or about 0 and n - 1 with align_corners."""
    low = 0.0 if align_corners else -0.5
    span = float(n - 1) if align_corners else float(n)
    if span == 0:
        return torch.zeros_like(coordinate)
    shifted = coordinate - low
    distance = torch.where(shifted < 0, -shifted, shifted)
    flips = torch.floor(distance.detach() / span)
    within = distance - flips * span
    mirrored = torch.where(flips % 2 == 0, within, span - within) + low
    return border(mirrored, n, align_corners)


PADDINGS: dict[str, PaddingRule | None] = {
    "zeros": None,
    "border": border,
    "reflection": reflection,
}
