"""The straight way of plain calls of `sample` and `warp`: what follows from shapes, dtypes and options is found once,
and remembered, for on a small image finding it takes longer than reading.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import in_units
from torch_stn.sampling.choose import BACKENDS, choose
from torch_stn.sampling.interpolation import Interpolation, as_interpolation
from torch_stn.sampling.problem import problem_of
from torch_stn.sampling.read import by_reference

Source = lowered.Lowered | Tensor  # a lowered map, or points
Way = tuple[tuple[int, ...], Callable[[Tensor, Any], Tensor]]  # the output's size; (image, source) -> (N, C, *size)


def straight(
    image: Tensor,
    batch: int,  # of the maps or points, and where they live
    device: torch.device,
    dims: int,
    size: Sequence[int] | None,  # None: the image's
    units: str | None,  # of points; None: a lowered map
    *options: Any,  # mode, padding_mode, fill, align_corners, deterministic, backend
) -> Way | None:
    """What serves a call in one step, if anything does. None also where something is wrong with the call: the general
    way says what.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:  # sizes may be symbols
        return None
    seen = (image.shape, image.dtype, image.device, image.requires_grad)
    try:
        if units is None and size is not None:
            size = _checks.size(size, dims, None)
        return _remembered(tuple(BACKENDS), *seen, batch, device, dims, size, units, *options)
    except (TypeError, ValueError):
        return None


@lru_cache(maxsize=1024, typed=True)  # typed: False is no fill, though it equals 0.0
def _remembered(
    backends: tuple[str, ...],  # part of the question: they may have changed
    shape: torch.Size,
    dtype: torch.dtype,
    image_device: torch.device,
    image_grad: bool,
    batch: int,
    device: torch.device,
    dims: int,
    size: tuple[int, ...] | None,
    units: str | None,
    mode: str | Interpolation,
    padding_mode: str | Sequence[str],
    fill: float,
    align_corners: bool,
    deterministic: bool,
    backend: str | None,
) -> Way | None:
    in_size = tuple(shape[2:])
    out = in_size if size is None else tuple(size)
    fits = dims == len(in_size) and device == image_device and (shape[0] == batch or 1 in (shape[0], batch))
    if not fits or 0 in (*shape, batch, *out) or not dtype.is_floating_point or not isinstance(mode, str):
        return None
    interpolation = as_interpolation(mode).fitted(in_size, out if len(out) == dims else None)
    if interpolation.response is not None:
        return None
    problem = problem_of(
        torch.empty(0, dtype=dtype, device="cpu"),
        in_size,
        interpolation,
        padding_mode=padding_mode,
        fill=fill,
        edge="blend",
        align_corners=align_corners,
        units=units or "pixel",
        image_grad=image_grad,
        deterministic=deterministic,
    )
    problem = replace(problem, device=device.type)
    chosen = choose(problem, backend)
    if not hasattr(chosen, "reader") or problem.units not in getattr(chosen, "GIVEN_UNITS", (chosen.UNITS,)):
        return None
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    how: dict[str, Any] = {"size": out, "in_size": in_size, "dtype": wide, "device": device}

    def plain(image: Tensor, source: Source) -> Tensor:
        if isinstance(source, Tensor):
            points = in_units(source, problem.units, "pixel", in_size, align_corners=align_corners)
        else:
            points = lowered.points_in(source, "pixel", align_corners=align_corners, **how)
        return by_reference(image, points, interpolation, problem)

    def at_points(image: Tensor, points: Tensor) -> Tensor:
        given = points if points.dtype == wide else points.to(wide)
        return chosen.sample(image, given, interpolation, problem, plain)

    read = chosen.reader(out, problem, plain) if units is None else at_points
    if dtype == wide or dtype in getattr(chosen, "READS", ()):
        return out, read
    return out, lambda image, source: read(image.to(wide), source).to(dtype)
