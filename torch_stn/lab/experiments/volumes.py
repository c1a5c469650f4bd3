"""3-D: an extruded digit, turned and placed at random in 60 x 60 x 60 voxels; a transformer of space learns the view.

    stn reproduce volumes
    stn train volumes model=cnn

The volume that the transformer writes is summed over depth to a picture for an ordinary CNN. Its twin, with as many
parameters and steps, sums over depth at once. Source: Jaderberg et al. 2015, appendix A.3, a demonstration without an
error rate, network or training; all three are ours. Measured: docs/reproductions.md.
"""

from dataclasses import replace

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config

CONFIG = Config(
    experiment="volumes",
    data="volumes",
    model="st-cnn",
    transform="affine",
    looking="resnet",
    iterations=2,  # the first look finds the digit, the second sees it in the middle and can tell how it is turned
    steps=3500,
    batch_size=32,
    learning_rate=2e-3,
    localization_rate=0.3,
    weight_decay=0.0,
    warmup=0.05,
    test_distortions=1,
    evaluations=6,
)
ROWS = {"st-cnn": "ST-CNN affine, two looks", "cnn": "CNN"}


def _cell(model: str) -> Cell:
    config = replace(CONFIG, digits="mnist", model=model, tensorboard=False)
    return Cell(model, ROWS[model], "60 x 60 x 60", config, None, against="" if model == "cnn" else "cnn")


TABLE = Table(
    name="volumes",
    title="Extruded digits in 3-D",
    source="Jaderberg et al. 2015, appendix A.3, which gives no number",
    cells=tuple(_cell(model) for model in ROWS),
)
