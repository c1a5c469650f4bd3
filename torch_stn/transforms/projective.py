"""The homography of the plane and of space."""

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.maps import Map
from torch_stn.transforms.matrix import MatrixTransform


class Projective(MatrixTransform):
    """x_s = (t11 x + t12 y + t13) / w, y_s likewise, w = t31 x + t32 y + 1: theta (N, 8), row by row; 3-D (N, 15).

    A full matrix (N, 3, 3), 3-D (N, 4, 4), is taken as it is; its scale does not matter, its sign does: a point with
    w <= 1e-6 is behind the camera, hence outside the image (padding value, zero gradient, False in the mask).

    Source: Jaderberg et al. 2015, section 3.2 (8 parameters). Identity: the rows of the unit matrix.

    Example:
        >>> theta = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0.5, 0]])
        >>> Projective()(theta).sources(torch.tensor([[[1.0, 0.0]]])).round(decimals=3).tolist()
        [[[0.6669999957084656, 0.0]]]
    """

    def __init__(self, dims: int = 2) -> None:
        super().__init__(dims)
        self.theta_shape = ((dims + 1) ** 2 - 1,)

    def identity(self) -> Tensor:
        return torch.eye(self.dims + 1).flatten()[:-1]

    def forward(self, theta: Tensor) -> Map:
        full = (self.dims + 1, self.dims + 1)
        return self.map(_checks.theta(theta, self.theta_shape, type(self).__name__, beside=[full]))

    def matrix(self, theta: Tensor) -> Tensor:
        if theta.dim() == 3:
            return theta
        full = torch.cat([theta, torch.ones_like(theta[:, :1])], dim=-1)
        return full.unflatten(-1, (self.dims + 1, self.dims + 1))
