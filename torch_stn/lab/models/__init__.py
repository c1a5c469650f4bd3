"""The networks of the experiments, built from a Config."""

import difflib

import torch
from torch import nn

from torch_stn.lab.config import NUMBER_MODELS, Config
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.sets import digit_facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.classifiers import CNN, CNN_FILTERS, CNN_LAYERS, FCN, fcn_units
from torch_stn.lab.models.house_numbers import number_net
from torch_stn.lab.models.photo_net import photo_net
from torch_stn.lab.models.tutorial import TutorialClassifier, TutorialLocalization
from torch_stn.lab.models.volumes import volume_net
from torch_stn.nn import LocalizationConv, LocalizationFC, SpatialTransformer
from torch_stn.nn.localization import output_shape
from torch_stn.transforms import TRANSFORMS, Transform

_LABELS = {
    "fcn": "FCN",
    "cnn": "CNN",
    "bn-cnn": "BN-CNN",
    "st-fcn": "ST-FCN",
    "st-cnn": "ST-CNN",
    "st-bn-cnn": "ST-BN-CNN",
    "tutorial": "Tutorial ST-CNN",
    "resnet": "ResNet",
    "number-cnn": "Number CNN",
    "st-number-cnn": "ST-CNN Single",
    "st-number-cnn-multi": "ST-CNN Multi",
}


WITH_TRANSFORMER = ("st-fcn", "st-cnn", "st-bn-cnn", "tutorial", "st-number-cnn", "st-number-cnn-multi")


def build(config: Config, facts: Facts | None = None) -> nn.Module:
    """The network of a run; its starting weights are a function of the seed alone.

    ``facts`` of the data may be left out for digits, whose config says them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _build(config, facts or digit_facts(config.data))


def label(config: Config) -> str:
    """What a table calls the network: ``ST-CNN affine``, ``2 x ST-ResNet attention``."""
    name = config.backbone.replace(":", " ") or _LABELS[config.model]
    if config.model == "resnet":
        if config.transform == "none":
            return name
        name = f"ST-{name}"
    elif config.model in NUMBER_MODELS:
        beside = f" {config.transform}" if has_transformer(config) else ""
        written = f" to {config.crop} px" if config.crop else ""
        return f"{name}{beside}{written}, {'full' if config.scale == 1 else f'{config.scale:g}'} width"
    elif not has_transformer(config):
        return name
    several = f"{config.count} x " if config.count > 1 else f"{config.series} in a row, " if config.series > 1 else ""
    repeated = f" x {config.iterations}" if config.iterations > 1 else ""
    at = f", layer {config.layer}{' shared' if config.shared else ''}" if config.layer else ""
    beside = ", theta forward" if config.theta_forward else ""
    return f"{several}{name} {config.transform}{repeated}{at}{beside}"


def has_transformer(config: Config) -> bool:
    """Whether a spatial transformer is part of the network."""
    return config.transform != "none" if config.model == "resnet" else config.model in WITH_TRANSFORMER


def count_parameters(model: nn.Module) -> int:
    """All trainable numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _build(config: Config, facts: Facts) -> nn.Module:
    if facts.depth:
        return volume_net(config, facts)
    if config.model == "resnet":
        return photo_net(config, facts, None if config.transform == "none" else _transform(config))
    if config.model in NUMBER_MODELS:
        return number_net(config, facts, _transform(config))
    side = facts.width
    if config.model == "tutorial":
        if facts.shape != (1, 28, 28):
            raise UserError(f"model=tutorial: wanted a set on 28 x 28 pixels (plain, r, p, e), got data={config.data}")
        return Aligned(SpatialTransformer(TutorialLocalization(), _transform(config)), TutorialClassifier())
    if config.layer > (len(CNN_LAYERS) if config.model.endswith("cnn") else 0):
        raise UserError(f"layer: wanted 0, or with a CNN at most {len(CNN_LAYERS)}, got {config.layer}")
    if not has_transformer(config):
        return _classifier(config, facts, side, facts.channels, spent=0)
    return _aligned(config, facts)


def _aligned(config: Config, facts: Facts) -> Aligned:
    """The paper's classifier with a transformer on its input, or behind its first layers."""
    side, family = facts.width, _transform(config)
    pool = 2 if side > 28 and not config.layer else 1  # a canvas larger than the digit
    channels = config.count * facts.channels
    extra = config.count * family.num_params if config.theta_forward else 0
    stem: nn.Module | None = None
    if config.layer:
        classifier = _classifier(config, facts, side, channels, spent=0, extra=extra)
        assert isinstance(classifier, CNN)
        stem = classifier.cut(config.layer)
    seen = output_shape(stem, facts.shape) if stem is not None and config.shared else facts.shape
    if config.model == "st-fcn" or seen != facts.shape:
        features: nn.Module = LocalizationFC(seen)
    else:
        features = LocalizationConv(seen)
    size = None if config.layer else (side, side)
    transformer = SpatialTransformer(features, family, size, count=config.count)
    if stem is None:
        spent = count_parameters(transformer)
        classifier = _classifier(config, facts, side // pool, channels, spent=spent, extra=extra)
    return Aligned(
        transformer, classifier, pool=pool, stem=stem, shared=config.shared, theta_forward=config.theta_forward
    )


def _classifier(config: Config, facts: Facts, side: int, channels: int, *, spent: int, extra: int = 0) -> nn.Module:
    """FCN or CNN on pictures of ``channels`` and ``side``; ``spent`` parameters of the budget are used already."""
    classes = len(facts.classes)
    if config.model.endswith("fcn"):
        inputs = channels * side * side
        return FCN(inputs, config.width or fcn_units(inputs, spent, classes), classes, extra=extra)
    return CNN(
        side,
        config.width or CNN_FILTERS,
        channels=channels,
        classes=classes,
        batch_norm="bn-" in config.model,
        extra=extra,
    )


def _transform(config: Config) -> Transform:
    if config.transform not in TRANSFORMS:
        nearest = difflib.get_close_matches(config.transform.lower(), TRANSFORMS, 1)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        none = ["none"] if config.model == "resnet" else []
        raise UserError(f"transform: wanted one of {', '.join([*TRANSFORMS, *none])}, got {config.transform!r}{hint}")
    return TRANSFORMS[config.transform]()
