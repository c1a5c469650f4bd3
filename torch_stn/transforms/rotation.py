"""Rotations as numbers, and what families with a rotation share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.matrix import MatrixTransform

# Which numbers a rotation is; the identity has the values given.
ROTATIONS: dict[int, dict[str, list[float]]] = {
    2: {"angle": [0.0]},
    3: {"axis-angle": [0.0, 0.0, 0.0], "quaternion": [1.0, 0.0, 0.0, 0.0]},
}


class RotationTransform(MatrixTransform):
    """A matrix family with a rotation of *pixels*: in normalised coordinates of an image that is not square, or not a
    cube, a plain rotation matrix would be a shear.

    Args:
        aspect: width / height of the image in pixels, or its extents (x, y[, z]) in any one unit: pixels, or pixels
            times spacing.
        rotation: "angle" (2-D); "axis-angle" or "quaternion" (3-D). None: the first of its dimension.
    """

    def __init__(self, dims: int, aspect: float | Sequence[float], rotation: str | None) -> None:
        super().__init__(dims)
        kinds = ROTATIONS[dims]
        self.rotation = next(iter(kinds)) if rotation is None else _checks.one_of("rotation", rotation, kinds)
        self.rotation_identity = kinds[self.rotation]
        self.extents = _extents(aspect, dims)
        extents = torch.tensor(self.extents, dtype=torch.float64)
        self.ratios: Tensor
        self.register_buffer("ratios", extents / extents[:, None], persistent=False)

    def extra_repr(self) -> str:
        return f"dims={self.dims}, aspect={self.extents}, rotation={self.rotation!r}"

    def rotate(self, numbers: Tensor) -> Tensor:
        """The rotation matrices (N, d, d), of pixels, of the numbers of a rotation."""
        if self.rotation == "quaternion":
            return quaternion_matrix(numbers)
        return axis_angle_matrix(numbers) if self.dims == 3 else angle_matrix(numbers[:, 0])

    def in_normalized(self, linear: Tensor) -> Tensor:
        """A linear map of pixels (N, d, d) as one of normalised coordinates."""
        return linear * self.ratios.to(linear.dtype)


def angle_matrix(angle: Tensor) -> Tensor:
    """[[cos, -sin], [sin, cos]]: (N,) radians -> (N, 2, 2); x turns towards y.

    >>> angle_matrix(torch.zeros(1)).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)


def axis_angle_matrix(vector: Tensor) -> Tensor:
    """I + sinc(a) K + (1 - cos a) / a^2 K^2, K the cross product with the vector: (N, 3) -> (N, 3, 3).

    The direction is the axis, the length a the angle in radians, right-handed. Smooth at zero, in every derivative.
    Source: Rodrigues 1840.

    >>> axis_angle_matrix(torch.tensor([[0.0, 0.0, torch.pi / 2]])).round().tolist()
    [[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    squared = vector.square().sum(dim=-1)[:, None, None]
    once = _sinc_of_square(squared)
    twice = _sinc_of_square(squared / 4).square() / 2  # (1 - cos a) / a^2 without the cancellation at small a
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + once * _cross(vector) + twice * _cross_twice(vector)


def quaternion_matrix(quaternion: Tensor) -> Tensor:
    """I + 2 / |q|^2 (w K + K^2), K the cross product with (x, y, z): q = (w, x, y, z), (N, 4) -> (N, 3, 3).

    Raises: ValueError for a zero quaternion where its value can be looked at (on a CPU, neither compiled nor under
    vmap); elsewhere its matrix, as that of a NaN, is NaN, with zero gradient: every point is outside.

    >>> quaternion_matrix(torch.tensor([[2.0, 0.0, 0.0, 0.0]])).tolist()
    [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    # A tiny one must not vanish in its square. Its length does not matter, so that of the scale needs no gradient.
    scale = quaternion.detach().abs().amax(dim=-1, keepdim=True)
    quaternion = quaternion / torch.where((scale > 0) & torch.isfinite(scale), scale, torch.ones_like(scale))
    squared = quaternion.square().sum(dim=-1)[:, None, None]
    turns = squared > 0
    _checks.every(squared != 0, "theta", "a quaternion (w, x, y, z) that is not zero")
    vector = quaternion[:, 1:]
    moved = quaternion[:, :1, None] * _cross(vector) + _cross_twice(vector)
    identity = torch.eye(3, dtype=quaternion.dtype, device=quaternion.device)
    matrix = identity + 2 / torch.where(turns, squared, torch.ones_like(squared)) * moved
    return torch.where(turns, matrix, torch.full_like(matrix, float("nan")))


def _cross(vector: Tensor) -> Tensor:
    """K with K p = vector x p: (N, 3) -> (N, 3, 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _cross_twice(vector: Tensor) -> Tensor:
    """K^2 = v v^T - |v|^2 I; written out, since autocast would round a matmul to half precision."""
    x, y, z = vector.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    entries = [-yy - zz, x * y, x * z, x * y, -xx - zz, y * z, x * z, y * z, -xx - yy]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def _sinc_of_square(squared: Tensor) -> Tensor:
    """sin(a) / a as a function of a^2: a series near 0, where the root has no slope."""
    near = squared < 0.5
    series = torch.zeros_like(squared)
    for n in range(8, -1, -1):
        series = series * squared + (-1) ** n / math.factorial(2 * n + 1)
    angle = torch.where(near, torch.ones_like(squared), squared).sqrt()
    return torch.where(near, series, angle.sin() / angle)


def _extents(aspect: float | Sequence[float], dims: int) -> tuple[float, ...]:
    """The image's extents along x, y[, z], up to a common factor."""
    alone = isinstance(aspect, int | float)
    given = (aspect, *[1.0] * (dims - 1)) if alone else tuple(aspect)  # type: ignore[arg-type]
    fits = len(given) == dims and all(isinstance(n, int | float) and 0 < n < math.inf for n in given)
    if fits and (dims == 2 or not alone or aspect == 1):
        return tuple(float(n) for n in given)  # type: ignore[arg-type]
    wanted = "width / height, or (x, y) extents," if dims == 2 else "(x, y, z) extents, or 1 for a cube,"
    raise ValueError(f"aspect: wanted {wanted} finite and > 0, got {aspect!r}")
