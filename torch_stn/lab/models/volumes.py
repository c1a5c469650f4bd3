"""Networks for volumes: summed over depth to a picture, with or without a 3-D transformer before that (A.3)."""

from itertools import count

import torch
from torch import Tensor, nn

from torch_stn.lab.config import Config
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.volumes import THICK
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.classifiers import CNN
from torch_stn.lab.models.residual import ResidualLocalization
from torch_stn.nn import LocalizationConv, SpatialTransformer
from torch_stn.transforms import Affine

SIDE = 28  # voxels a side that the transformer writes
REDUCED = 3  # by how much localisation looks at the volume reduced
START = 0.6  # of its sides the transformer reads at first, so that no voxel is passed over by much
FILTERS = 32  # of the classifier behind the transformer
ALLOWED = {"model": ("cnn", "st-cnn"), "transform": ("affine",), "looking": ("conv", "resnet"), "count": (1,)}


class Projection(nn.Module):
    """Volumes, moved by the transformer if there is one, summed over depth, halved where there is none, classified:
    (N, 1, 60, 60, 60) -> (N, K).
    """

    def __init__(self, transformer: SpatialTransformer | None, classifier: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.classifier = classifier

    def written(self, x: Tensor) -> Tensor:
        """The volume that the transformer writes, (N, 1, 28, 28, 28); it looks at the volume reduced."""
        assert self.transformer is not None
        written = self.transformer(nn.functional.avg_pool3d(x, REDUCED), source=x)
        assert isinstance(written, Tensor)
        return written

    def picture(self, x: Tensor) -> Tensor:
        """What the classifier sees, (N, 1, h, w); a digit seen from the front is about as bright as the flat one."""
        if self.transformer is not None:
            return self.written(x).sum(dim=2) / THICK
        return nn.functional.avg_pool2d(x.sum(dim=2) / THICK, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.picture(x))


def volume_net(config: Config, facts: Facts) -> Projection:
    """``st-cnn``, a 3-D affine transformer before the projection, or its twin ``cnn``, with the fewest filters (but at
    least 8) that have no fewer parameters.
    """
    for key, allowed in ALLOWED.items():
        if getattr(config, key) not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise UserError(f"{key}: wanted {wanted} with data=volumes, got {getattr(config, key)!r}")
    classes = len(facts.classes)
    half = tuple(side // 2 for side in facts.shape[1:])
    seen = tuple(side // REDUCED for side in facts.shape[1:])
    reduced = (facts.channels, *seen)
    features: nn.Module
    if config.looking == "resnet":
        features = ResidualLocalization(reduced)
    else:
        features = LocalizationConv(reduced, filters=16, hidden=64, halve=False)
    start = torch.cat([START * torch.eye(3), torch.zeros(3, 1)], dim=1)
    transformer = SpatialTransformer(
        features, Affine(dims=3), (SIDE,) * 3, in_shape=reduced, init=start, iterations=config.iterations
    )
    behind = CNN(SIDE, config.width or FILTERS, classes=classes)
    if config.model == "st-cnn":
        return Projection(transformer, behind)
    budget = _count(transformer) + _count(behind)
    twins = (CNN(half[-1], filters, classes=classes) for filters in count(8))
    return Projection(None, next(twin for twin in twins if _count(twin) >= budget))


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
