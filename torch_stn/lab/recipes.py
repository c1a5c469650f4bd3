"""How the cells of a table are trained: recipes, functions Config -> Config that leave task and seed alone.

``paper`` is the paper's own; ``ours`` may change optimiser, schedule, loss and the localisation net's learning rate,
and the width within the paper's bounds; ``ours+`` the network too, and is a row of its own where a
table has it (Table 1 and TC).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch_stn.lab.config import Config

Rule = tuple[Mapping[str, Any], Mapping[str, Any]]  # where the config has these values, it gets those

# What we tune, all in one place; of several rules that hold the later wins.
OURS: tuple[Rule, ...] = (
    ({"model": "fcn"}, {"learning_rate": 5e-3, "label_smoothing": 0.0}),
    ({"model": "st-fcn"}, {"learning_rate": 2e-3, "localization_rate": 2.0, "warmup": 0.05}),
    # Sums tell a localisation net little at first: at the rate above its maps fold before the classifier can add.
    ({"experiment": "addition", "model": "st-fcn"}, {"localization_rate": 0.5}),
    # Its first localisation net reads raw pixels, 49,152 at once, and overshoots at what Single bears.
    ({"model": "st-number-cnn-multi"}, {"localization_rate": 0.1}),
)
# The residual net of folders of images in the place of the paper's CNN; for a localisation net one of its blocks, which
# looks twice.
RESIDUAL: Mapping[str, Any] = {
    **{"model": "resnet", "looking": "resnet", "iterations": 2, "norm": "batch", "average": False, "dropout": 0.3},
    **{"batch_size": 128, "learning_rate": 2e-3, "localization_rate": 1.0, "weight_decay": 0.05, "warmup": 0.05},
}
OURS_PLUS: tuple[Rule, ...] = (
    ({"model": "st-cnn", "data": "rts"}, {**RESIDUAL, "crop": 28}),
    # At the rate of the others its first steps leave the picture for good. So narrow that with a localisation net on 60
    # pixels it takes less than a megabyte, in half precision, in the zoo.
    ({"model": "st-cnn", "data": "tc"}, {**RESIDUAL, "crop": 28, "width": 24, "localization_rate": 0.1}),
    ({"model": "st-cnn"}, RESIDUAL),  # of those that the rules above have not replaced
    ({"model": "cnn"}, {**RESIDUAL, "transform": "none", "iterations": 1}),
)


# Jaderberg et al. 2015, A.5: 0.01 divided by 10 every 80,000 steps.
PAPER_NUMBERS: Mapping[str, Any] = {
    "batch_size": 128,
    "steps": 400_000,
    "schedule": "fifths",
    "weight_decay": 5e-4,
    "localization_rate": 0.1,
    "dropout": 0.5,
    "window": 1.0,
}


def paper(config: Config) -> Config:
    """Jaderberg et al. 2015, A.4: plain SGD, 150,000 steps of 256, 0.01 divided by 10 at each third, nothing else; of
    house numbers what A.5 says instead.
    """
    plain = _plain_sgd(config)
    return replace(plain, **PAPER_NUMBERS) if config.numbers else plain


def _plain_sgd(config: Config) -> Config:
    return replace(
        config,
        optimizer="sgd",
        learning_rate=0.01,
        momentum=0.0,
        localization_rate=1.0,
        weight_decay=0.0,
        schedule="steps",
        warmup=0.0,
        label_smoothing=0.0,
        area_penalty=0.0,
        clip=0.0,
        batch_size=256,
        steps=150_000,
        epochs=0.0,
        seconds=0.0,
    )


def ours(config: Config) -> Config:
    """AdamW and a cosine, as the table's own config has them, and the rules above."""
    return _follow(OURS, config)


def ours_plus(config: Config) -> Config:
    """``ours`` with another network."""
    return _follow(OURS_PLUS, ours(config))


RECIPES: dict[str, Callable[[Config], Config]] = {"ours": ours, "ours+": ours_plus, "paper": paper}


def _follow(rules: tuple[Rule, ...], config: Config) -> Config:
    for where, changes in rules:
        if all(getattr(config, key) == value for key, value in where.items()):
            config = replace(config, **changes)
    return config
