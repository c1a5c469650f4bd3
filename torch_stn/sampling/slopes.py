"""spatial_gradient(image, points): the derivative of the interpolated image along x[, y[, z]]."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.coordinates import as_list, half_extents, in_units
from torch_stn.sampling.backends.reference import weighted
from torch_stn.sampling.interpolation import Interpolation, as_interpolation
from torch_stn.sampling.prefilter import prefilter
from torch_stn.sampling.problem import Problem, problem_of
from torch_stn.sampling.read import extended, read_batches, sampling_dtype, shifted
from torch_stn.sampling.taps import axes_of, axis_of


def spatial_gradient(
    image: Tensor,  # (N, C, W), (N, C, H, W) or (N, C, D, H, W)
    points: Tensor,  # (N, *S, d), last axis (x[, y[, z]])
    *,
    mode: str | Interpolation = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    fill: float = 0.0,
    edge: str = "blend",
    align_corners: bool = False,
    units: str = "normalized",
) -> Tensor:
    """The slopes of what :func:`torch_stn.sample` reads: dV/dx = sum_n sum_m U_nm k'(x - m; Phi_x) k(y - n; Phi_y).

    The derivative is the analytic one of the interpolating kernel, for B-splines of the prefiltered image; where the
    kernel has a kink it is the right-hand one, as in sample's own gradient. Nearest reading is flat. Points with a NaN
    or infinite coordinate have slope 0.

    Args:
        units: of the points, and of the slopes: per normalised unit, or per pixel ("pixel" and "displacement").
        The others as :func:`torch_stn.sample`. It always runs on the reference backend.
    Returns: (N, C, *S, d), last axis (d/dx[, d/dy[, d/dz]]), in the image's dtype.
    Gradients: to image, points (second derivatives of the kernel) and the parameters of ``mode``.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.

    Example:
        >>> image = torch.tensor([[[0.0, 1.0, 4.0, 9.0]]])
        >>> spatial_gradient(image, torch.tensor([[[0.5], [1.0]]]), units="pixel").tolist()
        [[[[1.0], [3.0]]]]
    """
    dims = _checks.image(image)
    _checks.points(points, dims)
    _checks.same_device("image", image, "points", points)
    _checks.units(units, points, dims)
    _checks.broadcast_batch("image", image.shape[0], "points", points.shape[0])
    in_size = tuple(image.shape[2:])
    out_size = tuple(points.shape[1:-1]) if points.dim() == dims + 2 else None
    interpolation = as_interpolation(mode).fitted(in_size, out_size)
    problem = problem_of(
        image,
        in_size,
        interpolation,
        padding_mode=padding_mode,
        fill=fill,
        edge=edge,
        align_corners=align_corners,
        units="pixel",
        image_grad=image.requires_grad,
        deterministic=True,
    )

    def points_in(wanted: str) -> Tensor:
        given = points.to(sampling_dtype(image))
        return in_units(given, units, wanted, in_size, align_corners=align_corners)

    coefficients, filtered, margin = prefilter(image.to(sampling_dtype(image)), interpolation, problem)
    where = as_list(shifted(points_in, "pixel", filtered, margin))
    counted = [partial(_slope, axis=axis) for axis in reversed(range(dims))]
    slopes = torch.stack([read_batches(coefficients, where, interpolation, filtered, read) for read in counted], dim=-1)
    slopes = slopes.reshape(*slopes.shape[:2], *points.shape[1:-1], dims)
    if units == "normalized":
        slopes = slopes * torch.stack(
            [torch.full_like(slopes[..., 0], h) for h in half_extents(in_size, align_corners)], dim=-1
        )
    known = torch.isfinite(points).all(dim=-1)[:, None]
    inside = extended(points_in, in_size, padding_mode, edge)
    known = known if inside is None else known & inside
    return torch.where(known[..., None], slopes, 0.0).to(image.dtype)


def _slope(image: Tensor, points: Tensor, interpolation: Interpolation, problem: Problem, *, axis: int) -> Tensor:
    """The derivative per pixel along one axis of the image, in the form of a backend's `sample`: the weights along that
    axis are replaced by their derivatives.
    """
    axes = axes_of(points, interpolation, problem)

    def weights(x: Tensor) -> Tensor:
        return axis_of(x, axis, interpolation, problem).weight

    x = points[..., problem.dims - 1 - axis].contiguous()  # forward mode wants no shared memory
    steepness = torch.func.jvp(weights, (x,), (torch.ones_like(x),))[1]
    sloping = [each._replace(weight=steepness) if i == axis else each for i, each in enumerate(axes)]
    if math.isfinite(problem.fill):
        return weighted(image, sloping, problem)
    # Beyond the border such a fill marks every point that feels it: constant, hence flat.
    flat = replace(problem, fill=0.0)
    marks = weighted(torch.zeros_like(image[:, :1]), axes, replace(problem, fill=1.0))
    return torch.where(marks != 0, 0.0, weighted(image, sloping, flat))
