"""MNIST addition: the sum of two digits, each posed apart from the other (RTS) in a channel of its own, 19 classes.

    stn reproduce addition
    stn train addition count=2 transform=tps

One transformer moves both channels alike, so it can right one digit only; each of two in parallel (`count=2`) rights
its own, and the four channels that they write go to the classifier.
Source: Jaderberg et al. 2015, appendix A.1, Table 4; which single transformer has 18.5 and which 19.1 is from memory.
Localisation nets and pooling are those of RTS (A.4), which the paper does not say here. What we measured:
docs/reproductions.md.
"""

from dataclasses import replace

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="addition",
    model="st-fcn",
    transform="affine",
    count=2,
    data="addition",
    steps=30_000,
    learning_rate=1e-3,
    weight_decay=0.0,
)
FAMILIES = {"affine": "affine", "projective": "projective", "TPS": "tps"}
PAPER = {
    "FCN": 47.7,
    "CNN": 14.7,
    "ST-FCN affine": 22.6,
    "ST-FCN projective": 18.5,
    "ST-FCN TPS": 19.1,
    "2xST-FCN affine": 9.0,
    "2xST-FCN projective": 5.9,
    "2xST-FCN TPS": 5.8,
}


def _cells() -> list[Cell]:
    base = replace(CONFIG, digits="mnist", tensorboard=False)
    rows = {"FCN": replace(base, model="fcn", count=1), "CNN": replace(base, model="cnn", count=1)}
    for count, prefix in ((1, "ST-FCN"), (2, "2xST-FCN")):
        for word, transform in FAMILIES.items():
            rows[f"{prefix} {word}"] = replace(base, count=count, transform=transform)
    return [Cell(row.lower().replace(" ", "-"), row, "sum", each, PAPER[row]) for row, each in rows.items()]


TABLE = Table(
    name="addition",
    title="MNIST addition",
    source="Jaderberg et al. 2015, appendix A.1, Table 4",
    cells=tuple(_cells()),
    curves=True,
)
