"""A distorted set on a device: training batches by step, test batches by distortion, both functions of numbers
alone.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torch_stn.lab.data.digits import Digits
from torch_stn.lab.data.draws import batch_indices
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.kinds import KINDS, Drawn
from torch_stn.transforms.maps import Map

TEST_SEED = 2015  # of every distorted test set, whatever the run's seed
TEST_BATCH = 1000
DRAWN_AT_ONCE = 512  # training samples: a batch of 64 costs a CPU hardly less to draw than one of 512
PIXELS_AT_ONCE = 1 << 24  # at most, of volumes and large pictures


class Batch(NamedTuple):
    """Pictures to train on, their classes, and which global samples they are."""

    images: Tensor  # (B, C, S, S) float32 in [0, 1], of volumes (B, C, D, H, W)
    labels: Tensor  # (B,) int64, with several heads (B, heads)
    samples: Tensor  # (B,) int64, global sample numbers
    indices: Tensor  # (B,) int64, which training digits


class PosedBatch(NamedTuple):
    """A batch, and how each digit was distorted."""

    images: Tensor
    labels: Tensor
    samples: Tensor
    map: Map | None  # canvas -> digit; None where nobody knows it


class DigitSet:
    """Training digits distorted afresh for every sample, test digits under fixed distortions, all on one device."""

    def __init__(self, digits: Digits, kind: str, seed: int, device: torch.device | str = "cpu") -> None:
        self.kind = kind
        self.seed = seed
        self.device = torch.device(device)
        self.dtype = torch.float32  # of the images; a network in another precision sets it
        self.train = torch.from_numpy(digits.train_images).to(device), torch.from_numpy(digits.train_labels).to(device)
        self.test = torch.from_numpy(digits.test_images).to(device), torch.from_numpy(digits.test_labels).to(device)
        self.name = KINDS[kind].name
        self.facts = digit_facts(kind)
        self.posed = KINDS[kind].posed
        self.distorted = kind != "plain"  # whether a second distortion of the test digits would be another one
        self.class_weights: Tensor | None = None  # of the loss
        self._drawn: tuple[object, ...] = ()  # which batches lie ready
        self._batches: list[Batch] = []

    def training_batch(self, step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of a step; with several ranks the share of one, so that together they draw what one rank would."""
        at_once = max(1, self._at_once(DRAWN_AT_ONCE) * ranks // batch_size)
        group, place = divmod(step, at_once)
        drawn = (group, batch_size, rank, ranks, self.dtype)
        if drawn != self._drawn:
            self._batches = self._draw(group * at_once, at_once, batch_size, rank, ranks)
            self._drawn = drawn
        return self._batches[place]

    def _draw(self, step: int, count: int, batch_size: int, rank: int, ranks: int) -> list[Batch]:
        """The batches of the steps step ... step + count - 1."""
        first, total = step * batch_size, count * batch_size
        indices = batch_indices(self.seed, first, total, len(self.train[0]), self.device)
        samples = torch.arange(first, first + total, device=self.device)
        share = batch_size // ranks
        mine = slice(rank * share, (rank + 1) * share)
        indices, samples = (each.view(count, batch_size)[:, mine].flatten() for each in (indices, samples))
        images, labels, _ = self._pictures(self.train, indices, samples, self.seed)
        parts = (images.to(self.dtype), labels, samples, indices)
        return [Batch(*each) for each in zip(*(part.split(share) for part in parts), strict=True)]

    def training_map(self, batch: Batch) -> Map:
        """How a training batch of a posed set was distorted, canvas -> digit: drawn again, since few steps ask."""
        found = self._pictures(self.train, batch.indices, batch.samples, self.seed).map
        assert found is not None  # posed
        return found

    def test_batch(self, distortion: int, indices: Tensor) -> PosedBatch:
        """Test digits ``indices`` under the fixed distortion of that number."""
        indices = indices.to(self.device)
        samples = indices + distortion * len(self.test[0])
        images, labels, drawn = self._pictures(self.test, indices, samples, TEST_SEED)
        return PosedBatch(images.to(self.dtype), labels, samples, drawn)

    def test_batches(self, distortion: int) -> Iterator[PosedBatch]:
        """All test digits under one distortion."""
        for indices in torch.arange(len(self.test[0])).split(self._at_once(TEST_BATCH)):
            yield self.test_batch(distortion, indices)

    def dozen(self) -> Tensor:
        """Twelve test digits to look at: the first of every class, then the second of 2 and 4."""
        by_class = [torch.nonzero(self.test[1] == digit).flatten() for digit in range(10)]
        return torch.stack([*(of[0] for of in by_class), by_class[2][1], by_class[4][1]]).cpu()

    def _pictures(self, digits: tuple[Tensor, Tensor], indices: Tensor, samples: Tensor, seed: int) -> Drawn:
        return KINDS[self.kind].draw(*digits, indices, samples, seed)

    def _at_once(self, most: int) -> int:
        """How many pictures are held together."""
        return max(1, min(most, PIXELS_AT_ONCE // math.prod(self.facts.shape)))


def digit_facts(kind: str) -> Facts:
    """What a network must know of a set."""
    return KINDS[kind].facts
