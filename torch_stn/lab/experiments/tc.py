"""Translated digits among clutter (TC): FCN, CNN, ST-FCN, ST-CNN on 60 x 60 pixels.

    stn reproduce tc
    stn train tc model=st-fcn

Source: Jaderberg et al. 2015, section 4.1, whose text has the four numbers and does not say which transformer: affine
here. What we measured beside them: docs/reproductions.md.
"""

from dataclasses import replace

from torch_stn.lab.cell import Table, grid
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="tc",
    model="st-cnn",
    transform="affine",
    data="tc",
    steps=30_000,
    learning_rate=1e-3,
    localization_rate=3.0,
    weight_decay=0.0,
)
ROWS = {
    "FCN": ("fcn", "affine"),
    "CNN": ("cnn", "affine"),
    "ST-FCN affine": ("st-fcn", "affine"),
    "ST-CNN affine": ("st-cnn", "affine"),
}
PAPER: dict[str, tuple[float | None, ...]] = {
    "FCN": (13.2,),
    "CNN": (3.5,),
    "ST-FCN affine": (2.0,),
    "ST-CNN affine": (1.7,),
}
TABLE = Table(
    name="tc",
    title="Translated and cluttered MNIST",
    source="Jaderberg et al. 2015, section 4.1",
    cells=grid(replace(CONFIG, digits="mnist", tensorboard=False), ROWS, {"TC": "tc"}, PAPER),
    recipes=("ours", "ours+", "paper"),
)
