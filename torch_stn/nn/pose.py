"""Pose: the rotation, shift and scale of a map, and their spread within a class, which is what is left of a known pose
after a transformer (error alone does not show alignment).
"""

import torch
from torch import Tensor

from torch_stn.coordinates import base_grid

ENOUGH = 16  # points of a fit


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


def spread(poses: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Spread of poses (N, 4) within a class, averaged over classes: what no constant per class explains.

    Rotation [deg]: circular standard deviation sqrt(-2 ln |mean exp(i a)|), 54.4 degrees for U(-90, 90). Shift, in the
    unit of the poses: root mean square of the two axes. Log-scale: standard deviation.
    """
    by_class = []
    for label in labels.unique():
        rotation, x, y, log_scale = poses[labels == label].double().unbind(-1)
        angle = torch.deg2rad(rotation)
        length = torch.hypot(angle.cos().mean(), angle.sin().mean()).clamp(1e-12, 1)
        circular = torch.rad2deg((-2 * length.log()).sqrt())
        shift = ((x.var(unbiased=False) + y.var(unbiased=False)) / 2).sqrt()
        by_class.append(torch.stack([circular, shift, log_scale.std(unbiased=False)]))
    rotation_deg, shift_unit, scale = torch.stack(by_class).mean(dim=0).tolist()
    return rotation_deg, shift_unit, scale
