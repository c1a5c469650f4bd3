"""Residual pose: what is left of a digit's rotation, shift and scale after the transformer (error alone does not
show alignment).
"""

import torch
from torch import Tensor

from torch_stn.coordinates import base_grid, to_pixel
from torch_stn.transforms.maps import Map

HALF_DIGIT = 14.0  # pixels; normalised units of a digit to pixels of the digit
ENOUGH = 16  # points of a fit
FRAME_LINES = 5  # each way
FRAME_POINTS = 17  # on each line


def affine_fit(sources: Tensor) -> Tensor:
    """The affine map (N, 2, 3) nearest to sampling points (N, h, w, 2), by least squares over the output.

    Only over the points that read inside the source, where they are enough: beyond it a homography runs off to its
    horizon.
    """
    xy = base_grid(sources.shape[1:3], dtype=torch.float64, device=sources.device).reshape(-1, 2)
    design = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=-1)
    points = sources.double().reshape(len(sources), -1, 2)
    inside = (points.abs() <= 1).all(dim=-1, keepdim=True)
    finite = points.isfinite().all(dim=-1, keepdim=True)
    weight = torch.where(inside.sum(dim=1, keepdim=True) >= ENOUGH, inside, finite).double()
    weighted = design * weight
    # A trace of the identity: where hardly any point counts, the fit is 0 instead of an error.
    normal = weighted.mT @ design + 1e-9 * torch.eye(3, dtype=torch.float64, device=xy.device)
    return torch.linalg.solve(normal, weighted.mT @ torch.where(weight > 0, points, 0.0)).mT.float()


def pose(matrix: Tensor) -> Tensor:
    """(N, 2, 3) output -> source: (N, 4) rotation [deg], x and y of where the middle reads [normalised], log-scale."""
    (a, b, tx), (c, d, ty) = (row.unbind(-1) for row in matrix.unbind(-2))
    rotation = torch.rad2deg(torch.atan2(c - b, a + d))
    log_scale = 0.5 * (a * d - b * c).abs().clamp(min=1e-12).log()
    return torch.stack([rotation, tx, ty, log_scale], dim=-1)


def residual(poses: Tensor, labels: Tensor) -> dict[str, float]:
    """Spread of poses (N, 4) within a class, averaged over classes: what no constant per class explains.

    Rotation: circular standard deviation sqrt(-2 ln |mean exp(i a)|), 54.4 degrees for U(-90, 90). Shift: root mean
        square of the two axes. Log-scale: standard deviation.
    """
    spread = []
    for digit in labels.unique():
        rotation, x, y, log_scale = poses[labels == digit].double().unbind(-1)
        angle = torch.deg2rad(rotation)
        length = torch.hypot(angle.cos().mean(), angle.sin().mean()).clamp(1e-12, 1)
        circular = torch.rad2deg((-2 * length.log()).sqrt())
        shift = ((x.var(unbiased=False) + y.var(unbiased=False)) / 2).sqrt()
        spread.append(torch.stack([circular, shift, log_scale.std(unbiased=False)]))
    rotation_deg, shift_px, scale = torch.stack(spread).mean(dim=0).tolist()
    return {"rotation_deg": rotation_deg, "shift_px": shift_px, "log_scale": scale}


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
