"""Problem: all that a backend must know to say whether it can, and whether it should."""

from dataclasses import dataclass

import torch


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
