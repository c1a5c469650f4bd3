"""The paper's Table 1: distorted MNIST, {FCN, CNN, BN-CNN, ST-FCN, ST-CNN} x {R, RTS, P, E}.

    stn reproduce table1                                     # every cell, three seeds
    stn train table1 model=st-fcn transform=affine data=r    # one network

Source: Jaderberg et al. 2015, section 4.1, Table 1, and appendix A.4. Networks, distortions and parameter budget are
the paper's; BN-CNN, which the paper has not, is the baseline that closes most of the gap. What we measured beside the
paper's numbers: docs/reproductions.md.
"""

from dataclasses import replace

from torch_stn.lab.cell import Table, grid
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="table1",
    model="st-cnn",
    transform="affine",
    data="rts",
    steps=30_000,
    learning_rate=1e-3,
    localization_rate=3.0,
    weight_decay=0.0,
)
ROWS = {
    "FCN": ("fcn", "affine"),  # a transform that only networks with a transformer look at
    "CNN": ("cnn", "affine"),
    "BN-CNN": ("bn-cnn", "affine"),
    "ST-FCN affine": ("st-fcn", "affine"),
    "ST-FCN projective": ("st-fcn", "projective"),
    "ST-FCN TPS": ("st-fcn", "tps"),
    "ST-CNN affine": ("st-cnn", "affine"),
    "ST-CNN projective": ("st-cnn", "projective"),
    "ST-CNN TPS": ("st-cnn", "tps"),
}
COLUMNS = {"R": "r", "RTS": "rts", "P": "p", "E": "e"}
PAPER: dict[str, tuple[float | None, ...]] = {
    "FCN": (2.1, 5.2, 3.1, 3.2),
    "CNN": (1.2, 0.8, 1.5, 1.4),
    "ST-FCN affine": (1.2, 0.8, 1.5, 2.7),
    "ST-FCN projective": (1.3, 0.9, 1.4, 2.6),
    "ST-FCN TPS": (1.1, 0.8, 1.4, 2.4),
    "ST-CNN affine": (0.7, 0.5, 0.8, 1.2),
    "ST-CNN projective": (0.8, 0.6, 0.8, 1.3),
    "ST-CNN TPS": (0.7, 0.5, 0.8, 1.1),
}
TABLE = Table(
    name="table1",
    title="Table 1: distorted MNIST",
    source="Jaderberg et al. 2015, section 4.1, Table 1",
    cells=grid(replace(CONFIG, digits="mnist", tensorboard=False), ROWS, COLUMNS, PAPER),
    recipes=("ours", "ours+", "paper"),
)
