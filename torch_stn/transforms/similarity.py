"""Rotation, isotropic scale and translation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn.transforms.rotation import RotationTransform


class Similarity(RotationTransform):
    """x_s = exp(l) R x_t + t: theta (N, R + 1 + d) = (rotation, l, t_x, t_y[, t_z]); 2-D: (a, l, t_x, t_y).

    Radians, log-scale, normalised. The scale is an exponential, so the map can always be inverted. The rotation is that
    of :class:`Rigid`: one of *pixels*, an angle in 2-D, in 3-D an axis-angle vector or a quaternion.

    Args:
        aspect: width / height of the image in pixels, or its extents (x, y[, z]) in pixels or millimetres.
        rotation: "angle" in 2-D, "axis-angle" (the default) or "quaternion" in 3-D.
    Raises: ValueError naming dims, aspect or rotation; for a zero quaternion as :class:`Rigid`.

    Example:
        >>> import math
        >>> quarter = torch.tensor([[math.pi / 2, 0.0, 0.0, 0.0]])
        >>> Similarity()(quarter).sources(torch.tensor([[[1.0, 0.0]]])).round().tolist()
        [[[0.0, 1.0]]]
    """

    def __init__(self, dims: int = 2, *, aspect: float | Sequence[float] = 1.0, rotation: str | None = None) -> None:
        super().__init__(dims, aspect, rotation)
        self.theta_shape = (len(self.rotation_identity) + 1 + dims,)

    def identity(self) -> Tensor:
        return torch.tensor(self.rotation_identity + [0.0] * (1 + self.dims))

    def matrix(self, theta: Tensor) -> Tensor:
        numbers, log_scale, shift = theta.split([len(self.rotation_identity), 1, self.dims], dim=-1)
        linear = log_scale.exp()[..., None] * self.in_normalized(self.rotate(numbers))
        return torch.cat([linear, shift[..., None]], dim=-1)
