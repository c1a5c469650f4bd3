"""The networks of the experiments, built from a Config."""

import difflib

import torch
from torch import nn

from torch_stn.lab.config import Config
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.sets import digit_facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.classifiers import CNN, CNN_FILTERS, FCN, fcn_units
from torch_stn.lab.models.photo_net import photo_net
from torch_stn.lab.models.tutorial import TutorialClassifier, TutorialLocalization
from torch_stn.nn import LocalizationConv, LocalizationFC, SpatialTransformer
from torch_stn.transforms import TRANSFORMS, Transform

_LABELS = {
    "fcn": "FCN",
    "cnn": "CNN",
    "bn-cnn": "BN-CNN",
    "st-fcn": "ST-FCN",
    "st-cnn": "ST-CNN",
    "tutorial": "Tutorial ST-CNN",
    "resnet": "ResNet",
}


def build(config: Config, facts: Facts | None = None) -> nn.Module:
    """The network of a run; its starting weights are a function of the seed alone.

    ``facts`` of the data may be left out for digits, whose config says them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _build(config, facts or digit_facts(config.data))


def label(config: Config) -> str:
    """What a table calls the network: ``ST-CNN affine``, ``2 x ST-ResNet attention``."""
    name = _LABELS[config.model]
    if config.model == "resnet":
        if config.transform == "none":
            return name
        several = f"{config.count} x " if config.count > 1 else ""
        repeated = f" x {config.iterations}" if config.iterations > 1 else ""
        return f"{several}ST-{name} {config.transform}{repeated}"
    return f"{name} {config.transform}" if config.model in ("st-fcn", "st-cnn", "tutorial") else name


def count_parameters(model: nn.Module) -> int:
    """All trainable numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _build(config: Config, facts: Facts) -> nn.Module:
    if config.model == "resnet":
        return photo_net(config, facts, None if config.transform == "none" else _transform(config))
    side, shape = facts.width, facts.shape
    if config.model == "tutorial":
        if side != 28:
            raise UserError(f"model=tutorial: wanted a set on 28 x 28 pixels (plain, r, p, e), got data={config.data}")
        return Aligned(SpatialTransformer(TutorialLocalization(), _transform(config)), TutorialClassifier())
    if config.model in ("fcn", "cnn", "bn-cnn"):
        return _classifier(config, side, spent=0)
    pool = 2 if side > 28 else 1
    features = LocalizationFC(shape) if config.model == "st-fcn" else LocalizationConv(shape)
    transformer = SpatialTransformer(features, _transform(config), (side, side))
    return Aligned(transformer, _classifier(config, side // pool, spent=count_parameters(transformer)), pool=pool)


def _classifier(config: Config, side: int, spent: int) -> nn.Module:
    if config.model.endswith("fcn"):
        return FCN(side, config.width or fcn_units(side, spent))
    return CNN(side, config.width or CNN_FILTERS, batch_norm=config.model == "bn-cnn")


def _transform(config: Config) -> Transform:
    if config.transform not in TRANSFORMS:
        nearest = difflib.get_close_matches(config.transform.lower(), TRANSFORMS, 1)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        none = ["none"] if config.model == "resnet" else []
        raise UserError(f"transform: wanted one of {', '.join([*TRANSFORMS, *none])}, got {config.transform!r}{hint}")
    return TRANSFORMS[config.transform]()
