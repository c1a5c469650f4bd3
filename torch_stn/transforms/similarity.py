"""Rotation, isotropic scale and translation in the plane."""

import math

import torch
from torch import Tensor

from torch_stn.transforms.matrix import MatrixTransform


class Similarity(MatrixTransform):
    """x_s = exp(l) R(a) x_t + t: theta (N, 4) = (a, l, t_x, t_y), radians, log-scale, normalised; the identity is 0.

    The scale is an exponential, so the map can always be inverted. ``aspect`` = width / height of the image in pixels:
    the rotation is a rotation of *pixels*; on an image that is not square, a rotation of normalised coordinates would
    be a shear.

    Raises: ValueError where ``aspect`` is not positive.

    Example:
        >>> import math
        >>> quarter = torch.tensor([[math.pi / 2, 0.0, 0.0, 0.0]])
        >>> Similarity()(quarter).sources(torch.tensor([[[1.0, 0.0]]])).round().tolist()
        [[[0.0, 1.0]]]
    """

    theta_shape = (4,)

    def __init__(self, aspect: float = 1.0) -> None:
        super().__init__(dims=2)
        if not 0 < aspect < math.inf:
            raise ValueError(f"aspect: wanted width / height, finite and > 0, got {aspect!r}")
        self.aspect = aspect

    def extra_repr(self) -> str:
        return f"aspect={self.aspect}"

    def identity(self) -> Tensor:
        return torch.zeros(4)

    def matrix(self, theta: Tensor) -> Tensor:
        angle, log_scale, tx, ty = theta.unbind(-1)
        cos, sin = log_scale.exp() * angle.cos(), log_scale.exp() * angle.sin()
        rows = [torch.stack([cos, -sin / self.aspect, tx], dim=-1), torch.stack([sin * self.aspect, cos, ty], dim=-1)]
        return torch.stack(rows, dim=-2)
