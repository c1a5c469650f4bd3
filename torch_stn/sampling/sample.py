"""sample(image, points): the differentiable sampler (paper 3.3)."""

import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Literal, overload

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.coordinates import UNITS, as_list, base_pixels, to_normalized, to_pixel
from torch_stn.sampling.choose import BACKENDS, choose
from torch_stn.sampling.interpolation import Interpolation, as_interpolation, name_of
from torch_stn.sampling.padding import PADDINGS
from torch_stn.sampling.problem import Problem

FAR = 1e6  # stands for a coordinate that is not finite: outside every image in either unit, and it fits an int32


@overload
def sample(
    image: Tensor,
    points: Tensor,
    *,
    mode: str | Interpolation = ...,
    padding_mode: str = ...,
    fill: float = ...,
    align_corners: bool = ...,
    units: str = ...,
    return_mask: Literal[False] = ...,
    deterministic: bool = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def sample(
    image: Tensor,
    points: Tensor,
    *,
    mode: str | Interpolation = ...,
    padding_mode: str = ...,
    fill: float = ...,
    align_corners: bool = ...,
    units: str = ...,
    return_mask: Literal[True],
    deterministic: bool = ...,
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
def sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    points: Tensor,  # (N, *S, 2) or (N, *S, 3), last axis (x, y[, z])
    *,
    mode: str | Interpolation = "bilinear",
    padding_mode: str = "zeros",
    fill: float = 0.0,
    align_corners: bool = False,
    units: str = "normalized",
    return_mask: bool = False,
    deterministic: bool = True,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Read the image at any points: V = sum_n sum_m U_nm k(x - m; Phi_x) k(y - n; Phi_y).

    Convention: a batch of one serves any batch, on either side, without copies. Coordinates and sums are float32 for
    half and single precision images and float64 for float64; the result has the image's dtype. A point with a NaN or
    infinite coordinate reads ``fill``, has zero gradient and a mask of 0.

    Args:
        mode: "nearest", "bilinear" (trilinear for volumes), "bicubic", or an Interpolation of one's own.
        padding_mode: "zeros", "border" or "reflection" (drawn in torch_stn.sampling.padding).
        fill: what taps outside the image read under "zeros"; NaN or inf marks every point that feels the outside.
        align_corners: what -1 and 1 mean, see torch_stn.coordinates.
        units: "normalized" [-1, 1], "pixel", or "displacement": pixels counted from where the identity reads, for
            points (N, *out, d).
        return_mask: also return the share of the kernel that fell inside the image, (N, 1, *S) in [0, 1].
        deterministic: same inputs, same bits, gradients too.
        backend: None chooses; a name takes that one or raises with its reason.
    Returns: (N, C, *S), a new tensor; with ``return_mask`` also the mask.
    Gradients: to image, points and the parameters of ``mode``; at integer coordinates the right-hand slope, as
    F.grid_sample.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.
    Source: Jaderberg et al. 2015, equations 3 to 7.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> sample(image, torch.tensor([[[0.0, 0.0]]])).tolist()
        [[[1.5]]]
        >>> sample(image, torch.tensor([[[1.0, 0.0]]]), units="pixel").tolist()
        [[[1.0]]]
    """
    dims = _checks.image(image)
    _checks.points(points, dims)
    _checks.same_device("image", image, "points", points)
    _checks.one_of("units", units, UNITS)
    _checks.broadcast_batch("image", image.shape[0], "points", points.shape[0])
    in_size = tuple(image.shape[2:])
    if units == "displacement" and points.dim() != dims + 2:
        raise ValueError(f"points: displacements are (N, *out, {dims}), one a pixel, got {_checks.describe(points)}")

    def in_units(wanted: str) -> Tensor:
        given, have = points.to(sampling_dtype(image)), units
        if have == "displacement":
            base = base_pixels(given.shape[1:-1], in_size, align_corners=align_corners, like=given)
            given, have = given + base, "pixel"
        if have == wanted:
            return given
        convert = to_pixel if wanted == "pixel" else to_normalized
        return convert(given, in_size, align_corners=align_corners)

    return read(
        image,
        in_units,
        "normalized" if units == "normalized" else "pixel",
        mode=mode,
        padding_mode=padding_mode,
        fill=fill,
        align_corners=align_corners,
        return_mask=return_mask,
        deterministic=deterministic,
        backend=backend,
    )


def check_options(mode: str | Interpolation, padding_mode: str, backend: str | None) -> None:
    """Raise now for what a later call of :func:`sample` would refuse."""
    as_interpolation(mode)
    _checks.one_of("padding_mode", padding_mode, PADDINGS)
    if backend is not None:
        _checks.one_of("backend", backend, BACKENDS)


def sampling_dtype(image: Tensor) -> torch.dtype:
    """The dtype of coordinates and sums: float64 for a float64 image, else float32."""
    return torch.float64 if image.dtype == torch.float64 else torch.float32


def read(
    image: Tensor,
    points_in: Callable[[str], Tensor],  # "pixel" | "normalized" -> (N, *S, d)
    units: str,  # in which the points are exact
    *,
    mode: str | Interpolation,
    padding_mode: str,
    fill: float,
    align_corners: bool,
    return_mask: bool,
    deterministic: bool,
    backend: str | None,
) -> Tensor | tuple[Tensor, Tensor]:
    """What `sample` and `warp` share: choose a backend, ask for points in its units, read, measure the coverage."""
    interpolation = as_interpolation(mode)
    problem = Problem(
        dims=image.dim() - 2,
        interpolation=name_of(interpolation),
        padding=_checks.one_of("padding_mode", padding_mode, PADDINGS),
        fill=_checks.number("fill", fill),
        align_corners=bool(align_corners),
        units=units,
        in_size=tuple(image.shape[2:]),
        dtype=image.dtype,
        device=image.device.type,
        image_grad=image.requires_grad,
        deterministic=deterministic,
    )
    chosen = choose(problem, backend)
    points = points_in(chosen.UNITS)
    values = _read(image.to(sampling_dtype(image)), as_list(points), interpolation, problem, chosen)
    values = values.to(image.dtype).reshape(*values.shape[:2], *points.shape[1:-1])
    if not return_mask:
        return values
    covered = replace(problem, padding="zeros", fill=0.0, image_grad=False)
    chosen = choose(covered)
    ones = torch.ones(1, 1, *problem.in_size, dtype=points.dtype, device=image.device)
    mask = _read(ones, as_list(points_in(chosen.UNITS)), interpolation, covered, chosen).clamp(0, 1)
    mask = mask.to(image.dtype).reshape(*mask.shape[:2], *points.shape[1:-1])
    return values, mask.expand(values.shape[0], *[-1] * (mask.dim() - 1))


def _read(image: Tensor, points: Tensor, interpolation: Interpolation, problem: Problem, backend: ModuleType) -> Tensor:
    """(n, C, *in), (m, M, d) -> (max(n, m), C, M); points that are not finite are taken out before the backend sees
    them.
    """
    n, m = image.shape[0], points.shape[0]
    if image.numel() == 0 or points.numel() == 0:
        # Nothing to read; still part of the graph, so that a backward pass through it works.
        nothing = image.flatten()[:0].sum() + points.flatten()[:0].sum()
        return nothing.expand(0 if 0 in (n, m) else max(n, m), image.shape[1], points.shape[1])
    outside = None
    if not _surely_finite(points):
        if problem.padding != "zeros" or problem.fill != 0.0:
            outside = ~torch.isfinite(points).all(dim=-1)
        # Far outside: under zero padding that alone gives the value 0 and the gradient 0.
        points = points.nan_to_num(nan=FAR, posinf=FAR, neginf=-FAR)
    # A shared image, or shared points, take the other side's batch into their own axis: no copy of either.
    if n == m:
        values = backend.sample(image, points, interpolation, problem)
    elif n == 1:
        folded = backend.sample(image, points.reshape(1, -1, problem.dims), interpolation, problem)
        values = folded[0].unflatten(1, (m, -1)).transpose(0, 1)
    else:
        values = backend.sample(image.flatten(0, 1)[None], points, interpolation, problem)[0].unflatten(
            0, image.shape[:2]
        )
    return values if outside is None else torch.where(outside[:, None], values.new_full((), problem.fill), values)


def _surely_finite(points: Tensor) -> bool:
    """Whether a look at the values is cheap and shows that no point is NaN or infinite: saves two passes on a CPU.

    A GPU would have to be waited for, and a compiled graph or a vmap has no values to look at.
    """
    if torch.compiler.is_compiling() or points.device.type != "cpu":
        return False
    try:
        return math.isfinite(points.detach().sum().item())
    except RuntimeError:
        return False
