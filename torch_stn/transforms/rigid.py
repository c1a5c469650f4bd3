"""Rotation and translation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn.transforms.rotation import RotationTransform


class Rigid(RotationTransform):
    """x_s = R x_t + t: theta (N, R + d) = (rotation, t_x, t_y[, t_z]).

    2-D: (a, t_x, t_y), a in radians. 3-D: the rotation is an axis-angle vector (3 numbers; its length is the angle),
    or, with ``rotation="quaternion"``, (w, x, y, z) of any length but 0. The rotation is one of *pixels*, see
    ``aspect``; t is normalised, and added after it.

    Args:
        aspect: width / height of the image in pixels, or its extents (x, y[, z]) in pixels or millimetres.
        rotation: "angle" in 2-D, "axis-angle" (the default) or "quaternion" in 3-D.
    Gradients: smooth everywhere, at no rotation too.
    Raises: ValueError naming dims, aspect or rotation; for a zero quaternion where it can be seen (eager, on a CPU),
        elsewhere its map leads nowhere.
    Source: Rodrigues 1840 (axis-angle); Hamilton 1843 (quaternion, scalar first).

    Example:
        >>> import math
        >>> turn = torch.tensor([[0.0, 0.0, math.pi / 2, 0.5, 0.0, 0.0]])  # about z
        >>> Rigid(3)(turn).sources(torch.tensor([[[1.0, 0.0, 0.0]]])).round(decimals=3).tolist()
        [[[0.5, 1.0, 0.0]]]
    """

    def __init__(self, dims: int = 2, *, aspect: float | Sequence[float] = 1.0, rotation: str | None = None) -> None:
        super().__init__(dims, aspect, rotation)
        self.theta_shape = (len(self.rotation_identity) + dims,)

    def identity(self) -> Tensor:
        return torch.tensor(self.rotation_identity + [0.0] * self.dims)

    def matrix(self, theta: Tensor) -> Tensor:
        numbers, shift = theta.split([len(self.rotation_identity), self.dims], dim=-1)
        return torch.cat([self.in_normalized(self.rotate(numbers)), shift[..., None]], dim=-1)
