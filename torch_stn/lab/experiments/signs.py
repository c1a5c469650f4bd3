"""Traffic signs (GTSRB), judged by the complete official test set, as it is and perturbed.

    stn reproduce signs
    stn train signs

`validation=0.2` judges by tracks of the training set instead, which is where settings are to be chosen. `data=PATH`
names the published folders or the archive; without it they are looked for in $TORCH_STN_DATA/gtsrb. A twin without a
transformer has no fewer parameters.
Source: Stallkamp et al. 2012, "Man vs. computer"; the perturbation, drawn afresh for each training image and thrice
for each test image, the transformer that looks several times, and the two networks that carry their name: Lin and Lucey
2017. The other networks, and all training, are ours.
"""

from dataclasses import replace
from typing import Any

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="signs",
    source="gtsrb",
    data="",
    size=32,
    validation=0.0,
    together="_",  # frames of one track
    colour_jitter=0.5,
    model="resnet",
    standardize=True,  # dusk and glare
    norm="batch",
    steps=0,
    epochs=60.0,
    batch_size=128,
    learning_rate=2e-3,
    localization_rate=0.3,
    weight_decay=0.05,
    warmup=0.05,
    test_distortions=1,
)
# Widths of the twin give it the parameters of the largest net beside it, or a few more.
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet": {"transform": "none", "width": 33},
    "ST": {"transform": "affine"},
    "ResNet, wider": {"transform": "none", "width": 36},
    "2 STs in a row": {"transform": "affine", "series": 2},
    "ST projective": {"transform": "projective", "looking": "resnet"},
    "IC-ST projective, two looks": {"transform": "projective", "looking": "resnet", "iterations": 2},
    # Too small to learn by heart; they read 36 pixels a side.
    "CNN of Lin and Lucey": {
        **{"transform": "none", "backbone": "lin-lucey-cnn", "size": 36, "norm": "group", "weight_decay": 1e-4},
    },
    # Steps of four looks take five to six times as long.
    "CNN of Lin and Lucey, as many seconds": {
        **{"transform": "none", "backbone": "lin-lucey-cnn", "size": 36, "norm": "group", "weight_decay": 1e-4},
        "epochs": 330.0,
    },
    "IC-ST of Lin and Lucey, four looks": {
        **{"transform": "projective", "backbone": "lin-lucey", "looking": "lin-lucey", "iterations": 4},
        **{"size": 36, "norm": "group", "weight_decay": 1e-4, "localization_rate": 0.02},
    },
}
COLUMNS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {  # set -> its config; row -> its twin
    "official test": (
        # A sign fills the picture: its parts have their places.
        {"average": False, "dropout": 0.3, "epochs": 160.0},
        {"ResNet": "", "ST": "ResNet", "ResNet, wider": "", "2 STs in a row": "ResNet, wider"},
    ),
    "perturbed": (
        # Here a net without a transformer does better with the mean over the picture, which is blind to shifts.
        {"perturb": 0.25, "test_distortions": 3, "localization_rate": 0.5},
        {
            "ResNet, wider": "",
            "ST projective": "ResNet, wider",
            "IC-ST projective, two looks": "ResNet, wider",
            "CNN of Lin and Lucey": "",
            "IC-ST of Lin and Lucey, four looks": "CNN of Lin and Lucey",
            "CNN of Lin and Lucey, as many seconds": "",
        },
    ),
}


def _cells() -> list[Cell]:
    base = replace(CONFIG, tensorboard=False)
    cells = []
    for column, (data, rows) in COLUMNS.items():
        for row, twin in rows.items():
            config = replace(base, **{**data, **NETWORKS[row]})
            cells.append(Cell(_name(column, row), row, column, config, None, against=twin and _name(column, twin)))
    return cells


def _name(column: str, row: str) -> str:
    return f"{column} {row}".lower().replace(",", "").replace(" ", "-")


TABLE = Table(
    name="signs",
    title="Traffic signs",
    source="GTSRB, Stallkamp et al. 2012; perturbed as Lin and Lucey 2017",
    cells=tuple(_cells()),
    recipes=("ours",),
)
