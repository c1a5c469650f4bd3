"""Whole house numbers, one to five digits at once: CNN, ST-CNN Single and ST-CNN Multi at 64 and at 128 pixels.

    stn reproduce numbers
    stn train numbers model=st-number-cnn-multi data=strings-128
    stn train numbers source=svhn size=64 data=PATH

Digit strings (MNIST over photographs) run anywhere; SVHN's format 1 has to be fetched: train/, test/ and extra/ in
$TORCH_STN_DATA/svhn. Quarter width, a quarter of the filters and units, is for machines without a GPU.
Source: Jaderberg et al. 2015, section 4.2, Table 2, and appendix A.5. `dropout=0.5` is the paper's, none is ours: drawn
strings do not repeat.
"""

from dataclasses import replace
from typing import Any

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="numbers",
    data="strings-128",
    model="st-number-cnn",
    validation=0.0,
    jitter=0.0,
    colour_jitter=0.0,
    scale=0.25,
    steps=30_000,
    batch_size=16,
    # At 1 and without clip, transformers left the image for good within 400 steps, Single's and Multi's alike.
    localization_rate=0.3,
    clip=1.0,
    label_smoothing=0.0,
    warmup=0.05,
    test_distortions=1,
)
NETWORKS = {"CNN": "number-cnn", "ST-CNN Single": "st-number-cnn", "ST-CNN Multi": "st-number-cnn-multi"}
WIDTHS = {"full width": 1.0, "quarter width": 0.25}
SETS: dict[str, dict[str, Any]] = {
    "strings 64 px": {"data": "strings-64"},
    "strings 128 px": {"data": "strings-128"},
    "SVHN 64 px": {"source": "svhn", "data": "", "size": 64},
    "SVHN 128 px": {"source": "svhn", "data": "", "size": 128},
}
PAPER = {
    "CNN": {"SVHN 64 px": 4.0, "SVHN 128 px": 5.6},
    "ST-CNN Single": {"SVHN 64 px": 3.7, "SVHN 128 px": 3.9},
    "ST-CNN Multi": {"SVHN 64 px": 3.6, "SVHN 128 px": 3.9},
}


def _cells() -> list[Cell]:
    base = replace(CONFIG, digits="mnist", tensorboard=False)
    cells = []
    for width, scale in WIDTHS.items():
        for network, model in NETWORKS.items():
            for column, data in SETS.items():
                row = f"{network}, {width}"
                name = f"{column} {row}".lower().replace(",", "").replace(" ", "-")
                # The paper's numbers are those of its own width.
                paper = PAPER[network].get(column) if scale == 1 else None
                needs = "SVHN" if "source" in data else ""
                config = replace(base, model=model, scale=scale, **data)
                cells.append(Cell(name, row, column, config, paper, needs))
    # Not in the paper: the first transformer reads 128 pixels a side and writes 64, which saves most of the work.
    for width, scale in WIDTHS.items():
        for network in ("ST-CNN Single", "ST-CNN Multi"):
            row, column = f"{network} 128 to 64 px, {width}", "strings 128 px"
            name = f"{column} {row}".lower().replace(",", "").replace(" ", "-")
            config = replace(base, model=NETWORKS[network], scale=scale, crop=64)
            cells.append(Cell(name, row, column, config, None))
    return cells


TABLE = Table(
    name="numbers",
    title="House numbers, whole sequences",
    source="Jaderberg et al. 2015, section 4.2, Table 2",
    cells=tuple(_cells()),
    unit="whole-sequence error %",
)
