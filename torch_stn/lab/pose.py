"""Residual pose: what is left of a digit's rotation, shift and scale after the transformer (error alone does not
show alignment).
"""

import torch
from torch import Tensor

from torch_stn.coordinates import to_pixel
from torch_stn.nn.pose import affine_fit, pose, spread
from torch_stn.transforms.maps import Map

HALF_DIGIT = 14.0  # pixels; normalised units of a digit to pixels of the digit
FRAME_LINES = 5  # each way
FRAME_POINTS = 17  # on each line


def residual(poses: Tensor, labels: Tensor) -> dict[str, float]:
    """Spread within a class of poses (N, 4) whose shift is in pixels, averaged over classes."""
    return dict(zip(("rotation_deg", "shift_px", "log_scale"), spread(poses, labels), strict=True))


def digit_pose(map: Map, size: tuple[int, int]) -> Tensor:
    """Pose of a map output -> digit, shift in pixels of the digit: (N, 4)."""
    return _in_pixels(pose(affine_fit(map.grid(size))), HALF_DIGIT)


def picture_poses(distortion: Map, transformer: Map, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """How the distortion moved the digit and how the transformer moved the canvas, as the picture moves: (N, 4) each.

    Shift in canvas pixels. A perfect aligner lies on predicted = -true + a constant per class.
    """
    half = size[0] / 2
    true = -_in_pixels(pose(affine_fit(distortion.grid(size))), half)
    # Where the middle of the digit lies on the canvas, which is not minus where the middle of the canvas reads.
    middle = distortion.points(torch.zeros(1, 1, 2, dtype=distortion.dtype, device=distortion.device))
    true[:, 1:3] = half * middle[:, 0]
    return true, -_in_pixels(pose(affine_fit(transformer.grid(size))), half)


def frame(map: Map, in_size: tuple[int, int]) -> Tensor:
    """The sampling frame drawn on the input: (N, 10, 17, 2) poly-lines in input pixels, five across and five down."""
    along = torch.linspace(-1, 1, FRAME_POINTS, dtype=map.dtype, device=map.device)
    at = torch.linspace(-1, 1, FRAME_LINES, dtype=map.dtype, device=map.device)
    fixed, moving = torch.meshgrid(at, along, indexing="ij")
    lines = torch.cat([torch.stack([moving, fixed], dim=-1), torch.stack([fixed, moving], dim=-1)])
    return to_pixel(map.sources(lines[None]), in_size)


def _in_pixels(poses: Tensor, half: float) -> Tensor:
    return poses * torch.tensor([1.0, half, half, 1.0], dtype=poses.dtype, device=poses.device)
