"""Free-form deformation: cubic B-splines on a lattice of control points, and sums of them over finer and finer ones."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import base_axis
from torch_stn.transforms.basis import ConstantBasis

# Up to here one matrix (pixels, K) is quicker, beyond one small matrix per axis: on one CPU thread the former takes 0.1
# to 0.4 of the latter's time at K = 16, 1.7 times at K = 49 and 3.4 times at K = 100.
_SMALL = 32


class FreeFormDeformation(ConstantBasis):
    """T(x) = x + sum_k B3(t - k) theta_k, the tensor product of cubic B-splines: theta (N, K, d), 0 = identity.

    theta_k is the displacement, normalised, of control point k. An axis of n control points covers [-1, 1] with n - 3
    intervals, so one control point of each end lies outside: point i at -1 + 2 (i - 1) / (n - 3). T is twice
    continuously differentiable on [-1, 1]; beyond, the displacement of the border is kept. With ``levels`` L the
    displacements of L lattices are added, each with half the spacing of the one before; theta holds their control
    points one lattice after the other, x fastest (:meth:`lattices`).

    Args:
        grid_shape: (rows, columns) or (slices, rows, columns) of the coarsest lattice; at least 4 along each axis.
        levels: how many lattices.
    Raises: ValueError for another shape or number of levels.
    Source: Rueckert et al. 1999 (equation 1); Schnabel et al. 2001 (levels).

    Example:
        >>> family = FreeFormDeformation((5, 6))
        >>> family.theta_shape
        (30, 2)
        >>> family(torch.full((1, 30, 2), 0.25)).sources(torch.zeros(1, 1, 2)).tolist()  # B-splines sum to 1
        [[[0.25, 0.25]]]
        >>> FreeFormDeformation((4, 5), levels=2).shapes
        [(4, 5), (5, 7)]
    """

    def __init__(self, grid_shape: Sequence[int] = (5, 5), *, levels: int = 1) -> None:
        whole = isinstance(grid_shape, Sequence) and all(isinstance(n, int) for n in grid_shape)
        if not whole or len(grid_shape) not in (2, 3) or min(grid_shape) < 4:
            raise ValueError(f"grid_shape: wanted 2 or 3 whole numbers, each at least 4, got {grid_shape!r}")
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
            raise ValueError(f"levels: wanted a whole number >= 1, got {levels!r}")
        shapes = [tuple((n - 3) * 2**level + 3 for n in grid_shape) for level in range(levels)]
        super().__init__(torch.zeros(sum(prod(shape) for shape in shapes), len(grid_shape)))
        self.shapes = shapes

    def extra_repr(self) -> str:
        return f"grid_shape={self.shapes[0]}, levels={len(self.shapes)}"

    def functions(self, xy: Tensor) -> Tensor:
        """B(xy): (..., d) -> (..., K), products of one B-spline per axis."""
        levels = []
        for shape in self.shapes:
            values = torch.ones_like(xy[..., :1])
            for axis, count in enumerate(shape):  # [z,] y, x: the last varies fastest
                along = _matrix(xy[..., self.dims - 1 - axis].flatten(), count).view(*xy.shape[:-1], count)
                values = (values[..., None] * along[..., None, :]).flatten(-2)
            levels.append(values)
        return torch.cat(levels, dim=-1)

    def lattices(self, theta: Tensor) -> list[Tensor]:
        """The control points' displacements of each level, (N, *shape, d): views of theta (N, K, d) or (N, d K)."""
        theta = _checks.theta(theta, self.theta_shape, type(self).__name__)
        parts = theta.split([prod(shape) for shape in self.shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        moved = [_read(values, xy) for values in self.lattices(theta)]
        return sum(moved[1:], moved[0])

    def lower(self, theta: Tensor, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        if self.theta_shape[0] <= _SMALL:
            return super().lower(theta, size, align_corners=align_corners)
        field = theta.new_zeros(())
        for values in self.lattices(theta):
            for axis, (count, wanted) in enumerate(zip(values.shape[1:-1], size, strict=True), start=1):
                at = base_axis(wanted, align_corners=align_corners, dtype=theta.dtype, device=theta.device)
                with torch.autocast(theta.device.type, enabled=False):
                    values = torch.tensordot(_matrix(at, count), values, dims=([1], [axis])).movedim(0, axis)
            field = field + values
        return lowered.Field(field.contiguous())


def _weights(fraction: Tensor) -> list[Tensor]:
    """B3 at the four control points around a point that lies ``fraction`` beyond the second of them."""
    t, rest = fraction, 1 - fraction
    return [rest**3 / 6, (3 * t - 6) * t**2 / 6 + 2 / 3, (3 * rest - 6) * rest**2 / 6 + 2 / 3, t**3 / 6]


def _position(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first of the four control points around x, and how far x lies beyond the second."""
    at = (x.clamp(-1, 1) + 1) * ((count - 3) / 2)
    # A NaN point must read somewhere; its weights stay NaN.
    first = at.detach().nan_to_num(0.0).floor().clamp(max=count - 4)
    return first.long(), at - first


def _matrix(
    x: Tensor,  # (n,)
    count: int,
) -> Tensor:  # (n, count)
    """The B-splines of one axis at points of that axis."""
    first, fraction = _position(x, count)
    weights = torch.stack(_weights(fraction), dim=-1)
    taps = first[:, None] + torch.arange(4, device=x.device)
    return weights.new_zeros(len(x), count).scatter(1, taps, weights)


def _read(
    values: Tensor,  # (N, *shape, d)
    xy: Tensor,  # (N or 1, M, d)
) -> Tensor:  # (N, M, d)
    """The spline at any points, from 4^d control points each: one row, or plane, of them at a time."""
    dtype = torch.promote_types(values.dtype, xy.dtype)
    values, xy = values.to(dtype), xy.to(dtype)
    batch = _checks.broadcast_batch("theta", values.shape[0], "xy", xy.shape[0])
    flat = values.flatten(1, -2).expand(batch, -1, -1)
    taps = torch.arange(4, device=xy.device)
    index, stride, weights = torch.zeros_like(xy[..., :1], dtype=torch.long), 1, []
    for axis, nodes in enumerate(values.shape[-2:0:-1]):  # x, y[, z]
        first, fraction = _position(xy[..., axis], nodes)
        weights.append(torch.stack(_weights(fraction), dim=-1))
        index = index + first[..., None] * stride
        if axis < xy.shape[-1] - 1:
            index = (index[..., None, :] + taps[:, None] * stride).flatten(-2)  # x fastest
            stride *= nodes
    total = xy.new_zeros(())
    for tap in range(4):
        at = (index + tap * stride).flatten(1)[..., None].expand(flat.shape[0], -1, flat.shape[-1])
        read = flat.gather(1, at).unflatten(1, index.shape[1:])  # (N, M, 4^(d - 1), d)
        for weight in weights[:-1]:
            read = (read.unflatten(2, (-1, 4)) * weight[:, :, None, :, None]).sum(dim=3)
        total = total + read[:, :, 0] * weights[-1][..., tap, None]
    return total
