"""The affine map taken apart, each part within bounds."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.rotation import RotationTransform


class BoundedAffine(RotationTransform):
    """x_s = R K S x_t + t: first scale along the axes, then shear, then rotate, then shift; each within its bound.

    2-D: theta (N, 6) = (a, l_x, l_y, k, t_x, t_y): S = diag(exp l_x, exp l_y), K = [[1, k], [0, 1]], R = R(a).
    3-D: theta (N, 12) = (axis-angle vector, l_x, l_y, l_z, k_xy, k_xz, k_yz, t_x, t_y, t_z), K unit upper triangular.
    A number v of theta counts as b tanh(v / b), b its bound: slope 1 at the identity, never beyond b. Since S is an
    exponential, the map can always be inverted; without bounds every affine map that keeps orientation is met, once per
    angle (it is the QR decomposition).

    R K S acts on *pixels*, see ``aspect``; t is normalised.

    Args:
        aspect: width / height of the image in pixels, or its extents (x, y[, z]) in pixels or millimetres.
        max_rotation: radians (3-D: of each number of the vector). max_log_scale: ln 4 means 1/4 to 4 times.
        max_shear: pixels per pixel. max_translation: normalised. math.inf means no bound.
    Raises: ValueError naming dims, aspect or a bound that is not positive.

    Example:
        >>> BoundedAffine()(torch.tensor([[0.0, 0.0, 0.0, 0.5, 100.0, 0.0]])).sources(torch.zeros(1, 1, 2)).tolist()
        [[[1.0, 0.0]]]
    """

    def __init__(
        self,
        dims: int = 2,
        *,
        aspect: float | Sequence[float] = 1.0,
        max_rotation: float = math.pi,
        max_log_scale: float = math.log(4),
        max_shear: float = 1.0,
        max_translation: float = 1.0,
    ) -> None:
        super().__init__(dims, aspect, None)
        self.bounds = {
            "max_rotation": max_rotation,
            "max_log_scale": max_log_scale,
            "max_shear": max_shear,
            "max_translation": max_translation,
        }
        for name, bound in self.bounds.items():
            if not _checks.number(name, bound) > 0:
                raise ValueError(f"{name}: wanted a number > 0, got {bound!r}")
        self.counts = [len(self.rotation_identity), dims, dims * (dims - 1) // 2, dims]
        self.theta_shape = (sum(self.counts),)

    def extra_repr(self) -> str:
        return ", ".join([super().extra_repr(), *[f"{name}={bound:.4g}" for name, bound in self.bounds.items()]])

    def identity(self) -> Tensor:
        return torch.zeros(self.theta_shape)

    def matrix(self, theta: Tensor) -> Tensor:
        parts = zip(theta.split(self.counts, dim=-1), self.bounds.values(), strict=True)
        numbers, log_scales, shears, shift = [part if b == math.inf else b * (part / b).tanh() for part, b in parts]
        rotation = self.rotate(numbers)
        columns = list(rotation.unbind(-1))
        for (i, j), shear in zip(combinations(range(self.dims), 2), shears[..., None].unbind(1), strict=True):
            columns[j] = columns[j] + shear * rotation[..., i]
        linear = torch.stack(columns, dim=-1) * log_scales.exp()[:, None]
        return torch.cat([self.in_normalized(linear), shift[..., None]], dim=-1)
