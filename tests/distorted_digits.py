"""Digits and their distortions as several tests want them."""

from functools import lru_cache

import torch

from torch_stn.lab.data.digits import load_digits
from torch_stn.lab.data.distortions import Distorted, distort

SEED = 2015
CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@lru_cache(maxsize=1)
def digits() -> torch.Tensor:
    """The 4,000 embedded training digits."""
    return torch.from_numpy(load_digits("embedded").train_images)


def drawn(kind: str, count: int, first: int = 0) -> Distorted:
    """The digits first ... first + count - 1, each under the distortion of its own number."""
    samples = torch.arange(first, first + count)
    return distort(kind, digits(), samples % len(digits()), samples, SEED)
