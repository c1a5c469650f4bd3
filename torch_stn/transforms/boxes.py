"""What a map does to axis-aligned boxes.

A map that bends may push the middle of an edge, in 3-D of a face, further out than its ends. So the whole outline (the
surface) is searched: first on a regular lattice, then, around the outermost lattice point of each edge (face), on
lattices of half the width each, eight times over. Of 10^5 mapped points of a box none lies outside the box that is
found, and in 2-D the outermost of them are within 2e-5 (tests/test_maps.py).

A box whose max lies below its min along some axis, or with a coordinate that is not finite, is empty and becomes NaN;
a box without extent is a point or a segment and is mapped as such. Points of the outline that the map sends nowhere
(behind the camera, a fold) do not count; where none lands, the box is NaN. NaN boxes have zero gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_stn import _checks

_SAMPLES = {2: 33, 3: 17}  # lattice points along each axis of an edge or face, its ends among them
_HALVINGS = 8


def map_boxes(
    move: Callable[[Tensor], Tensor],  # (N, M, d) -> (N, M, d)
    boxes: Tensor,  # (N, B, 2 d): x_min, y_min[, z_min], x_max, y_max[, z_max]
    dims: int,
    *,
    affine: bool = False,  # then the corners say all
) -> Tensor:  # (N, B, 2 d)
    """The tight axis-aligned box around each moved box. Gradients flow to the points that touch it."""
    _checks.floating("boxes", _checks.tensor("boxes", boxes))
    if dims == 1:
        raise ValueError("boxes: there are none in 1-D; wanted a map of the plane or of space")
    if boxes.dim() != 3 or boxes.shape[-1] != 2 * dims:
        raise ValueError(f"boxes: wanted (N, B, {2 * dims}) as min corner, max corner, got {_checks.describe(boxes)}")
    d = dims
    holds = torch.isfinite(boxes).all(dim=-1, keepdim=True) & (boxes[..., d:] >= boxes[..., :d]).all(
        dim=-1, keepdim=True
    )
    # An empty box must not meet theta: 0 * NaN would make its gradient NaN.
    low, high = torch.where(holds, boxes, torch.zeros_like(boxes)).split(d, dim=-1)

    def land(units: Tensor) -> Tensor:
        """Points of each box, (N or 1, B or 1, *S, d) in units of its sides, moved: (N, B, *S, d)."""
        shape = (-1, boxes.shape[1], *[1] * (units.dim() - 3), d)
        inside = low.reshape(shape) + (high - low).reshape(shape) * units
        moved = move(inside.flatten(1, -2))
        return moved.reshape(moved.shape[0], *inside.shape[1:])

    if boxes.shape[1] == 0:
        return torch.cat([move(low), move(high)], dim=-1)
    if affine:
        corners = torch.cartesian_prod(*[torch.arange(2, dtype=boxes.dtype, device=boxes.device)] * d)
        moved = land(corners[None, None])
        found = torch.cat([moved.amin(dim=2), moved.amax(dim=2)], dim=-1)
    else:
        with torch.no_grad():
            touching = _outermost(land, d, boxes)
        moved = land(touching)
        found = torch.stack([moved[:, :, side, side % d] for side in range(2 * d)], dim=-1)
    return torch.where(holds & torch.isfinite(found), found, torch.full_like(found, float("nan")))


def _outermost(land: Callable[[Tensor], Tensor], d: int, like: Tensor) -> Tensor:
    """For each side of the box to be found, the point of the outline that touches it: (N, B, 2 d, d) in [0, 1].

    Candidates are (N, B, 2 d sides, 2 d faces, G, d - 1): where they lie on each face.
    """
    t = torch.linspace(0, 1, _SAMPLES[d], dtype=like.dtype, device=like.device)
    nearby = torch.linspace(-1, 1, 5, dtype=like.dtype, device=like.device)
    lattice, offsets = (torch.cartesian_prod(*[axis] * (d - 1)).reshape(-1, d - 1) for axis in (t, nearby))
    candidates = lattice.expand(1, 1, 1, 2 * d, -1, -1)  # the first time, the sides share them
    reach = 1 / (len(t) - 1)
    for _ in range(_HALVINGS + 1):
        score = _how_far_out(land(_on_faces(candidates)), d)
        best = score.argmax(dim=-1)[..., None, None].expand(*score.shape[:-1], 1, d - 1)
        at = candidates.expand(*score.shape, -1).gather(-2, best)
        candidates = (at + reach * offsets).clamp(0, 1)
        reach /= 2
    face = score.amax(dim=-1).argmax(dim=-1)[..., None, None].expand(*score.shape[:3], 1, d)
    return _on_faces(at)[..., 0, :].gather(-2, face)[..., 0, :]


def _on_faces(at: Tensor) -> Tensor:
    """(..., 2 d faces, G, d - 1) -> points (..., 2 d, G, d) of the unit cube; face 2 k + end: x_k = end."""
    faces = []
    for face, on_face in enumerate(at.unbind(-3)):
        fixed = torch.full_like(on_face[..., :1], face % 2)
        faces.append(torch.cat([on_face[..., : face // 2], fixed, on_face[..., face // 2 :]], dim=-1))
    return torch.stack(faces, dim=-3)


def _how_far_out(moved: Tensor, d: int) -> Tensor:
    """Moved points (N, B, 2 d or 1, F, G, d) -> how far each lies towards each side: (N, B, 2 d, F, G)."""
    sides = moved.expand(-1, -1, 2 * d, -1, -1, -1)
    score = torch.stack([(-1 if side < d else 1) * sides[:, :, side, ..., side % d] for side in range(2 * d)], dim=2)
    lands = torch.isfinite(sides).all(dim=-1)
    return torch.where(lands, score, torch.full_like(score, float("-inf")))
