"""The network for a folder of images, and of recipe ours+ for digits: a residual net, alone or behind spatial
transformers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torch_stn.lab.config import OWN_BACKBONES, Config
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.backbones import Backbone, foreign_backbone
from torch_stn.lab.models.lin_lucey import LinLucey
from torch_stn.lab.models.residual import (
    BLOCKS,
    WIDTH,
    Descriptors,
    Normalize,
    ResidualLocalization,
    ResidualNet,
    Standardize,
    block_shapes,
)
from torch_stn.nn import LocalizationConv, LocalizationFC, SpatialTransformer
from torch_stn.transforms import Transform

LOOK = 56  # pixels a side that localisation looks at, at most twice as many
GLANCE = 8  # points a side, or up to twice as many, that localisation on maps looks at
SMALLEST = 28  # that LocalizationConv needs
TILE = 0.5  # side of the window that each of several transformers starts at, as a share of the image's


def photo_net(config: Config, facts: Facts, family: Transform | None) -> nn.Module:
    """(N, C, S, S) in [0, 1] -> class scores (N, K), for any number of channels, size and classes."""
    _refuse(config, family)
    side, width = config.crop or facts.height, config.width or WIDTH
    normalize = Standardize() if config.standardize else Normalize(facts.mean, facts.deviation)
    count = 1 if family is None else config.count
    later = [] if family is None else series(config, family, side, width)
    backbones = [_backbone(config, (facts.channels, side, side), later) for _ in range(config.backbones)]
    # A net of another package normalises as its own training did.
    before = nn.Identity() if isinstance(backbones[0], Backbone) else normalize
    classifier = Descriptors(before, backbones, len(facts.classes), count=count, dropout=config.dropout)
    if config.norm == "batch":  # a CPU's convolutions and this norm are faster so, while group norm is far slower
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which torch's stubs lack
    if family is None:
        return classifier
    transformer = SpatialTransformer(
        nn.Sequential(normalize, localization(facts.shape, config.looking)),
        family,
        (side, side),
        in_shape=facts.shape,
        count=config.count,
        iterations=config.iterations,
        init=_tiles(config, family) if config.count > 1 else None,
        padding_mode="border" if config.photos else "zeros",  # what lies beyond a photograph is not black
        antialias=side < facts.height,
    )
    if config.count == 1 and family.has_identity:
        with torch.no_grad():  # not initial(), which may be a little off: the first look is the image as it is
            transformer.head.bias.copy_(family.identity().flatten())
    return Aligned(transformer, classifier)


def _backbone(
    config: Config, shape: tuple[int, int, int], later: Sequence[SpatialTransformer]
) -> ResidualNet | LinLucey | Backbone:
    """One net for crops of a shape, without its last layer."""
    if not config.backbone:
        return ResidualNet(
            shape[0],
            width=config.width or WIDTH,
            norm=config.norm,
            halve=config.halve,
            size=None if config.average else shape[1:],
            transformers=later,
        )
    if config.backbone in OWN_BACKBONES:
        return LinLucey(config.backbone, shape)
    return foreign_backbone(config, shape[-1])


def localization(shape: tuple[int, ...], looking: str = "conv") -> nn.Module:
    """Localisation features of an image (C, H, W); one that is large is looked at reduced."""
    side = min(shape[1:])
    factor = max(1, side // LOOK)
    reduced = (shape[0], shape[1] // factor, shape[2] // factor)
    if looking == "resnet":
        features: nn.Module = ResidualLocalization(reduced)
    elif looking == "lin-lucey":
        features = LinLucey("looking", reduced)
    else:
        features = LocalizationFC(shape) if side < SMALLEST else LocalizationConv(reduced)
    return nn.Sequential(nn.AvgPool2d(factor), features) if factor > 1 else features


def series(config: Config, family: Transform, side: int, width: int) -> list[SpatialTransformer]:
    """The transformers behind the first one: each reads and writes the maps before a block, and looks at them reduced
    to about GLANCE points a side: maps of many channels have inputs enough.
    """
    transformers = []
    for channels, high, wide in block_shapes(side, side, width, halve=config.halve)[: config.series - 1]:
        shape = (channels, high, wide)
        factor = max(1, min(high, wide) // GLANCE)
        features = nn.Sequential(nn.AvgPool2d(factor), LocalizationFC((channels, high // factor, wide // factor)))
        transformers.append(SpatialTransformer(features, family, shape[1:], in_shape=shape, padding_mode="border"))
    return transformers


def _refuse(config: Config, family: Transform | None) -> None:
    """UserError for what does not go together."""
    if config.backbones not in (1, config.count):
        raise UserError(f"backbones: wanted 1, or {config.count} as count, got {config.backbones}")
    if config.series > 1 + BLOCKS:
        raise UserError(f"series: wanted at most {1 + BLOCKS}, got {config.series}")
    if family is None:
        if config.count > 1 or config.iterations > 1 or config.series > 1 or config.crop:
            raise UserError("transform=none: wanted no count, iterations, series or crop beside it")
        return
    if family.dims != 2:
        raise UserError(f"transform: wanted a family of the plane, got {config.transform!r}")
    if config.series > 1 and config.count > 1:
        raise UserError(f"series: wanted 1 with count={config.count}, got {config.series}")
    if config.iterations > 1 and config.count > 1:
        raise UserError(f"iterations: wanted 1 with count={config.count}, got {config.iterations}")
    if config.iterations > 1 and not family.has_identity:
        raise UserError(f"iterations: wanted 1, since {config.transform} has no identity, got {config.iterations}")


def _tiles(config: Config, family: Transform) -> Tensor | None:
    """Windows of half the side, spread evenly over the image; families that cannot zoom start alike.

    Source: Jaderberg et al. 2015, section 4.3, the tiled start of several transformers.
    """
    if config.transform not in ("attention", "attention-half", "affine"):
        return None
    columns = math.ceil(math.sqrt(config.count))
    rows = math.ceil(config.count / columns)
    starts = []
    for index in range(config.count):
        row, column = divmod(index, columns)
        x, y = ((1 - TILE) * _spread(place, total) for place, total in ((column, columns), (row, rows)))
        start = {"attention": [TILE, x, y], "attention-half": [x, y], "affine": [TILE, 0.0, x, 0.0, TILE, y]}
        starts.append(start[config.transform])
    return torch.tensor(starts)


def _spread(place: int, total: int) -> float:
    """Evenly from -1 to 1; the middle where there is one place."""
    return 0.0 if total == 1 else 2 * place / (total - 1) - 1
