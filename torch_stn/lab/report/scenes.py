"""The picture of co-localisation: scenes with the true frame and the transformer's box, before and after."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from safetensors.numpy import load_file

from torch_stn.lab.errors import UserError
from torch_stn.lab.report.files import write_whole

TRUE, FOUND = "#009E73", "#D55E00"  # Okabe and Ito
ROWS = (("before", "before"), ("boxes", "after"))


def scenes_picture(run: Path, digits: Sequence[int], destination: Path, each: int = 4) -> Path:
    """A PNG of the first ``each`` scenes of some digits of a co-localisation's run folder, above as the transformer
    started, below as it ended; the true frame is dashed.

    Raises: UserError where the run has not finished a digit.
    """
    columns = [(digit, index) for digit in digits for index in range(each)]
    figure = Figure(figsize=(1.05 * len(columns), 2.3), dpi=110, layout="constrained")
    axes = figure.subplots(len(ROWS), len(columns), squeeze=False)
    for place, (digit, index) in enumerate(columns):
        path = run / f"class-{digit}.safetensors"
        if not path.exists():
            raise UserError(f"{path}: no such file, the run has not finished digit {digit}")
        arrays = load_file(path)
        for row, (key, _) in enumerate(ROWS):
            _scene(axes[row][place], arrays["images"][index], arrays["frames"][index], arrays[key][index])
    for row, (_, word) in enumerate(ROWS):
        axes[row][0].set_ylabel(word)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return write_whole(destination, picture.getvalue())


def _scene(axes: Axes, image: np.ndarray, frame: np.ndarray, box: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    for (left, top, right, bottom), colour, dashes in ((frame, TRUE, "--"), (box, FOUND, "-")):
        corner = (float(left), float(top))
        axes.add_patch(
            Rectangle(corner, float(right - left), float(bottom - top), fill=False, ec=colour, ls=dashes, lw=1.6)
        )
    axes.set(xticks=[], yticks=[])
