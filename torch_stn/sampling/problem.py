"""Problem: all that a backend must know to say whether it can, and whether it should."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.sampling.interpolation import Interpolation, name_of
from torch_stn.sampling.padding import EDGES, as_paddings


@dataclass(frozen=True)
class Problem:
    """One call of a sampler, without its data."""

    dims: int  # 1, 2 or 3
    interpolation: str  # a name of INTERPOLATIONS, or "custom"
    padding: tuple[str, ...]  # a name of PADDINGS per axis, in the order (x, y[, z])
    fill: float
    align_corners: bool
    units: str  # in which the points came: "normalized" or "pixel"
    in_size: tuple[int, ...]
    dtype: torch.dtype  # of the image
    device: str  # "cpu", "cuda", ...
    image_grad: bool
    deterministic: bool


def problem_of(
    tensor: Tensor,  # whose dtype and device count: the image, or what is splatted
    in_size: tuple[int, ...],
    interpolation: Interpolation,
    *,
    padding_mode: str | Sequence[str],
    fill: float,
    edge: str,
    align_corners: bool,
    units: str,
    image_grad: bool,
    deterministic: bool,
    mode: object = None,  # as the user gave it, for the message
) -> Problem:
    """The record that backends are asked with; checked. "zeros" that `extended` cuts off are a "border" to them."""
    padding = as_paddings(padding_mode, len(in_size))
    extend = _checks.one_of("edge", edge, EDGES) == "extend"
    name = name_of(interpolation)
    if not tensor.is_floating_point() and name != "nearest":
        given = name if mode is None else mode
        raise TypeError(
            f'mode: wanted "nearest" for an image of whole numbers, {_checks.describe(tensor)}, got {given!r}; '
            "for others give image.float(), or see sample_labels"
        )
    return Problem(
        dims=len(in_size),
        interpolation=name,
        padding=tuple("border" if extend and rule == "zeros" else rule for rule in padding),
        fill=_checks.fill(fill, tensor.dtype),
        align_corners=bool(align_corners),
        units=units,
        in_size=in_size,
        dtype=tensor.dtype,
        device=tensor.device.type,
        image_grad=image_grad,
        deterministic=deterministic,
    )
