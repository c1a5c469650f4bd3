"""Config: everything that defines a run, as one frozen dataclass, and `key=value` overrides of it. No flag per
field.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch_stn.lab.errors import UserError


@dataclass(frozen=True)
class Config:
    """One run. An experiment is a Config; `stn train NAME key=value ...` replaces fields of it."""

    experiment: str = ""
    # What is learned from.
    source: str = "digits"  # digits | folder | gtsrb | cub | svhn
    digits: str = "auto"  # of digits: auto | mnist | embedded
    data: str = "rts"  # of digits: a set, see CHOICES; of images: their path
    # All below to perturb are of images, not of digits.
    size: int = 64  # every image is held at size x size pixels
    grey: bool = False  # one channel instead of three
    validation: float = 0.2  # share of each class held out, where nothing says which images are for validation
    together: str = ""  # files whose names are alike up to the last of this are held out together: frames of a film
    balance: str = "none"  # none | weights (of the loss) | draws (every class as often)
    flip: bool = False  # left and right are the same thing: not for signs, not for writing
    jitter: float = 0.1  # of pose: shift and scale by this share, and as many radians
    colour_jitter: float = 0.2  # of brightness, contrast and saturation, by this share
    perturb: float = 0.0  # corners and the whole moved by N(0, this) half sides, when training and when judging
    # The network.
    model: str = "st-cnn"  # fcn | cnn | bn-cnn | st-fcn | st-cnn | st-bn-cnn | tutorial; resnet; NUMBER_MODELS
    transform: str = "affine"  # of models with a transformer: a name of TRANSFORMS; of resnet also none
    count: int = 1  # transformers side by side
    layer: int = 0  # of st-cnn: the transformer stands behind this many layers
    shared: bool = False  # behind a layer: its localisation net looks at that layer's maps instead of the image
    theta_forward: bool = False  # the classifier is given theta, beside its last features
    iterations: int = 1  # of resnet and volumes: how often one transformer looks
    looking: str = "conv"  # of both: localisation by conv, the paper's, or resnet, with norms; of resnet also lin-lucey
    series: int = 1  # of resnet: transformers in a row, on the image and then on the maps before each block
    backbones: int = 1  # of resnet: one for all crops, or as many as crops
    backbone: str = ""  # of resnet, in its place: timm:NAME, torchvision:NAME or one of OWN_BACKBONES
    weights: str = ""  # of backbone: a file that a new run starts from
    crop: int = 0  # of resnet and number models: pixels a side that a transformer writes; 0 = as many as it reads
    standardize: bool = False  # of resnet: pixels by each image's own mean and deviation, not by the data's
    halve: bool = True  # of resnet: its first convolution halves the picture; false for pictures of few pixels
    average: bool = True  # of resnet: the mean of its last maps; false keeps places: for things that fill it
    norm: str = "group"  # of resnet: group (an image's scores are its own affair) | batch
    width: int = 0  # units of FCN layers, filters of CNNs; 0 takes the model's own
    scale: float = 1.0  # of NUMBER_MODELS: the share of the paper's filters and units
    window: float = 0.7  # of NUMBER_MODELS beyond 64 pixels: the share of the side that is looked at first
    dropout: float = 0.0  # of NUMBER_MODELS: the share dropped in every layer but the first; of resnet before its last
    # How long: the run ends at the first of these that is reached; 0 = no such limit.
    steps: int = 20_000
    epochs: float = 0.0
    seconds: float = 0.0
    # How.
    batch_size: int = 256
    optimizer: str = "adamw"  # adamw | sgd
    learning_rate: float = 1e-3
    localization_rate: float = 1.0  # the localisation net's learning rate, in units of learning_rate
    weight_decay: float = 1e-4
    momentum: float = 0.9  # of sgd
    schedule: str = "cosine"  # cosine (to 0) | steps, fifths (divided by 10 at each third, fifth)
    warmup: float = 0.02  # share of the run
    label_smoothing: float = 0.1
    area_penalty: float = 0.0  # weight of (log of the area a transformer's pixel reads)^2: 0 lets it zoom freely
    clip: float = 0.0  # largest norm of the gradient; 0 = no limit
    seed: int = 0
    # What is written.
    log_every: int = 50  # steps
    checkpoint_every: int = 500  # steps
    evaluations: int = 12  # moments at which a test error and a snapshot are taken, closer together at the start
    test_distortions: int = 10  # fixed distortions of the whole test set at the end
    tensorboard: bool = True
    # Where: handed to Lightning Fabric.
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    threads: int = 0  # CPU threads; 0 = PyTorch's choice

    @property
    def photos(self) -> bool:
        """Whether images are learned from, rather than distorted digits."""
        return self.source != "digits"

    @property
    def numbers(self) -> bool:
        """Whether an image has several labels, the digits of a number."""
        return self.source == "svhn" or (self.source == "digits" and self.data.startswith("strings"))


OWN_BACKBONES = ("lin-lucey", "lin-lucey-cnn")  # behind a transformer; alone, and deeper by what that would cost
# Whole house numbers, several digits at once: CNN, ST-CNN Single and ST-CNN Multi of the paper.
NUMBER_MODELS = ("number-cnn", "st-number-cnn", "st-number-cnn-multi")
CHOICES: dict[str, tuple[str, ...]] = {
    "source": ("digits", "folder", "gtsrb", "cub", "svhn"),
    "digits": ("auto", "mnist", "embedded"),
    "data": (
        *("plain", "r", "rts", "p", "e", "tc", "addition", "strings-64", "strings-128"),
        *("nudged", "t84", "tc84", "volumes"),
    ),
    "balance": ("none", "weights", "draws"),
    "model": ("fcn", "cnn", "bn-cnn", "st-fcn", "st-cnn", "st-bn-cnn", "tutorial", "resnet", *NUMBER_MODELS),
    "looking": ("conv", "resnet", "lin-lucey"),
    "norm": ("group", "batch"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "steps", "fifths"),
}
_AT_LEAST: dict[str, float] = {
    **dict.fromkeys(("batch_size", "log_every", "checkpoint_every", "devices", "nodes", "count", "iterations"), 1),
    **dict.fromkeys(("series", "backbones"), 1),
    **dict.fromkeys(("validation", "jitter", "colour_jitter", "perturb", "crop", "layer"), 0),
    "size": 8,
    **dict.fromkeys(("scale", "window"), 0.01),
    "dropout": 0,
    **dict.fromkeys(
        ("steps", "epochs", "seconds", "width", "seed", "threads", "clip", "area_penalty", "weight_decay"), 0
    ),
    **dict.fromkeys(("evaluations", "warmup", "label_smoothing", "momentum", "localization_rate", "learning_rate"), 0),
    "test_distortions": 1,
}


# A wrong digit too many should be a line, not a machine that stands still.
_AT_MOST: dict[str, float] = {
    **dict.fromkeys(("label_smoothing", "momentum", "warmup"), 0.999),
    **dict.fromkeys(("validation", "jitter", "colour_jitter", "perturb", "dropout"), 0.9),
    **dict.fromkeys(("scale", "window"), 4),
    **dict.fromkeys(("size", "crop"), 4096),
    **dict.fromkeys(("count", "iterations", "series", "backbones", "layer"), 64),
    **dict.fromkeys(("devices", "nodes", "threads", "evaluations", "test_distortions"), 1024),
    **dict.fromkeys(("width", "batch_size"), 65_536),
    **dict.fromkeys(("steps", "log_every", "checkpoint_every", "seconds", "epochs"), 10**9),
    "seed": 2**63 - 1,
}


def override(config: Config, words: Iterable[str]) -> Config:
    """The config with `key=value` words applied.

    Raises: UserError naming the nearest key for an unknown one, or the wanted type or choices for a wrong value.

    >>> override(Config(), ["seed=3", "data=r"]).data
    'r'
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or not key:
            raise UserError(f"{word!r}: wanted key=value")
        changes[key] = _parse(_known(key), text)
    return check(dataclasses.replace(config, **changes))


def from_record(record: Mapping[str, Any]) -> Config:
    """The config of a run folder's record, whose other keys are ignored; unknown keys are an error."""
    values = {_known(key): value for key, value in record.items() if key != "format"}
    for key, value in values.items():
        wanted = _type(key)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif type(value) is not wanted:
            raise UserError(f"{key}: wanted {wanted.__name__}, got {value!r}")
    return check(Config(**values))


def check(config: Config) -> Config:
    """The config itself, or a UserError that names the field."""
    for key, allowed in CHOICES.items():
        value = getattr(config, key)
        if key == "data" and config.photos:
            continue  # a path
        if value not in allowed:
            nearest = difflib.get_close_matches(str(value).lower(), allowed, 1)
            hint = f"; nearest: {nearest[0]}" if nearest else ""
            raise UserError(f"{key}: wanted one of {', '.join(allowed)}, got {value!r}{hint}")
    for key, least in _AT_LEAST.items():
        value = getattr(config, key)
        if not (math.isfinite(value) and value >= least):
            raise UserError(f"{key}: wanted a number of at least {least:g}, got {value}")
    for key, most in _AT_MOST.items():
        value = getattr(config, key)
        if value > most:
            raise UserError(f"{key}: wanted a number of at most {most}, got {value}")
    if config.numbers != (config.model in NUMBER_MODELS):
        which = f"with source={config.source}" + (f" data={config.data}" if not config.photos else "")
        others = f"another than {', '.join(NUMBER_MODELS)}, which are for house numbers,"
        wanted = f"one of {', '.join(NUMBER_MODELS)}" if config.numbers else others
        raise UserError(f"model: wanted {wanted} {which}, got {config.model!r}")
    if not config.numbers and config.photos and config.model != "resnet":
        raise UserError(f"model: wanted resnet with source={config.source}, got {config.model!r}")
    _check_transformer(config)
    _check_backbone(config)
    if not (config.steps or config.epochs or config.seconds):
        raise UserError("steps, epochs, seconds: all are 0, so the run would never end")
    return config


def _check_transformer(config: Config) -> None:
    """What a network would ignore, and its label would claim."""
    resnet, volumes = config.model == "resnet", config.data == "volumes" and not config.photos
    looks = ("model=resnet or data=volumes", resnet or volumes)
    papers = ("the paper's networks", not (resnet or volumes))
    whose = {"layer": papers, "shared": papers, "theta_forward": papers, "iterations": looks, "looking": looks}
    for key, (owner, fits) in {**whose, "series": ("model=resnet", resnet)}.items():
        wanted, got = getattr(Config(), key), getattr(config, key)
        if got != wanted and not fits:
            given = f"model={config.model}" + (" data=volumes" if volumes else "")
            wanted, got = str(wanted).lower(), str(got).lower()
            raise UserError(f"{key}: goes with {owner}, wanted {wanted} with {given}, got {got}")


def _check_backbone(config: Config) -> None:
    """What goes with another net than the residual one."""
    own = config.backbone in OWN_BACKBONES
    if config.weights and (own or not config.backbone):
        raise UserError(f"weights: wanted backbone=timm:NAME or torchvision:NAME beside it, got {config.weights!r}")
    if not config.backbone:
        return
    if not (own or re.fullmatch(r"(timm|torchvision):[A-Za-z0-9_.]+", config.backbone)):
        known = f"timm:NAME, torchvision:NAME, {' or '.join(OWN_BACKBONES)}"
        raise UserError(f"backbone: wanted {known}, got {config.backbone!r}")
    if config.model != "resnet":
        raise UserError(f"backbone: wanted model=resnet, got {config.model!r}")
    for key in ("width", "halve", "average", "norm", "series", *(() if own else ("standardize",))):
        wanted, got = (str(getattr(each, key)).lower() for each in (Config(), config))
        if got != wanted:
            raise UserError(
                f"{key}: is of our residual net, wanted {wanted} with backbone={config.backbone}, got {got}"
            )


def _known(key: str) -> str:
    names = [field.name for field in dataclasses.fields(Config)]
    if key in names:
        return key
    nearest = difflib.get_close_matches(key, names, 1, cutoff=0.4)
    hint = f"; nearest: {nearest[0]}" if nearest else f"; known: {', '.join(names)}"
    raise UserError(f"{key}: no such key{hint}")


def _type(key: str) -> type:
    return type(getattr(Config(), key))


def _parse(key: str, text: str) -> Any:
    """The text of a value as its field's type."""
    wanted = _type(key)
    if wanted is bool:
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise UserError(f"{key}: wanted true or false, got {text!r}")
    try:
        return wanted(text)
    except ValueError:
        kind = {"int": "a whole number", "float": "a number"}[wanted.__name__]
        raise UserError(f"{key}: wanted {kind}, got {text!r}") from None
