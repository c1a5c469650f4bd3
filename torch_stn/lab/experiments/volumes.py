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
    steps=2000,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.0,
    warmup=0.05,
    test_distortions=1,
    evaluations=6,
)
ROWS = {"st-cnn": "ST-CNN affine", "cnn": "CNN"}
TABLE = Table(
    name="volumes",
    title="Extruded digits in 3-D",
    source="Jaderberg et al. 2015, appendix A.3, which gives no number",
    cells=tuple(
        Cell(model, row, "60 x 60 x 60", replace(CONFIG, digits="mnist", model=model, tensorboard=False), None)
        for model, row in ROWS.items()
    ),
)
