"""Real photographs that come with the installation, to lay digits over: no download, no dependency of their own."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from torch_stn.lab.errors import UserError

# Two of scikit-learn, which mlxtend brings along, one of matplotlib; both packages are found, not imported.
PHOTOGRAPHS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
WIDTH, HEIGHT = 320, 214  # half of the first two: a crop of 64 pixels then holds more than a piece of one leaf


@lru_cache(maxsize=4)
def photographs(device: torch.device | str = "cpu") -> Tensor:
    """All of them, (3, 3, HEIGHT, WIDTH) uint8, cut to one shape around the middle.

    Raises: UserError naming the package or the file that is missing.
    """
    return torch.stack([_read(*each) for each in PHOTOGRAPHS]).to(device)


def _read(package: str, name: str) -> Tensor:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package}, whose photograph {name} is a background, is not installed")
    path = Path(spec.origin).parent / name
    if not path.is_file():
        raise UserError(f"{path}: no such file in the package {package}, wanted a photograph for backgrounds")
    with Image.open(path, formats=("JPEG",)) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)
