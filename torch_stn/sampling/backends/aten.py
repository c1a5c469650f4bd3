"""F.grid_sample."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.problem import Problem

UNITS = "normalized"  # of the points it reads
MODES = ("bilinear", "nearest", "bicubic")  # these two in the order of torch's own numbers
PADDINGS = ("zeros", "border", "reflection")
EXACT_AXIS = 2048  # pixels; a float32 coordinate in [-1, 1] is off by up to 1.2e-4 pixel beyond


def why_not(problem: Problem) -> str | None:
    """What F.grid_sample does not have."""
    if problem.interpolation not in MODES:
        return "F.grid_sample knows only nearest, bilinear and bicubic"
    if problem.dims == 3 and problem.interpolation == "bicubic":
        return "F.grid_sample has no tricubic in the torch versions this is tested with"
    if len(set(problem.padding)) > 1:
        return "F.grid_sample pads all axes alike"
    if problem.padding[0] not in PADDINGS:
        return f"F.grid_sample knows only {', '.join(PADDINGS)} padding"
    if not problem.dtype.is_floating_point:
        return "F.grid_sample reads floating-point images only"
    if problem.fill != 0.0:
        return "F.grid_sample pads with 0 only, fill must be 0"
    if problem.device == "cuda" and problem.image_grad and problem.deterministic:
        return "F.grid_sample's image gradient is not deterministic on CUDA"
    if problem.units == "pixel" and problem.align_corners and 1 in problem.in_size:
        return "an axis of one pixel has no normalised coordinates with align_corners=True"
    return None


def not_by_default(problem: Problem) -> str | None:
    """Pixel points would have to pass through coordinates in [-1, 1].

    In float64 that moves a point by less than 1e-12 pixel, which is why it serves there: the identity is exact to that.
    """
    if problem.units == "pixel" and problem.interpolation == "nearest":
        return "on the way through [-1, 1] halves would no longer go to the even pixel"
    if problem.units == "pixel" and max(problem.in_size) > EXACT_AXIS and problem.dtype != torch.float64:
        return f"float32 coordinates in [-1, 1] are not exact enough on axes over {EXACT_AXIS} pixels"
    return None


def sample(
    image: Tensor,  # (N, C, *in), float32 or float64
    points: Tensor,  # (N, M, d), same dtype, finite, in UNITS
    interpolation: Interpolation,
    problem: Problem,
) -> Tensor:  # (N, C, M)
    """F.grid_sample on a list of points."""
    if problem.dims == 1:
        image = image[:, :, None]
    values = F.grid_sample(
        image,
        _grid(points, problem),
        mode=problem.interpolation,
        padding_mode=problem.padding[0],
        align_corners=problem.align_corners,
    )
    return values.flatten(2)


def splat(
    values: Tensor,  # (N, C, M), float32 or float64
    points: Tensor,  # (N, M, d), same dtype, finite, in UNITS
    interpolation: Interpolation,
    problem: Problem,
) -> Tensor:  # (N, C, *in)
    """What F.grid_sample's backward pass gives the image, without the forward pass."""
    grid = _grid(points, problem)
    values = values.reshape(*values.shape[:2], *grid.shape[1:-1])
    how = (MODES.index(problem.interpolation), PADDINGS.index(problem.padding[0]), problem.align_corners)
    if torch.compiler.is_compiling():  # which cannot trace a Function with a jvp of its own
        made = _adjoint(values, grid, _size(problem), *how)
    else:
        made = _Splat.apply(values, grid, _size(problem), *how)
    return made.reshape(*made.shape[:2], *problem.in_size)


def _grid(points: Tensor, problem: Problem) -> Tensor:
    """A list of points as F.grid_sample wants it; a line is a picture one pixel high, read at its middle."""
    if problem.dims == 1:
        points = torch.cat([points, torch.zeros_like(points)], dim=-1)
    return points.reshape(points.shape[0], *[1] * (points.shape[-1] - 1), -1, points.shape[-1])


def _size(problem: Problem) -> tuple[int, ...]:
    return (1, *problem.in_size) if problem.dims == 1 else problem.in_size


def _adjoint(values: Tensor, grid: Tensor, size: tuple[int, ...], *how: int) -> Tensor:
    """The image gradient; the image itself does not matter to it, only its size."""
    nothing = values.new_zeros(()).expand(*values.shape[:2], *size)
    made: Tensor = _backward(values, nothing, grid, how, (True, False))[0]
    return made


def _backward(values: Tensor, image: Tensor, grid: Tensor, how: tuple[int, ...], wanted: tuple[bool, bool]) -> Any:
    ops = torch.ops.aten
    backward = ops.grid_sampler_2d_backward if grid.shape[-1] == 2 else ops.grid_sampler_3d_backward
    return backward(values, image, grid, how[0], how[1], bool(how[2]), list(wanted))


class _Splat(torch.autograd.Function):
    """The adjoint, with derivatives of both kinds: torch gives its own op none in forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, grid: Tensor, size: tuple[int, ...], *how: int) -> Tensor:
        return _adjoint(values, grid, size, *how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, grid, ctx.size, *how = inputs
        ctx.how = tuple(how)
        ctx.save_for_backward(values, grid)
        ctx.save_for_forward(values, grid)

    @staticmethod
    def backward(ctx: Any, pull: Tensor) -> Any:
        values, grid = ctx.saved_tensors
        to_values = to_grid = None
        if ctx.needs_input_grad[0]:
            to_values = torch.grid_sampler(pull, grid, ctx.how[0], ctx.how[1], bool(ctx.how[2]))
        if ctx.needs_input_grad[1]:
            to_grid = _backward(values, pull, grid, ctx.how, (False, True))[1]
        return to_values, to_grid, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, values_push: Tensor | None, grid_push: Tensor | None, *_: Any) -> Tensor:
        values, grid = ctx.saved_tensors
        pushed = []
        if values_push is not None:
            pushed.append(_adjoint(values_push, grid, ctx.size, *ctx.how))
        if grid_push is not None:
            # The slopes are linear in the image: what they give the image back, weighted by the push.
            nothing = values.new_zeros(*values.shape[:2], *ctx.size)

            def slopes(image: Tensor) -> Tensor:
                to_grid: Tensor = _backward(values, image, grid, ctx.how, (False, True))[1]
                return to_grid

            pull = torch.func.vjp(slopes, nothing)[1]
            pushed.append(pull(grid_push)[0])
        return sum(pushed[1:], pushed[0])
