"""Families that are one matrix on homogeneous points: translation, attention, affine; in 2-D and 3-D."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.transforms.base import Transform
from torch_stn.transforms.boxes import map_boxes
from torch_stn.transforms.maps import ComposedMap, Map


class MatrixMap(Map):
    """The map of a matrix (N, d, d + 1), affine, or (N, d + 1, d + 1), projective; closed under inverse and
    composition.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.batch, _, columns = matrix.shape
        self.dims = columns - 1

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def displacement(self, xy: Tensor) -> Tensor:
        return lowered.matrix_displacement(self.matrix, xy)

    def lower(self, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        return lowered.Matrix(self.matrix)

    def displacement_jacobian(self, xy: Tensor) -> Tensor:
        return lowered.matrix_jacobian(self.matrix, xy)

    def boxes(self, boxes: Tensor) -> Tensor:
        return map_boxes(self.points, boxes, self.dims, affine=self.matrix.shape[1] == self.dims)

    def inverse(self) -> "MatrixMap":
        """In closed form. A singular matrix gives points that are not finite, which samplers read as outside; it
        never raises.
        """
        square = self.homogeneous()
        # Against the product of the columns' lengths, which no determinant exceeds: what only rounding keeps from 0 is
        # 0. How far an affine map shifts does not matter.
        block = square if self.matrix.shape[1] > self.dims else square[:, : self.dims, : self.dims]
        bound = block.norm(dim=-2).prod(dim=-1)
        regular = torch.linalg.det(block).abs() > 8 * torch.finfo(square.dtype).eps * bound
        safe = torch.where(regular[:, None, None], square, torch.eye(self.dims + 1).to(square))
        inverse = torch.linalg.inv_ex(safe)[0]
        inverse = torch.where(regular[:, None, None], inverse, torch.full_like(inverse, float("nan")))
        return MatrixMap(inverse[:, : self.matrix.shape[1]])

    def then(self, other: Map) -> Map:
        if isinstance(other, ComposedMap) and isinstance(other.first, MatrixMap):
            return self.then(other.first).then(other.second)
        if not isinstance(other, MatrixMap):
            return super().then(other)
        if other.dims != self.dims:
            raise ValueError(f"then: wanted a {self.dims}-D map, got a {other.dims}-D one")
        _checks.broadcast_batch("first", self.batch, "second", other.batch)
        # As a sum of products, not a matmul, which autocast would run in half precision.
        product = (self.homogeneous()[:, :, :, None] * other.homogeneous()[:, None]).sum(dim=2)
        return MatrixMap(product[:, : max(self.matrix.shape[1], other.matrix.shape[1])])

    def homogeneous(self) -> Tensor:
        """The square matrix (N, d + 1, d + 1)."""
        if self.matrix.shape[1] == self.dims + 1:
            return self.matrix
        last = torch.zeros_like(self.matrix[:, :1])
        last[..., -1] = 1
        return torch.cat([self.matrix, last], dim=1)


class MatrixTransform(Transform):
    """A family that is a matrix: a subclass gives ``matrix(theta)``."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise ValueError(f"dims: wanted 2 or 3, got {dims!r}")
        self.dims = dims

    def extra_repr(self) -> str:
        return f"dims={self.dims}"

    @abstractmethod
    def matrix(self, theta: Tensor) -> Tensor:
        """theta (N, *theta_shape) -> (N, d, d + 1) or (N, d + 1, d + 1)."""
        raise NotImplementedError(f"{type(self).__name__}.matrix")

    def map(self, theta: Tensor) -> MatrixMap:
        return MatrixMap(self.matrix(theta))

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        return self.map(theta).displacement(xy)

    def lower(self, theta: Tensor, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        return self.map(theta).lower(size, align_corners=align_corners)


def _eye(theta: Tensor, dims: int) -> Tensor:
    """The identity matrix (N, d, d + 1) for a batch of thetas."""
    return torch.eye(dims, dims + 1, dtype=theta.dtype, device=theta.device).expand(theta.shape[0], -1, -1)


class Translation(MatrixTransform):
    """[x_s; y_s] = [x_t + t_x; y_t + t_y]: theta (N, d), normalised; the identity is 0.

    Example:
        >>> Translation()(torch.tensor([[0.5, 0.0]])).sources(torch.zeros(1, 1, 2)).tolist()
        [[[0.5, 0.0]]]
    """

    def __init__(self, dims: int = 2) -> None:
        super().__init__(dims)
        self.theta_shape = (dims,)

    def identity(self) -> Tensor:
        return torch.zeros(self.dims)

    def matrix(self, theta: Tensor) -> Tensor:
        return torch.cat([_eye(theta, self.dims)[..., :-1], theta[..., None]], dim=-1)


class Attention(MatrixTransform):
    """The paper's attention, [[s, 0, t_x], [0, s, t_y]]: theta (N, 1 + d) = (s, t_x, t_y[, t_z]); s < 1 zooms in.

    With a fixed ``scale`` only the place is left: theta (N, d) = (t_x, t_y[, t_z]), a window of that share of the side.

    Source: Jaderberg et al. 2015, section 3.2, and 4.3 for a fixed scale of 1/2. Identity: (1, 0, 0[, 0]); a fixed
    scale other than 1 has none, and starts in the middle.

    Example:
        >>> Attention()(torch.tensor([[0.5, 0.25, 0.0]])).sources(torch.ones(1, 1, 2)).tolist()
        [[[0.75, 0.5]]]
        >>> Attention(scale=0.5)(torch.tensor([[0.25, 0.0]])).sources(torch.ones(1, 1, 2)).tolist()
        [[[0.75, 0.5]]]
    """

    def __init__(self, dims: int = 2, *, scale: float | None = None) -> None:
        super().__init__(dims)
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale: wanted a finite number above 0, or None, got {scale}")
        self.scale = scale
        self.theta_shape = (1 + dims,) if scale is None else (dims,)
        self.has_identity = scale is None or scale == 1

    def identity(self) -> Tensor:
        if not self.has_identity:
            raise ValueError(f"identity: Attention has none at the fixed scale {self.scale:g}")
        return self.initial()

    def initial(self) -> Tensor:
        return torch.tensor(([1.0] if self.scale is None else []) + [0.0] * self.dims)

    def matrix(self, theta: Tensor) -> Tensor:
        shift = theta if self.scale is not None else theta[:, 1:]
        scale = self.scale if self.scale is not None else theta[:, :1, None]
        return torch.cat([scale * _eye(theta, self.dims)[..., :-1], shift[..., None]], dim=-1)


class Affine(MatrixTransform):
    """[x_s; y_s] = theta [x_t; y_t; 1]: theta (N, 6) or (N, 2, 3), 3-D (N, 12) or (N, 3, 4), as F.affine_grid.

    Source: Jaderberg et al. 2015, equation 1. A determinant below 1 of the linear part zooms in.

    Example:
        >>> theta = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])  # reads a quarter turn
        >>> Affine()(theta).sources(torch.tensor([[[1.0, 0.0]]])).tolist()
        [[[0.0, 1.0]]]
    """

    def __init__(self, dims: int = 2) -> None:
        super().__init__(dims)
        self.theta_shape = (dims, dims + 1)

    def identity(self) -> Tensor:
        return torch.eye(self.dims, self.dims + 1)

    def matrix(self, theta: Tensor) -> Tensor:
        return theta
