"""Co-localisation: from 100 pictures of one unknown class, without labels or boxes, find what they share.

    stn reproduce colocalization

Ten optimisations, one a class. A digit is found where the transformer's box and the 28 x 28 frame in which it was
placed have an intersection over union above 0.5. Source: Jaderberg et al. 2015, appendix A.2, Table 5; its TC numbers
by class (81 82 88 75 94 84 93 85 89 87, mean 85.8) are from memory, T is 100 throughout. Measured:
docs/reproductions.md.
"""

from dataclasses import replace

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

BASE = Config(
    experiment="colocalization",
    digits="mnist",
    model="st-cnn",
    transform="attention",
    steps=900,  # of each class
    batch_size=50,
    learning_rate=6e-3,
    weight_decay=0.0,
    warmup=0.06,
    tensorboard=False,
)
PAPER = {"t": ("T", 100.0), "tc": ("TC", 85.8)}


def _cell(name: str) -> Cell:
    column, paper = PAPER[name]
    return Cell(name, "ST attention", column, replace(BASE, data=f"{name}84"), paper)


TABLE = Table(
    name="colocalization",
    title="Co-localisation",
    source="Jaderberg et al. 2015, appendix A.2, Table 5, mean of ten classes",
    cells=tuple(_cell(name) for name in PAPER),
    measure="localised",
    unit="found %",
    larger_is_better=True,
    run="torch_stn.lab.colocalization.run",
)
