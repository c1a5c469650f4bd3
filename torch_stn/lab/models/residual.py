"""A small residual net for images of any size, trained from nothing, and what stands between it and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.lab.models.dropout import SampleDropout
from torch_stn.nn import SpatialTransformer

if TYPE_CHECKING:
    from torch_stn.lab.models.backbones import Backbone
    from torch_stn.lab.models.lin_lucey import LinLucey

WIDTH = 32  # channels of the first stage; the next two have twice and four times as many
BLOCKS = 3
LOOKING_UNITS = 32
GROUPS = 8  # at most, of a group norm


class Normalize(nn.Module):
    """Pixels in [0, 1] less the data's mean, by its deviation. It stands behind the transformer's reading, whose border
    is then no edge of another colour.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        # Constants of the run folder's record: not in checkpoints.
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class Standardize(nn.Module):
    """Each image less its own mean, by its own deviation, over all channels: what is left does not tell day from dusk.

    An even picture becomes 0: FLOOR keeps its noise from being blown up.
    """

    FLOOR = 0.02

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return (x - mean) * ((x - mean).square().mean(dim=(1, 2, 3), keepdim=True) + self.FLOOR**2).rsqrt()


class Block(nn.Module):
    """norm - ReLU - conv 3x3, twice, added to the input (by a 1x1 convolution where the shape changes).

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks".
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.norm1 = _norm(inputs, norm)
        self.conv1 = conv(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = _norm(outputs, norm)
        self.conv2 = conv(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else conv(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.norm1(x))
        kept = x if isinstance(self.skip, nn.Identity) else self.skip(ready)
        return kept + self.conv2(F.relu(self.norm2(self.conv1(ready))))


class ResidualNet(nn.Module):
    """A convolution, three blocks of which two halve, mean over the picture: (N, C, H, W) -> (N, 4 w).

    ``halve``: whether the first convolution halves too. ``size``, the (H, W) of what it will read, keeps the places of
    the last maps instead of their mean, as features in a row: where a thing fills the picture, its parts have their
    places. ``out_features`` says how many.

    With norm="group" an image's
    features do not depend on its batch, nor on how many processes share it; with "batch" they do while it trains.
    ``transformers`` stand before the blocks, in their order, as many as there are; ``block_shapes`` says what they
    read.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = WIDTH,
        norm: str = "group",
        halve: bool = True,
        size: tuple[int, int] | None = None,
        transformers: Sequence[SpatialTransformer] = (),
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 2 if halve else 1, 1, bias=False)
        self.blocks = nn.Sequential(
            Block(width, width, 1, norm), Block(width, 2 * width, 2, norm), Block(2 * width, 4 * width, 2, norm)
        )
        self.norm = _norm(4 * width, norm)
        self.transformers = nn.ModuleList(transformers)
        self.keeps_places = size is not None
        self.out_features = 4 * width
        if size is not None:
            _, high, wide = block_shapes(*size, width, halve=halve)[-1]
            self.out_features *= -(-high // 2) * -(-wide // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for k, block in enumerate(self.blocks):
            x = block(self.transformers[k](x) if k < len(self.transformers) else x)
        x = F.relu(self.norm(x))
        return x.flatten(1) if self.keeps_places else x.mean(dim=(2, 3))


def block_shapes(height: int, width: int, filters: int, *, halve: bool = True) -> list[tuple[int, int, int]]:
    """(C, H, W) of the maps before each block of a :class:`ResidualNet` whose first stage has so many filters.

    >>> block_shapes(32, 32, 8)
    [(8, 16, 16), (8, 16, 16), (16, 8, 8)]
    """
    if halve:
        height, width = -(-height // 2), -(-width // 2)
    return [(filters, height, width), (filters, height, width), (2 * filters, -(-height // 2), -(-width // 2))]


class ResidualLocalization(nn.Module):
    """Localisation features: a convolution and one block that halve, norm, fc[32]: (N, C, H, W) or (N, C, D, H, W) ->
    (N, 32).

    Its norms keep units alive at learning rates where those of a plain net die, and theta with them.
    """

    def __init__(self, shape: Sequence[int], *, width: int = 16) -> None:
        super().__init__()
        dims = len(shape) - 1
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.stem = conv(shape[0], width, 3, 2, 1, bias=False)
        self.block = Block(width, 2 * width, 2, "group", dims)
        self.norm = _norm(2 * width, "group")
        self.out_features = LOOKING_UNITS
        self.fc = nn.Linear(2 * width * prod(-(-side // 4) for side in shape[1:]), self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.block(self.stem(x))))
        return F.leaky_relu(self.fc(x.flatten(1)), 0.1)


class Descriptors(nn.Module):
    """Every crop through a backbone, the descriptors side by side, class scores: (N, count, C, h, w) -> (N, K), for
    count = 1 (N, C, h, w). One backbone serves all crops, or each of ``count`` its own. ``dropout``: the share of the
    descriptors dropped in training.
    """

    def __init__(
        self,
        normalize: nn.Module,
        backbones: Sequence[ResidualNet | LinLucey | Backbone],
        classes: int,
        *,
        count: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbones[0] if len(backbones) == 1 else nn.ModuleList(backbones)
        self.count = count
        self.dropout = SampleDropout(dropout) if dropout else nn.Identity()
        self.scores = nn.Linear(count * backbones[0].out_features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.dropout(self._described(x)))

    def _described(self, x: Tensor) -> Tensor:
        if isinstance(self.backbone, nn.ModuleList):
            crops = zip(self.backbone, x.unbind(1), strict=True)
            return torch.cat([backbone(self.normalize(crop)) for backbone, crop in crops], dim=1)
        found = self.backbone(self.normalize(x.flatten(0, 1) if self.count > 1 else x))
        return found.unflatten(0, (-1, self.count)).flatten(1) if self.count > 1 else found


def _norm(channels: int, norm: str) -> nn.Module:
    if norm == "batch":  # of pictures: volumes have group norms
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(next(groups for groups in range(GROUPS, 0, -1) if channels % groups == 0), channels)
