"""F.grid_sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.problem import Problem

UNITS = "normalized"  # of the points it reads
PADDINGS = ("zeros", "border", "reflection")
EXACT_AXIS = 2048  # pixels; a float32 coordinate in [-1, 1] is off by up to 1.2e-4 pixel beyond


def why_not(problem: Problem) -> str | None:
    """What F.grid_sample does not have."""
    if problem.interpolation not in ("nearest", "bilinear", "bicubic"):
        return "F.grid_sample knows only nearest, bilinear and bicubic"
    if problem.dims == 3 and problem.interpolation == "bicubic":
        return "F.grid_sample has no tricubic in the torch versions this is tested with"
    if len(set(problem.padding)) > 1:
        return "F.grid_sample pads all axes alike"
    if problem.padding[0] not in PADDINGS:
        return f"F.grid_sample knows only {', '.join(PADDINGS)} padding"
    if problem.fill != 0.0:
        return "F.grid_sample pads with 0 only, fill must be 0"
    if problem.device == "cuda" and problem.image_grad and problem.deterministic:
        return "F.grid_sample's image gradient is not deterministic on CUDA"
    if problem.units == "pixel" and problem.align_corners and 1 in problem.in_size:
        return "an axis of one pixel has no normalised coordinates with align_corners=True"
    return None


def not_by_default(problem: Problem) -> str | None:
    """Pixel points would have to pass through float32 coordinates in [-1, 1]."""
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
    if problem.dims == 1:  # a picture one pixel high, read at its middle
        image, points = image[:, :, None], torch.cat([points, torch.zeros_like(points)], dim=-1)
    grid = points.reshape(points.shape[0], *[1] * (image.dim() - 3), -1, points.shape[-1])
    values = F.grid_sample(
        image, grid, mode=problem.interpolation, padding_mode=problem.padding[0], align_corners=problem.align_corners
    )
    return values.flatten(2)
