"""The paper's street-view networks: CNN, ST-CNN Single and ST-CNN Multi, which read a whole number at once.

    conv[48]-max-conv[64]-conv[128]-max-conv[160]-conv[192]-max-conv[192]-conv[192]-max-conv[192]-fc[3072]x3-heads

all convolutions 5 x 5, stride 1, padding 2, all pools 2 x 2, ReLU after each layer. Single has one affine transformer
on the input, Multi one before each of the first four convolutions.
Source: Jaderberg et al. 2015, section 4.2 and appendix A.5; the third fc is of its 11 hidden layers (PAPER 9.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.lab.config import Config
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.dropout import SampleDropout
from torch_stn.lab.models.residual import Normalize
from torch_stn.nn import LocalizationFC, SpatialTransformer
from torch_stn.transforms import Affine, Transform
from torch_stn.transforms.maps import Map

FILTERS = (48, 64, 128, 160, 192, 192, 192, 192)
POOLED = (0, 2, 4, 6)  # convolutions that a pool follows
HALVED = 2 ** len(POOLED)  # pixels of the image for one of the last map
UNITS = 3072
LOCALIZATION_FILTERS, LOCALIZATION_UNITS = 32, 32
TRANSFORMED = 4  # of Multi: the first convolutions
LOOK = 64  # pixels a side, the paper's other size, at which Single's localisation looks at most


class NumberNet(nn.Module):
    """Scores of each place of a number: (N, C, S, S) in [0, 1] -> (N, heads, classes). S is a multiple of 16.

    Args: ``scale``, the share of the paper's filters and units; ``dropout``, the share dropped in all layers but the
    first; ``transformers``, one before each of the first convolutions, in their order; none makes it the CNN.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        transformers: Sequence[SpatialTransformer] = (),
    ) -> None:
        super().__init__()
        self.heads = facts.heads
        self.normalize = Normalize(facts.mean, facts.deviation)
        self.transformers = nn.ModuleList(transformers)
        widths = [facts.channels, *(scaled(filters, scale) for filters in FILTERS)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 5, padding=2) for a, b in pairwise(widths))
        left = (facts.height // HALVED) * (facts.width // HALVED)
        units = scaled(UNITS, scale)
        self.fcs = nn.ModuleList(nn.Linear(a, units) for a in (widths[-1] * left, units, units))
        self.scores = nn.Linear(units, facts.heads * len(facts.classes))
        # Independent of each other and keyed by layer; none on the first convolution.
        self.dropouts = nn.ModuleList(SampleDropout(dropout, layer=k) for k in range(len(FILTERS) - 1 + 3))
        self.convs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in (*self.convs, *self.fcs):
            # So that eleven layers without a norm neither swell nor fade at the start.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        # On a CPU a step is a third faster so.
        x = self.normalize(x).contiguous(memory_format=torch.channels_last)
        for k, conv in enumerate(self.convs):
            if k < len(self.transformers):
                x = self.transformers[k](x)
            x = self._convolved(k, conv, x)
        x = x.flatten(1)
        for fc, dropout in zip(self.fcs, self.dropouts[len(FILTERS) - 1 :], strict=True):
            x = dropout(F.relu(fc(x)))
        return self.scores(x).unflatten(1, (self.heads, -1))

    def frames(self, x: Tensor) -> list[Map]:
        """Where each transformer reads in the input image, the first first: output -> image.

        What transformer k reads has been moved by those before it: T_1 o ... o T_k. Convolutions are taken to stay in
        their place, which padding makes them do but for the border.
        """
        found: list[Map] = []
        x = self.normalize(x)
        for k, transformer in enumerate(self.transformers):
            assert isinstance(transformer, SpatialTransformer)
            theta = transformer.theta(x)
            (mine,) = transformer.maps(theta)
            found.append(found[-1].then(mine) if found else mine)
            x = self._convolved(k, self.convs[k], transformer.read(x, theta))
        return found

    def _convolved(self, k: int, conv: nn.Module, x: Tensor) -> Tensor:
        """One layer: ReLU after pooling gives the same values for a quarter of the work."""
        x = conv(x)
        x = F.relu(F.max_pool2d(x, 2) if k in POOLED else x)
        return self.dropouts[k - 1](x) if k else x


class NumberLocalization(nn.Module):
    """Single's localisation features: conv[32]-max-conv[32]-fc[32]-fc[32], ReLU after each: (N, C, S, S) -> (N, 32).

    ``scale`` takes a share of the filters, as of the net behind; the fully connected layers keep their 32 units.
    """

    def __init__(self, shape: Sequence[int], *, scale: float = 1.0) -> None:
        super().__init__()
        filters = scaled(LOCALIZATION_FILTERS, scale)
        self.conv1 = nn.Conv2d(shape[0], filters, 5, padding=2)
        self.conv2 = nn.Conv2d(filters, filters, 5, padding=2)
        self.fcs = LocalizationFC((filters, shape[1] // 2, shape[2] // 2), (LOCALIZATION_UNITS, LOCALIZATION_UNITS))
        self.out_features = self.fcs.out_features

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        return self.fcs(F.relu(self.conv2(x)))


def number_net(config: Config, facts: Facts, family: Transform) -> nn.Module:
    """The network that a config names: (N, C, S, S) in [0, 1] -> scores (N, heads, classes).

    Raises: UserError for a size that the four pools cannot halve, or a crop without a transformer.
    """
    if config.crop and config.model == "number-cnn":
        raise UserError(f"crop: wanted 0 with model=number-cnn, which has no transformer, got {config.crop}")
    size = config.crop or facts.width
    if size > facts.width or size % HALVED:
        raise UserError(f"crop: wanted a multiple of {HALVED}, at most {facts.width} pixels, got {config.crop}")
    written = replace(facts, height=size, width=size)
    transformers: list[SpatialTransformer] = []
    if config.model == "st-number-cnn-multi":
        transformers = multi(facts, family, size, config.scale, config.window)
    net = NumberNet(written, scale=config.scale, dropout=config.dropout, transformers=transformers)
    if config.model == "st-number-cnn":
        return Aligned(single(facts, family, size, config.scale, config.window), net)
    return net


def single(facts: Facts, family: Transform, size: int, scale: float, share: float) -> SpatialTransformer:
    """That of ST-CNN Single. Where it writes fewer pixels a side, ``size``, than it reads, localisation looks at the
    image reduced to as few, and the net behind it is saved most of its work; at more than LOOK it never looks.
    """
    factor = facts.width // min(size, LOOK)
    features = nn.Sequential(
        Normalize(facts.mean, facts.deviation),
        nn.AvgPool2d(factor) if factor > 1 else nn.Identity(),
        NumberLocalization((facts.channels, facts.height // factor, facts.width // factor), scale=scale),
    )
    # What lies beyond a photograph is not black.
    start = start_at(share, family) if facts.width > min(size, LOOK) else None
    return SpatialTransformer(features, family, (size, size), in_shape=facts.shape, init=start, padding_mode="border")


def multi(facts: Facts, family: Transform, size: int, scale: float, share: float) -> list[SpatialTransformer]:
    """Those of ST-CNN Multi: localisation fc[32]-fc[32] on the map at each depth; the first writes ``size``."""
    channels, side = facts.channels, facts.width
    transformers = []
    for k in range(TRANSFORMED):
        features = LocalizationFC((channels, side, side), (LOCALIZATION_UNITS, LOCALIZATION_UNITS))
        start = start_at(share, family) if not k and side > min(size, LOOK) else None
        side = side if k else size
        transformers.append(SpatialTransformer(features, family, (side, side), init=start))
        channels, side = scaled(FILTERS[k], scale), side // 2 if k in POOLED else side
    return transformers


def start_at(share: float, family: Transform) -> Tensor | None:
    """theta of a look at the middle of the picture, a share of its side, where the paper starts with all of it. In the
    whole of 128 pixels a side digits are small, written as 64 too small to be read; as long as nothing is read theta
    learns nothing. None, the identity, for families other than affine.
    """
    return torch.eye(2, 3) * share if isinstance(family, Affine) else None


def scaled(count: int, scale: float) -> int:
    """A share of the paper's filters or units, at least one."""
    return max(1, round(count * scale))
