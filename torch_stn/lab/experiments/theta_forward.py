"""Theta fed forward: the classifier is given the transformer's theta beside its own features.

    stn reproduce theta_forward
    stn train theta_forward model=st-cnn data=rts

Theta codes the pose, which an aligned picture no longer shows. The same networks without it are cells of Table 1.
Source: Jaderberg et al. 2015, section 3.4, which proposes it and has no numbers. Measured: docs/reproductions.md.
"""

from dataclasses import replace

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="theta_forward",
    model="st-fcn",
    transform="affine",
    data="r",
    theta_forward=True,
    steps=30_000,
    learning_rate=1e-3,
    localization_rate=3.0,
    weight_decay=0.0,
)


def _cells() -> list[Cell]:
    base = replace(CONFIG, digits="mnist", tensorboard=False)
    return [
        Cell(
            f"{data}-{model}-affine",
            f"{model.upper()} affine, theta forward",
            data.upper(),
            replace(base, model=model, data=data),
            None,
        )
        for model in ("st-fcn", "st-cnn")
        for data in ("r", "rts")
    ]


TABLE = Table(
    name="theta_forward",
    title="Theta fed forward (without it: Table 1)",
    source="Jaderberg et al. 2015, section 3.4; no numbers there",
    cells=tuple(_cells()),
)
