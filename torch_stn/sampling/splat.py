"""splat(values, points, size): the exact adjoint of sample, and count(points, size): how much each pixel was read."""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.coordinates import as_list, in_units
from torch_stn.sampling.choose import BACKENDS, choose
from torch_stn.sampling.interpolation import Interpolation, as_interpolation
from torch_stn.sampling.prefilter import prefilter, responses
from torch_stn.sampling.problem import Problem, problem_of
from torch_stn.sampling.read import PointsIn, brought_near, extended, finite, sampling_dtype, shifted, surely_near


def splat(
    values: Tensor,  # (N, C, *S)
    points: Tensor,  # (N, *S, d), last axis (x[, y[, z]])
    size: Sequence[int],  # (W,), (H, W) or (D, H, W)
    *,
    mode: str | Interpolation = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    edge: str = "blend",
    align_corners: bool = False,
    units: str = "normalized",
    normalize: bool = False,
    eps: float = 1e-6,
    deterministic: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Give each value to the pixels that its point would read: U_nm = sum_i V_i k(x_i - m; Phi_x) k(y_i - n; Phi_y).

    It is the adjoint of :func:`torch_stn.sample` for the same options and fill 0: <sample(U, points), V> = <U,
    splat(V, points, size)>. Of a spline's prefilter it is the adjoint too. With ``points`` of where each pixel of an
    image goes, it warps forward.

    Convention: a batch of one, on either side, serves any batch of the other; the adjoint of reading *one* image with
    many batches of points is the sum of the result over the batch. Points with a NaN or infinite coordinate give
    nothing. Sums are float32, float64 for float64 values.

    Args:
        size: of the image that receives.
        normalize: divide by :func:`count`: what lands on a pixel is averaged, as one wants of a forward warp; pixels
            whose count is at most ``eps`` are 0. Meant for kernels without negative weights.
        The others as :func:`torch_stn.sample`.
    Returns: (N, C, *size) in the dtype of ``values``, a new tensor.
    Gradients: to values, points and the parameters of ``mode``, of every order that sample has.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.
    Source: the transpose of Jaderberg et al. 2015, equation 3; the "push" of Ashburner, "A fast diffeomorphic image
    registration algorithm", 2007.

    Example:
        >>> splat(torch.tensor([[[4.0]]]), torch.tensor([[[1.25, 0.0]]]), (1, 3), units="pixel").tolist()
        [[[[0.0, 3.0, 1.0]]]]
    """
    dims = _checks.splatted(values, points)
    in_size = _checks.size(size, dims, None)
    _checks.units(units, points, dims)
    out_size = tuple(points.shape[1:-1]) if points.dim() == dims + 2 else None
    interpolation = as_interpolation(mode).fitted(in_size, out_size)
    problem = problem_of(
        values,
        in_size,
        interpolation,
        padding_mode=padding_mode,
        fill=0.0,
        edge=edge,
        align_corners=align_corners,
        units="normalized" if units == "normalized" else "pixel",
        image_grad=True,
        deterministic=deterministic,
    )

    def points_in(wanted: str) -> Tensor:
        given = points.to(sampling_dtype(values))
        return in_units(given, units, wanted, in_size, align_corners=align_corners)

    def given(amounts: Tensor) -> Tensor:
        inside = extended(points_in, in_size, padding_mode, edge)
        amounts = amounts.to(sampling_dtype(values))
        return _given(
            amounts if inside is None else torch.where(inside, amounts, 0.0), points_in, interpolation, problem, backend
        )

    image = given(values)
    if normalize:
        total = given(torch.ones_like(values[:, :1]))
        landed = total > eps
        image = torch.where(landed, image / torch.where(landed, total, 1.0), 0.0)
    return image.to(values.dtype)


def count(
    points: Tensor,  # (N, *S, d), last axis (x[, y[, z]])
    size: Sequence[int],  # (W,), (H, W) or (D, H, W)
    *,
    mode: str | Interpolation = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    edge: str = "blend",
    align_corners: bool = False,
    units: str = "normalized",
    deterministic: bool = True,
    backend: str | None = None,
) -> Tensor:
    """How much of each pixel the points read: the :func:`splat` of ones.

    Args: as :func:`splat`.
    Returns: (N, 1, *size) in the dtype of ``points``.
    Gradients: to points and the parameters of ``mode``.
    Raises: as :func:`splat`.

    Example:
        >>> count(torch.tensor([[[0.0, 0.0], [0.5, 0.0]]]), (1, 2), units="pixel").tolist()
        [[[[1.5, 0.5]]]]
    """
    _checks.tensor("points", points)
    _checks.floating("points", points)
    return splat(
        points.new_ones(points.shape[0], 1, *points.shape[1:-1]),
        points,
        size,
        mode=mode,
        padding_mode=padding_mode,
        edge=edge,
        align_corners=align_corners,
        units=units,
        deterministic=deterministic,
        backend=backend,
    )


def _given(
    values: Tensor, points_in: PointsIn, interpolation: Interpolation, problem: Problem, backend: str | None
) -> Tensor:
    """(n, C, *S) -> (N, C, *size): the transposes of reading and of prefiltering, one after the other."""
    filtered, margin, has_prefilter = problem, None, any(responses(interpolation, problem.dims))
    if has_prefilter:
        _, filtered, margin = prefilter(values.new_zeros(1, 1, *problem.in_size), interpolation, problem)
    chosen = choose(filtered, backend, does="splat")
    if backend is None and problem.interpolation == "nearest" and choose(filtered).UNITS != chosen.UNITS:
        # Of a half, the rounding in between decides: it must be that of reading.
        chosen = BACKENDS["reference"]
    points = as_list(shifted(points_in, chosen.UNITS, filtered, margin))
    amounts = values.flatten(2) if values.dim() > 2 else values[..., None]
    image = _splat_batches(amounts, points, interpolation, filtered, chosen)
    if not has_prefilter or image.numel() == 0:
        return image.reshape(*image.shape[:2], *problem.in_size)
    blank = image.new_zeros(*image.shape[:2], *problem.in_size)
    pull = torch.func.vjp(lambda u: prefilter(u, interpolation, problem)[0], blank)[1]
    unfiltered: Tensor = pull(image)[0]
    return unfiltered


def _splat_batches(
    values: Tensor, points: Tensor, interpolation: Interpolation, problem: Problem, backend: ModuleType
) -> Tensor:
    """(n, C, M), (m, M, d) -> (max(n, m), C, *in); points that are not finite are taken out before the backend sees
    them.
    """
    (n, channels, _), m = values.shape, points.shape[0]
    if values.numel() == 0 or points.numel() == 0:
        # Nothing to give; still part of the graph, so that a backward pass through it works.
        nothing = values.flatten()[:0].sum() + points.flatten()[:0].sum()
        return nothing.expand(0 if 0 in (n, m) else max(n, m), channels, *problem.in_size).clone()
    if not surely_near(points, problem, backend.UNITS):
        values = torch.where(finite(points, problem, backend.UNITS)[:, None], values, 0.0)
        points = brought_near(points)
        n = values.shape[0]
    if n == m:
        return backend.splat(values, points, interpolation, problem)
    if m == 1:  # shared points take the other side's batch into the channels: no copy of their weights
        made = backend.splat(values.flatten(0, 1)[None], points, interpolation, problem)
        return made[0].unflatten(0, (n, channels))
    return backend.splat(values.expand(m, -1, -1), points, interpolation, problem)
