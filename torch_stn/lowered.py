"""The closed set of forms that kernels know: what every Map can be lowered to for a given output size.

All three say where to read in the image for an output of some size, in *normalised displacement* form: output point xy
reads at xy + displacement(xy). Fused kernels match on these records and on nothing else, so a family they have never
heard of still gets the fused path.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_stn.coordinates import base_axis, base_pixel_axis, half_extents

W_EPS = 1e-6  # a homography point with w <= W_EPS is outside the image


@dataclass(frozen=True)
class Matrix:
    """One matrix per sample: (N, d, d + 1) affine, (N, d + 1, d + 1) projective; normalised output -> input."""

    matrix: Tensor

    @property
    def projective(self) -> bool:
        """True where the last row is present and divides."""
        _, rows, columns = self.matrix.shape
        return rows == columns


@dataclass(frozen=True)
class Basis:
    """displacement = basis @ coefficients: ``basis`` (*size, K) for all samples, ``coefficients`` (N, K, d)."""

    basis: Tensor
    coefficients: Tensor


@dataclass(frozen=True)
class Field:
    """A displacement per output pixel: (N, *size, d)."""

    displacement: Tensor


Lowered = Matrix | Basis | Field


def batch(form: Lowered) -> int:
    """N of the maps."""
    if isinstance(form, Matrix):
        return form.matrix.shape[0]
    return (form.coefficients if isinstance(form, Basis) else form.displacement).shape[0]


def matrix_displacement(
    matrix: Tensor,  # (N, d, d + 1) or (N, d + 1, d + 1)
    xy: Tensor,  # (N or 1, M, d)
) -> Tensor:  # (N, M, d)
    """T(xy) - xy of a matrix, with (theta - identity) as the linear coefficient, so that the identity is exactly 0.

    Projective: with p = (x, y, 1) and w = row_3 p, ((row_i - e_i) p - xy_i (w - 1)) / w. Points with w <= W_EPS
    become inf, which samplers read as outside; their gradient is zero.
    """
    d = xy.shape[-1]
    delta = matrix - torch.eye(matrix.shape[-2], d + 1, dtype=matrix.dtype, device=matrix.device)
    # Written out, not as a matmul: autocast and TF32 would round the coordinates of a matmul to half precision.
    moved = delta[:, None, :, d]
    for axis in range(d):
        moved = torch.addcmul(moved, xy[..., axis, None], delta[:, None, :, axis])
    if matrix.shape[-2] == d:
        return moved
    w = moved[..., d:] + 1
    inside = w > W_EPS
    safe_w = torch.where(inside, w, torch.ones_like(w))
    displacement = (moved[..., :d] - xy * moved[..., d:]) / safe_w
    return torch.where(inside, displacement, torch.full_like(displacement, float("inf")))


def matrix_jacobian(
    matrix: Tensor,  # (N, d, d + 1) or (N, d + 1, d + 1)
    xy: Tensor,  # (N or 1, M, d)
) -> Tensor:  # (N, M, d, d)
    """d(T(xy) - xy) / dxy of a matrix; projective: (m_ij - T_i m_wj) / w - delta_ij, NaN where w <= W_EPS."""
    d = xy.shape[-1]
    identity = torch.eye(d, dtype=matrix.dtype, device=matrix.device)
    linear = matrix[:, None, :d, :d]
    if matrix.shape[-2] == d:
        batch = torch.broadcast_shapes(matrix.shape[:1], xy.shape[:1])
        return (linear - identity).expand(*batch, xy.shape[1], -1, -1)
    w = (matrix[:, None, d, :d] * xy).sum(dim=-1) + matrix[:, None, d, d]
    inside = w > W_EPS
    w = torch.where(inside, w, torch.ones_like(w))[..., None, None]
    sources = torch.where(inside[..., None], xy + matrix_displacement(matrix, xy), torch.zeros_like(xy))
    slopes = (linear - sources[..., None] * matrix[:, None, None, d, :d]) / w - identity
    return torch.where(inside[..., None, None], slopes, torch.full_like(slopes, float("nan")))


def points(
    form: Lowered, size: Sequence[int], base: Sequence[Tensor], scale: Sequence[float], *, align_corners: bool = False
) -> Tensor:  # (N, *size, d)
    """Where every output pixel reads: base + scale * displacement, the plain-PyTorch meaning of a lowered form.

    ``base`` holds, for x, y[, z], where the identity reads along that axis, (w,), (h,)[, (d,)], and ``scale`` the unit
    of the displacement; so the result is in pixels or in [-1, 1] as the caller likes. Its dtype is that of ``base``.
    """
    if isinstance(form, Matrix):
        planes = _projective_planes if form.projective else _affine_planes
        coordinates = planes(form.matrix.to(base[0]), size, base, scale, align_corners)
        # Planar in memory, (N, d, *size): samplers read it as fast, and interleaving would be one more pass.
        return torch.stack(torch.broadcast_tensors(*coordinates), dim=1).movedim(1, -1)
    moved = _as_field(form, base[0])
    grid = torch.stack(torch.meshgrid(*reversed(base), indexing="ij")[::-1], dim=-1)
    scales = torch.stack([torch.full_like(base[0][0], s) for s in scale])
    return torch.addcmul(grid, moved, scales)


def points_in(
    form: Lowered,
    units: str,  # "pixel" | "normalized"
    *,
    size: Sequence[int],
    in_size: Sequence[int],
    align_corners: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:  # (N, *size, d)
    """Where every output pixel reads in an image of ``in_size``, in the units asked for."""
    how = {"align_corners": align_corners, "dtype": dtype, "device": device}
    if units == "pixel":
        base = [base_pixel_axis(*pair, **how) for pair in zip(size, in_size, strict=True)]  # type: ignore[arg-type]
        scale = half_extents(in_size, align_corners)
    else:
        base, scale = [base_axis(n, **how) for n in size], [1.0] * len(size)  # type: ignore[arg-type]
    return points(form, size, base[::-1], scale, align_corners=align_corners)


def _affine_planes(
    matrix: Tensor, size: Sequence[int], base: Sequence[Tensor], scale: Sequence[float], align_corners: bool
) -> list[Tensor]:
    """x, y[, z] of an affine map: sums of one term per axis, so one addition per pixel and axis beyond the first."""
    d = len(size)
    delta, axes = _delta_and_axes(matrix, size, align_corners)
    coordinates = []
    for i in range(d):
        slopes = [delta[:, i, j, None] * axes[j] * scale[i] for j in range(d)]
        slopes[i] = slopes[i] + base[i] + delta[:, i, d, None] * scale[i]
        terms = [_along(slopes[j], j, d) for j in range(d)]
        coordinates.append(sum(terms[1:], terms[0]))
    return coordinates


def _projective_planes(
    matrix: Tensor, size: Sequence[int], base: Sequence[Tensor], scale: Sequence[float], align_corners: bool
) -> list[Tensor]:
    """x, y[, z] of a homography, as :func:`matrix_displacement`, from sums of one term per axis."""
    d = len(size)
    delta, axes = _delta_and_axes(matrix, size, align_corners)
    rows = []
    for i in range(d + 1):
        terms = [_along(delta[:, i, j, None] * axes[j], j, d) for j in range(d)]
        terms[0] = terms[0] + delta[:, i, d].reshape(-1, *[1] * d)
        rows.append(sum(terms[1:], terms[0]))
    w = rows[d] + 1
    inside = w > W_EPS
    reciprocal = torch.where(inside, w, torch.ones_like(w)).reciprocal()
    coordinates = []
    for i in range(d):
        x = _along(axes[i][None], i, d)
        moved = (rows[i] - x * rows[d]) * reciprocal
        point = torch.add(_along(base[i][None], i, d), moved, alpha=scale[i])
        coordinates.append(torch.where(inside, point, torch.full_like(point, float("inf"))))
    return coordinates


def _delta_and_axes(matrix: Tensor, size: Sequence[int], align_corners: bool) -> tuple[Tensor, list[Tensor]]:
    """matrix - identity, and the normalised pixel centres along x, y[, z]."""
    delta = matrix - torch.eye(*matrix.shape[1:], dtype=matrix.dtype, device=matrix.device)
    dtype, device = matrix.dtype, matrix.device
    return delta, [base_axis(n, align_corners=align_corners, dtype=dtype, device=device) for n in reversed(size)]


def _along(values: Tensor, axis: int, d: int) -> Tensor:
    """Values (N or 1, n) along x, y or z (axis 0, 1, 2) as a broadcastable (N or 1, [d,] h, w)."""
    return values.reshape(values.shape[0], *[values.shape[1] if k == d - 1 - axis else 1 for k in range(d)])


def displacement(
    form: Lowered,
    xy: Tensor,  # (*size, d), the base grid of the size that the form was made for
) -> Tensor:  # (N, *size, d)
    """The normalised displacement of every output pixel, exactly 0 at the identity."""
    if isinstance(form, Matrix):
        return matrix_displacement(form.matrix, xy.flatten(0, -2)[None]).unflatten(1, tuple(xy.shape[:-1]))
    return _as_field(form, xy)


def _as_field(form: Basis | Field, like: Tensor) -> Tensor:
    """Normalised displacement of every output pixel, (N, *size, d), in the dtype of ``like``."""
    if isinstance(form, Field):
        return form.displacement.to(like.dtype)
    with torch.autocast(like.device.type, enabled=False):
        moved = torch.matmul(form.basis.to(like.dtype).flatten(0, -2), form.coefficients.to(like.dtype))
    return moved.unflatten(1, tuple(form.basis.shape[:-1]))
