"""What a map does to axis-aligned boxes."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_stn import _checks


def map_boxes(
    move: Callable[[Tensor], Tensor],  # (N, M, d) -> (N, M, d)
    boxes: Tensor,  # (N, B, 2 d): x_min, y_min[, z_min], x_max, y_max[, z_max]
    samples: int = 33,
) -> Tensor:  # (N, B, 2 d)
    """The tight axis-aligned box around each moved box outline.

    Every edge is cut at ``samples`` points (its corners among them), since a curved map may push the middle of an edge
    further out than its ends. Gradients flow to the points that touch the box.
    """
    d = boxes.shape[-1] // 2
    if boxes.dim() != 3 or boxes.shape[-1] not in (4, 6):
        raise ValueError(
            f"boxes: wanted (N, B, 4) or (N, B, 6) as min corner, max corner, got {_checks.describe(boxes)}"
        )
    low, high = boxes[..., :d], boxes[..., d:]
    outline = _outline(d, samples, boxes)
    corners = low[:, :, None] + (high - low)[:, :, None] * outline
    moved = move(corners.flatten(1, 2)).unflatten(1, (boxes.shape[1], -1))
    return torch.cat([moved.amin(dim=2), moved.amax(dim=2)], dim=-1)


def _outline(d: int, samples: int, like: Tensor) -> Tensor:
    """Points on all edges of the unit square or cube: (edges * samples, d)."""
    t = torch.linspace(0, 1, samples, dtype=like.dtype, device=like.device)
    ends = torch.cartesian_prod(*[torch.arange(2, dtype=like.dtype, device=like.device)] * (d - 1)).reshape(-1, d - 1)
    edges = []
    for axis in range(d):
        fixed = ends[:, None].expand(-1, samples, -1)
        moving = t[None, :, None].expand(len(ends), -1, -1)
        edges.append(torch.cat([fixed[..., :axis], moving, fixed[..., axis:]], dim=-1).reshape(-1, d))
    return torch.cat(edges)
