"""The plane homography."""

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.matrix import MatrixTransform


class Projective(MatrixTransform):
    """x_s = (t11 x + t12 y + t13) / w, y_s likewise, w = t31 x + t32 y + 1: theta (N, 8), row by row.

    A full matrix (N, 3, 3) is taken as it is; its scale does not matter, its sign does: a point with w <= 1e-6 is
    behind the camera, hence outside the image (padding value, zero gradient, False in the mask).

    Source: Jaderberg et al. 2015, section 3.2 (8 parameters). Identity: (1, 0, 0, 0, 1, 0, 0, 0).

    Example:
        >>> theta = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0.5, 0]])
        >>> Projective()(theta).sources(torch.tensor([[[1.0, 0.0]]])).round(decimals=3).tolist()
        [[[0.6669999957084656, 0.0]]]
    """

    theta_shape = (8,)

    def __init__(self) -> None:
        super().__init__(dims=2)

    def extra_repr(self) -> str:
        return ""

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0])

    def forward(self, theta: Tensor):  # type: ignore[no-untyped-def]
        if isinstance(theta, Tensor) and theta.dim() == 3 and theta.shape[1:] == (3, 3):
            return self.map(_checks.theta(theta, [(3, 3)], "Projective"))
        return super().forward(theta)

    def matrix(self, theta: Tensor) -> Tensor:
        if theta.dim() == 3:
            return theta
        return torch.cat([theta, torch.ones_like(theta[:, :1])], dim=-1).unflatten(-1, (3, 3))
