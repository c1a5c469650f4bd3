"""Long lists of points in pieces, so that what is computed per point does not fill the memory."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_pieces(
    function: Callable[[Tensor], Tensor],  # (N, rows, d) -> (N, rows, ...)
    xy: Tensor,  # (N, M, d)
    rows: int,
) -> Tensor:  # (N, M, ...)
    """``function(xy)``, ``rows`` points at a time where there are more; the backward pass computes each piece again."""
    if xy.shape[1] <= rows:
        return function(xy)
    pieces = xy.split(rows, dim=1)
    if torch._C._are_functorch_transforms_active():  # checkpoints hook saved tensors, which torch.func refuses
        return torch.cat([function(piece) for piece in pieces], dim=1)
    return torch.cat([checkpoint(function, piece, use_reentrant=False) for piece in pieces], dim=1)
