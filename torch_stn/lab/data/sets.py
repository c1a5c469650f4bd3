"""A distorted set on a device: training batches by step, test batches by distortion, both functions of numbers
alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torch_stn.lab.data.digits import Digits
from torch_stn.lab.data.distortions import DISTORTIONS, distort
from torch_stn.lab.data.draws import batch_indices
from torch_stn.transforms.maps import Map

TEST_SEED = 2015  # of every distorted test set, whatever the run's seed
TEST_BATCH = 1000


class Batch(NamedTuple):
    """Distorted digits, their classes, which global samples they are, and how each was distorted."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1]
    labels: Tensor  # (B,) int64
    samples: Tensor  # (B,) int64, global sample numbers
    map: Map  # canvas -> digit


class DigitSet:
    """Training digits distorted afresh for every sample, test digits under fixed distortions, all on one device."""

    def __init__(self, digits: Digits, kind: str, seed: int, device: torch.device | str = "cpu") -> None:
        self.kind = kind
        self.seed = seed
        self.device = torch.device(device)
        self.dtype = torch.float32  # of the images; a network in another precision sets it
        self.train = torch.from_numpy(digits.train_images).to(device), torch.from_numpy(digits.train_labels).to(device)
        self.test = torch.from_numpy(digits.test_images).to(device), torch.from_numpy(digits.test_labels).to(device)
        self.name = DISTORTIONS[kind].name

    def training_batch(self, step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of a step; with several ranks the share of one, so that together they draw what one rank would."""
        share = batch_size // ranks
        first = step * batch_size + rank * share
        indices = batch_indices(self.seed, first, share, len(self.train[0]), self.device)
        samples = torch.arange(first, first + share, device=self.device)
        return self._batch(self.train, indices, samples, self.seed)

    def test_batch(self, distortion: int, indices: Tensor) -> Batch:
        """Test digits ``indices`` under the fixed distortion of that number."""
        indices = indices.to(self.device)
        return self._batch(self.test, indices, indices + distortion * len(self.test[0]), TEST_SEED)

    def test_batches(self, distortion: int) -> Iterator[Batch]:
        """All test digits under one distortion."""
        for indices in torch.arange(len(self.test[0])).split(TEST_BATCH):
            yield self.test_batch(distortion, indices)

    def dozen(self) -> Tensor:
        """Twelve test digits to look at: the first of every class, then the second of 2 and 4."""
        by_class = [torch.nonzero(self.test[1] == digit).flatten() for digit in range(10)]
        return torch.stack([*(of[0] for of in by_class), by_class[2][1], by_class[4][1]]).cpu()

    def _batch(self, digits: tuple[Tensor, Tensor], indices: Tensor, samples: Tensor, seed: int) -> Batch:
        images, drawn = distort(self.kind, digits[0], indices, samples, seed)
        return Batch(images.to(self.dtype), digits[1][indices], samples, drawn)
