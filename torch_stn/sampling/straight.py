"""The straight way of plain calls of `sample` and `warp`: what follows from shapes, dtypes and options is found once,
and remembered, for on a small image finding it takes longer than reading.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
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
    mode: str | Interpolation,
    padding_mode: str | Sequence[str],
    fill: float,
    align_corners: bool,
    deterministic: bool,
    backend: str | None,
) -> Way | None:
    """What serves a call in one step, if anything does. None also where an option is no plain value, which is not
    remembered, and where something is wrong with the call: the general way says what.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or torch.jit._trace.is_tracing():
        return None  # sizes may be symbols
    # Only plain values are remembered: an object would be kept alive, and may change.
    plain = type(mode) is str and type(padding_mode) in (str, tuple) and type(fill) in (float, int) and fill == fill
    if not plain or not 1 <= dims <= 3 or not isinstance(size, tuple | list | None):
        return None
    try:
        out = None if size is None else _checks.size(size, dims, None) if units is None else tuple(size)
        options = (mode, padding_mode, fill + 0.0, bool(align_corners), bool(deterministic), backend)  # -0.0 is 0.0
        seen = (image.shape, image.dtype, image.device, image.requires_grad)
        return _remembered(tuple(BACKENDS.items()), *seen, batch, device, dims, out, units, *options)
    except (TypeError, ValueError, ArithmeticError):
        return None


@lru_cache(maxsize=1024)
def _remembered(
    backends: tuple[tuple[str, ModuleType], ...],  # part of the question: they may have changed
    shape: torch.Size,
    dtype: torch.dtype,
    image_device: torch.device,
    image_grad: bool,
    batch: int,
    device: torch.device,
    dims: int,
    size: tuple[int, ...] | None,
    units: str | None,
    mode: str,
    padding_mode: str | tuple[str, ...],
    fill: float,
    align_corners: bool,
    deterministic: bool,
    backend: str | None,
) -> Way | None:
    in_size = tuple(shape[2:])
    out = in_size if size is None else tuple(size)
    fits = dims == len(in_size) and device == image_device and (shape[0] == batch or 1 in (shape[0], batch))
    if not fits or 0 in (*shape, batch, *out) or not dtype.is_floating_point:
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
        units="pixel" if units is None else units,
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
