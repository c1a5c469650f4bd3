"""Volumes: one digit, extruded, turned and placed in 60 x 60 x 60 voxels.

Source: Jaderberg et al. 2015, appendix A.3, which has 60^3, extrusion, rotation and a random place; how thick and how
far turned is decided here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_stn.lab.data.distortions import SIDE
from torch_stn.lab.data.draws import integers, uniform
from torch_stn.transforms import Affine
from torch_stn.warping import warp

VOLUME, THICK = 60, 12  # voxels: a side of the canvas; of the extruded digit
BLOCK = 40  # a side of the cube that a turned digit fits in: its ink lies within 20 x 20 x 12, half a diagonal of 15.4
TURN_DEGREES = 45.0  # at most, of each number of the axis-angle vector
TURN, PLACE = 70, 71  # streams


def draw_volumes(digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Volumes (B, 1, 60, 60, 60) in [0, 1], axes z, y, x, and labels (B,).

    The digit is 12 voxels thick, turned by an axis-angle vector with each number of U(-45, 45) degrees, then placed in
    whole voxels anywhere that its cube of 40 stays inside.
    """
    count, device = len(samples), digits.device
    turn = _rotation(uniform(seed, samples, TURN, 3, -1.0, 1.0) * math.radians(TURN_DEGREES))
    # source = R^-1 p, from units of half a cube to those of the digit's half extents.
    extents = torch.tensor([SIDE, SIDE, THICK], dtype=torch.float32, device=device)
    linear = turn.transpose(1, 2) * BLOCK / extents[:, None]
    ink = digits[indices].to(torch.float32)
    ink = ink.div(255) if digits.dtype == torch.uint8 else ink
    extruded = ink[:, None, None].expand(-1, -1, THICK, -1, -1)
    cube = warp(extruded.contiguous(), Affine(dims=3)(torch.nn.functional.pad(linear, (0, 1))), (BLOCK,) * 3)
    assert isinstance(cube, Tensor)  # a pair only with return_mask
    corner = integers(seed, samples, PLACE, 3, VOLUME - BLOCK + 1)
    steps = torch.arange(BLOCK, device=device)
    inside = ((steps[:, None, None] * VOLUME + steps[:, None]) * VOLUME + steps).flatten()
    first = (corner[:, 2] * VOLUME + corner[:, 1]) * VOLUME + corner[:, 0]
    canvas = torch.zeros(count, VOLUME**3, device=device)
    canvas.scatter_(1, first[:, None] + inside, cube.flatten(1).clamp_(0, 1))
    return canvas.view(count, 1, VOLUME, VOLUME, VOLUME), labels[indices]


def _rotation(vectors: Tensor) -> Tensor:
    """Axis-angle vectors (B, 3) in radians -> rotation matrices (B, 3, 3)."""
    x, y, z = vectors.unbind(1)
    still = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([still, -z, y, z, still, -x, -y, x, still], dim=1).unflatten(1, (3, 3)))
