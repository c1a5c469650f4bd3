"""The picture of the 3-D experiment: volumes as solid bodies, before and after the transformer, and their sums."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from torch_stn.lab import models
from torch_stn.lab.data.load import data_set, load
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.volumes import Projection
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.run_folder import RunFolder
from torch_stn.transforms import Affine
from torch_stn.warping import warp

YAW, PITCH = 35.0, -25.0  # degrees: from where the bodies are looked at
ROOM = 1.45  # of the picture's side over the volume's, so that a turned cube stays inside
SIDE = 120  # pixels of a view
SOLID = 0.4  # voxels brighter than this are body
LIGHT = (-0.4, -0.5, -0.77)  # where it comes from: the left, above, the viewer
ROWS = ("volume", "its sum", "transformer's\noutput", "its sum")


def volumes_picture(run: Path, destination: Path, columns: int = 8) -> Path:
    """A PNG of some test volumes of a finished run: the volume, its sum over depth, what the transformer made of it,
    and the sum of that, which the classifier sees.

    Raises: UserError where the run has no 3-D transformer.
    """
    folder = RunFolder.open(run)
    config = folder.config()
    data = data_set(load(config), config)
    model = models.build(config, data.facts).eval()
    if not isinstance(model, Projection) or model.transformer is None or not isinstance(data, DigitSet):
        raise UserError(f"{run}: wanted a run on volumes with a transformer, it is {models.label(config)}")
    folder.load_into(model)
    volumes = data.test_batch(0, data.dozen()[:columns]).images
    with torch.no_grad():
        written = model.written(volumes)
    figure = Figure(figsize=(1.1 * columns, 1.15 * len(ROWS)), dpi=110, layout="constrained")
    axes = figure.subplots(len(ROWS), columns, squeeze=False)
    for column in range(columns):
        bodies = (volumes[column, 0], written[column, 0])
        views = [view for body in bodies for view in (solid_view(body), body.sum(dim=0) / body.sum(0).max())]
        for row, view in enumerate(views):
            axes[row][column].imshow(view, cmap="gray", vmin=0, vmax=1)
            axes[row][column].set(xticks=[], yticks=[])
    for row, word in enumerate(ROWS):
        axes[row][0].set_ylabel(word, fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return write_whole(destination, picture.getvalue())


def solid_view(volume: Tensor, *, side: int = SIDE) -> Tensor:
    """A volume (D, H, W) in [0, 1] as a lit solid body on white, seen obliquely from the front: (side, side) in [0, 1].

    Parallel rays stop at the first voxel above SOLID, which is shaded by the angle between light and surface.
    """
    yaw, pitch = math.radians(YAW), math.radians(PITCH)
    around_y = torch.tensor([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    around_x = torch.tensor([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    turn = torch.cat([ROOM * around_y @ around_x, torch.zeros(3, 1)], dim=1)
    turned = warp(volume.to(torch.float32)[None, None], Affine(dims=3)(turn[None]), (side,) * 3)
    assert isinstance(turned, Tensor)  # a pair only with return_mask
    body = turned[0, 0] > SOLID
    depth = body.to(torch.uint8).argmax(dim=0)  # the first voxel on each ray
    smooth = F.avg_pool3d(F.avg_pool3d(turned, 5, 1, 2), 5, 1, 2)[0, 0]
    slopes = torch.stack(torch.gradient(smooth)[::-1])  # along x, y, z
    normal = F.normalize(-slopes.gather(1, depth.expand(3, 1, side, side)).squeeze(1), dim=0)
    lit = (normal * torch.tensor(LIGHT)[:, None, None]).sum(dim=0).clamp(min=0)
    return torch.where(body.any(dim=0), 0.15 + 0.75 * lit, torch.ones(()))
