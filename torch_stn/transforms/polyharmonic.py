"""Polyharmonic splines: kernel, polynomial, and the linear system that both the constant and the batched splines solve.

f(x) = sum_k w_k phi(|x - p_k|) + polynomial(x), with sum_k w_k polynomial_j(p_k) = 0 (Duchon 1977; Bookstein 1989).
"""

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from torch_stn import _checks


def kernel(
    squared: Tensor,  # r^2, any shape
    order: int,
) -> Tensor:
    """phi(r) = +-r^order, order odd, or +-r^order log r^2, order even, with the sign that makes it conditionally
    positive definite: a positive regularisation then smooths. phi(0) = 0 with slope 0.
    """
    positive = squared > 0
    # Neither the root nor the log of 0 must be formed, or its gradient would be NaN.
    safe = torch.where(positive, squared, torch.ones_like(squared))
    values = safe ** (order / 2) if order % 2 else safe ** (order // 2) * safe.log()
    sign = 1 if (order // 2) % 2 else -1
    return torch.where(positive, sign * values, 0.0)


def polynomial_degree(order: int) -> int:
    """The degree that the kernel needs, at least 1, so that affine maps are reproduced exactly."""
    return max(1, order // 2)


def monomials(
    xy: Tensor,  # (..., d)
    degree: int,
) -> Tensor:  # (..., Q)
    """x, y[, z], 1, and then the products of 2, ..., degree coordinates."""
    columns = [xy, torch.ones_like(xy[..., :1])]
    for power in range(2, degree + 1):
        for axes in combinations_with_replacement(range(xy.shape[-1]), power):
            columns.append(xy[..., list(axes)].prod(dim=-1, keepdim=True))
    return torch.cat(columns, dim=-1)


def terms(
    xy: Tensor,  # (..., M, d)
    centres: Tensor,  # (..., K, d)
    order: int,
) -> Tensor:  # (..., M, K + Q)
    """(phi(|xy - p_1|), ..., phi(|xy - p_K|), x, y, 1, ...)."""
    squared = xy.new_zeros(())
    for axis in range(xy.shape[-1]):  # axis by axis: no (M, K, d) in memory
        squared = squared + (xy[..., :, None, axis] - centres[..., None, :, axis]).square()
    phi = kernel(squared, order)
    rest = monomials(xy, polynomial_degree(order))
    return torch.cat([phi, rest.expand(*phi.shape[:-1], -1)], dim=-1)


def system(centres: Tensor, order: int, regularization: float) -> Tensor:
    """L = [[Phi + regularization I, P], [P^T, 0]]: (..., K + Q, K + Q)."""
    count = centres.shape[-2]
    upper = terms(centres, centres, order)
    eye = torch.eye(count, upper.shape[-1], dtype=centres.dtype, device=centres.device)
    lower = upper[..., count:].mT
    corner = lower.new_zeros(*lower.shape[:-1], lower.shape[-2])
    return torch.cat([upper + regularization * eye, torch.cat([lower, corner], dim=-1)], dim=-2)


def bending(centres: Tensor, solution: Tensor, order: int) -> Tensor:
    """E (K, K), with q^T E q the bending energy of the thin-plate spline with the weights ``solution`` q.

    It is c w^T Phi w, where Delta^2 phi = c delta: c = 16 pi for r^2 log r^2 in the plane, 8 pi for -r in space.
    """
    weights = solution[: len(centres)]
    scale = 16 * torch.pi if centres.shape[1] == 2 else 8 * torch.pi
    energy = scale * weights.mT @ terms(centres, centres, order)[:, : len(centres)] @ weights
    return (energy + energy.mT) / 2


def check_order(order: object) -> int:
    """An order of the kernel: 1, 2, 3, ..."""
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ValueError(f"order: wanted a whole number >= 1, got {order!r}")
    return order


def check_regularization(value: object) -> None:
    """A finite number >= 0."""
    if not 0 <= _checks.number("regularization", value) < math.inf:
        raise ValueError(f"regularization: wanted a number >= 0, got {value!r}")


def check_centres(name: str, centres: Tensor, order: int) -> None:
    """(..., K, d) finite points, no two equal, that determine the polynomial; names the first that do not."""
    dims, degree = centres.shape[-1], polynomial_degree(order)
    needed = monomials(centres[..., :1, :], degree).shape[-1]
    count = centres.shape[-2]
    if count < needed:
        kind = "a thin-plate spline" if degree == 1 else f"a spline of order {order}"
        raise ValueError(f"{name}: {kind} needs at least {needed} points, got {count}")
    if not torch.isfinite(centres).all():
        raise ValueError(f"{name}: every coordinate must be finite")
    centred = centres.double() - centres.double().mean(dim=-2, keepdim=True)
    extent = centred.abs().amax(dim=(-2, -1), keepdim=True)
    # Not by way of matrix products, whose rounding would make near points equal.
    distances = torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances + torch.eye(count, dtype=torch.float64, device=centres.device) * (1 + extent)
    if (distances <= 1e-6 * extent).any():
        *sample, first, second = (distances <= 1e-6 * extent).nonzero()[0].tolist()
        raise ValueError(f"{name}: points {first} and {second} are the same{_of(sample)}")
    flat = torch.linalg.svdvals(centred)[..., -1] <= 1e-6 * extent[..., 0, 0]
    if flat.any():
        thing, more = ("line", "three") if dims == 2 else ("plane", "four")
        sample = flat.nonzero()[0].tolist()
        raise ValueError(f"{name}: all points lie on one {thing}; the spline needs {more} that do not{_of(sample)}")
    if degree > 1:
        scaled = monomials(centred / extent, degree)
        singular = torch.linalg.svdvals(scaled)
        poor = singular[..., -1] <= 1e-6 * singular[..., 0]
        if poor.any():
            sample = poor.nonzero()[0].tolist()
            raise ValueError(f"{name}: the points do not determine a polynomial of degree {degree}{_of(sample)}")


def _of(sample: list[int]) -> str:
    return f", in sample {sample[0]}" if sample else ""


def control_points(
    given: int | tuple[int, ...] | Tensor, span: float, dims: int | None, order: int | None
) -> tuple[Tensor, int]:
    """Control points (K, d), float64, checked; and the order of the kernel, where None is the thin plate's."""
    if isinstance(given, Tensor):
        wanted = "(K, 2) or (K, 3)" if dims is None else f"(K, {dims})"
        if given.dim() != 2 or given.shape[1] not in ((2, 3) if dims is None else (dims,)):
            raise ValueError(f"control_points: wanted a float tensor {wanted}, got {_checks.describe(given)}")
        if not given.is_floating_point():
            raise ValueError(f"control_points: wanted a float tensor {wanted}, got {_checks.describe(given)}")
        centres = given.detach().double()
    else:
        centres = _regular(given, span, dims)
    order = 4 - centres.shape[1] if order is None else check_order(order)
    check_centres("control_points", centres, order)
    # Rounded to float32, so that the identity theta, handed over in float32, is exactly the identity.
    return centres.float().double(), order


def _regular(given: int | tuple[int, ...], span: float, dims: int | None) -> Tensor:
    """A regular grid over [-span, span], (rows, columns) or (slices, rows, columns): (K, d)."""
    counts = (given,) * (dims or 2) if isinstance(given, int) else given
    whole = isinstance(counts, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in counts)
    if not whole:
        raise ValueError(f"control_points: wanted whole numbers, one an axis, or a tensor (K, d), got {given!r}")
    if len(counts) not in (2, 3) or len(counts) != (dims or len(counts)):
        raise ValueError(f"control_points: wanted {dims or '2 or 3'} counts, one an axis, got {given!r}")
    if min(counts) < 2:
        wanted, got = (" x ".join(map(str, numbers)) for numbers in ((2,) * len(counts), counts))
        raise ValueError(f"control_points: wanted a grid of at least {wanted}, got {got}")
    if not 0 < _checks.number("span", span) < math.inf:
        raise ValueError(f"span: wanted a number > 0, got {span!r}")
    axes = [torch.linspace(-span, span, count, dtype=torch.float64) for count in counts]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1).reshape(-1, len(counts))
