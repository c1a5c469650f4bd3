"""Birds (CUB-200-2011): several attention transformers side by side, each crop to a backbone of its own.

    stn reproduce birds
    stn train birds count=4 backbones=4

`data=PATH` names the published folder or the compact archive of 100 species; without it they are looked for in
$TORCH_STN_DATA/CUB_200_2011 and $TORCH_STN_DATA/cub100. Each cell has a twin: the same backbones behind windows that
stay where they start (`localization_rate=0`).
Source: Jaderberg et al. 2015, section 4.3, Table 3: windows of half the side that start tiled, one localisation net for
all, descriptors side by side. Ours are small backbones trained from nothing on 128 pixels a side, so none of the
paper's numbers stands beside them. On held-out training images (seed 0, 12 epochs) the mean over the last maps and the
paper's localisation net left nothing between the windows that move and those that do not (78.0 and 78.7 %); with the
places of the last maps kept, 67.5 % fixed, 65.8 % moved by that net, 61.3 % by the residual one. That collapses at
rate 1.
"""

from dataclasses import replace

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="birds",
    source="cub",
    data="",
    size=128,
    validation=0.0,
    flip=True,
    jitter=0.1,
    colour_jitter=0.3,
    model="resnet",
    transform="attention-half",
    count=2,
    backbones=2,
    looking="resnet",
    average=False,
    crop=64,
    norm="batch",
    steps=0,
    epochs=20.0,
    batch_size=32,
    learning_rate=2e-3,
    localization_rate=0.3,
    weight_decay=0.05,
    warmup=0.05,
)


def _cells() -> list[Cell]:
    cells = []
    base = replace(CONFIG, tensorboard=False)
    for count in (2, 4):
        config = replace(base, count=count, backbones=count)
        twin = f"{count}-windows-fixed"
        cells.append(Cell(twin, f"{count} x fixed windows", "birds", replace(config, localization_rate=0.0), None))
        cells.append(Cell(f"{count}xst", f"{count} x ST", "birds", config, None, against=twin))
    return cells


TABLE = Table(
    name="birds",
    title="Birds: several transformers side by side",
    source="After Jaderberg et al. 2015, section 4.3",
    cells=tuple(_cells()),
    recipes=("ours",),
)
