"""The closed set of forms that kernels know: what every Map can be lowered to for a given output size.

All three say where to read in the image for an output of some size, in *normalised displacement* form: output point xy
reads at xy + displacement(xy). Fused kernels match on these records and on nothing else, so a family they have never
heard of still gets the fused path."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_stn.coordinates import base_axis, base_grid

W_EPS = 1e-6  # a homography point with w <= W_EPS is outside the image


@dataclass(frozen=True)
class Matrix:
    """One matrix per sample: (N, d, d + 1) affine, (N, d + 1, d + 1) projective; normalised output -> input."""

    matrix: Tensor

    @property
    def projective(self) -> bool:
        """True where the last row is present and divides."""
        return self.matrix.shape[-1] == self.matrix.shape[-2]


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


def matrix_displacement(
    matrix: Tensor,  # (N, d, d + 1) or (N, d + 1, d + 1)
    xy: Tensor,  # (N or 1, M, d)
) -> Tensor:  # (N, M, d)
    """T(xy) - xy of a matrix, with (theta - identity) as the linear coefficient, so that the identity is exactly 0.

    Projective: with p = (x, y, 1) and w = row_3 p, ((row_i - e_i) p - xy_i (w - 1)) / w. Points with w <= W_EPS
    become inf, which
    samplers read as outside; their gradient is zero.
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


def points(
    form: Lowered, size: Sequence[int], base: Sequence[Tensor], scale: Sequence[float], *, align_corners: bool = False
) -> Tensor:  # (N, *size, d)
    """Where every output pixel reads: base + scale * displacement, the plain-PyTorch meaning of a lowered form.

    ``base`` holds, for x, y[, z], where the identity reads along that axis, (w,), (h,)[, (d,)], and ``scale`` the unit
    of the displacement; so the result is in pixels or in [-1, 1] as the caller likes. Its dtype is that of ``base``.
    """
    if isinstance(form, Matrix) and not form.projective:
        return _affine_points(form.matrix.to(base[0]), size, base, scale, align_corners)
    moved = _displacement(form, size, base[0], align_corners)
    grid = torch.stack(torch.meshgrid(*reversed(base), indexing="ij")[::-1], dim=-1)
    scales = torch.stack([torch.full_like(base[0][0], s) for s in scale])
    return torch.addcmul(grid, moved, scales)


def _affine_points(
    matrix: Tensor, size: Sequence[int], base: Sequence[Tensor], scale: Sequence[float], align_corners: bool
) -> Tensor:
    """An affine map is a sum of one term per axis: each coordinate costs one addition per pixel and axis beyond the
    first."""
    d = len(size)
    delta = matrix - torch.eye(d, d + 1, dtype=matrix.dtype, device=matrix.device)
    axes = [base_axis(n, align_corners=align_corners, dtype=matrix.dtype, device=matrix.device) for n in reversed(size)]
    coordinates = []
    for i in range(d):
        slopes = [delta[:, i, j, None] * axes[j] * scale[i] for j in range(d)]
        slopes[i] = slopes[i] + base[i] + delta[:, i, d, None] * scale[i]
        # Axis j (x, y, z) varies along dimension d - j of (N, [d,] h, w).
        terms = [slopes[j].reshape(len(delta), *[size[k] if k == d - 1 - j else 1 for k in range(d)]) for j in range(d)]
        coordinates.append(sum(terms[1:], terms[0]))
    # Planar in memory, (N, d, *size): samplers read it as fast, and interleaving would be one more pass over all
    # points.
    return torch.stack(torch.broadcast_tensors(*coordinates), dim=1).movedim(1, -1)


def _displacement(form: Lowered, size: Sequence[int], like: Tensor, align_corners: bool) -> Tensor:
    """Normalised displacement of every output pixel, (N, *size, d)."""
    if isinstance(form, Field):
        return form.displacement.to(like.dtype)
    if isinstance(form, Basis):
        with torch.autocast(like.device.type, enabled=False):
            moved = torch.matmul(form.basis.to(like.dtype).flatten(0, -2), form.coefficients.to(like.dtype))
        return moved.unflatten(1, tuple(size))
    xy = base_grid(size, align_corners=align_corners, dtype=like.dtype, device=like.device)
    return matrix_displacement(form.matrix.to(like.dtype), xy.flatten(0, -2)[None]).unflatten(1, tuple(size))
