"""A folder's images on a device: training batches by step, validation batches by distortion."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from torch_stn.lab.config import Config
from torch_stn.lab.data.augment import augment
from torch_stn.lab.data.draws import batch_indices, draw_bits, integers
from torch_stn.lab.data.facts import Facts, counted_facts
from torch_stn.lab.data.photos import Photos
from torch_stn.lab.data.sets import TEST_SEED, Batch, PosedBatch

CLASS_STREAM, MEMBER_STREAM = 45, 46  # of balanced draws
TEST_BATCH_PIXELS = 1 << 20
DOZEN = 12


class PhotoSet:
    """Training images augmented afresh for every sample, validation images as they are or under fixed perturbations,
    all on one device.
    """

    def __init__(self, photos: Photos, config: Config, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.seed = config.seed
        self.device = torch.device(device)
        self.dtype = torch.float32  # of the images; a network in another precision sets it
        self.name = f"{photos.name}, perturbed" if config.perturb else photos.name
        self.train = torch.from_numpy(photos.train_images).to(device), torch.from_numpy(photos.train_labels).to(device)
        self.test = torch.from_numpy(photos.test_images).to(device), torch.from_numpy(photos.test_labels).to(device)
        self.facts = facts_of(photos)
        first = _first(self.train[1])
        counts = torch.bincount(first, minlength=len(photos.classes))
        self.by_class = first.argsort(stable=True), counts, counts.cumsum(0) - counts
        # Mean 1 over the training images, so that the learning rate means the same.
        weights = len(first) / (len(counts) * counts.clamp(min=1))
        self.class_weights: Tensor | None = weights.float() if config.balance == "weights" else None

    def training_batch(self, step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of a step; with several ranks the share of one, so that together they draw what one rank would."""
        samples, indices = self.places(step, batch_size, rank, ranks)
        images = augment(
            self._unit(self.pixels(indices)),
            samples,
            self.seed,
            jitter=self.config.jitter,
            flip=self.config.flip,
            colour=self.config.colour_jitter,
            corners=self.config.perturb,
        )
        return Batch(images, self.train[1][indices], samples, indices)

    def places(self, step: int, batch_size: int, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
        """The numbers of a step's samples, and which training images they are."""
        share = batch_size // ranks
        first = step * batch_size + rank * share
        samples = torch.arange(first, first + share, device=self.device)
        return samples, self._balanced(samples) if self.config.balance == "draws" else self._in_turn(first, share)

    def pixels(self, indices: Tensor) -> Tensor:
        """Training images, (B, S, S, C) uint8."""
        return self.train[0][indices]

    def test_batch(self, distortion: int, indices: Tensor) -> PosedBatch:
        """Validation images ``indices`` as they are, or under one of the fixed perturbations."""
        indices = indices.to(self.device)
        samples = indices + distortion * len(self.test[0])
        images = augment(self._unit(self.test[0][indices]), samples, TEST_SEED, corners=self.config.perturb)
        return PosedBatch(images, self.test[1][indices], samples, None)

    def test_batches(self, distortion: int) -> Iterator[PosedBatch]:
        """All validation images."""
        at_once = max(1, TEST_BATCH_PIXELS // (self.facts.height * self.facts.width))
        for indices in torch.arange(len(self.test[0])).split(at_once):
            yield self.test_batch(distortion, indices)

    @property
    def distorted(self) -> bool:
        """Whether a second distortion of the validation images would be another one."""
        return self.config.perturb > 0

    def dozen(self) -> Tensor:
        """At most twelve validation images to look at: the first of each class, then the second, and so on."""
        labels = _first(self.test[1]).cpu()
        place = torch.zeros_like(labels)
        for label in labels.unique():
            place[labels == label] = torch.arange(int((labels == label).sum()))
        order = (place * len(self.facts.classes) + labels).argsort(stable=True)
        return order[:DOZEN]

    def _in_turn(self, first: int, count: int) -> Tensor:
        return batch_indices(self.seed, first, count, len(self.train[1]), self.device)

    def _balanced(self, samples: Tensor) -> Tensor:
        """A class drawn evenly, then one of its images, evenly too."""
        order, counts, starts = self.by_class
        label = integers(self.seed, samples, CLASS_STREAM, 1, len(counts))[:, 0]
        bits = draw_bits(self.seed, samples, MEMBER_STREAM, 1)[:, 0] >> 33 & ((1 << 31) - 1)
        return order[starts[label] + (bits * counts[label] >> 31)]

    def _unit(self, pixels: Tensor) -> Tensor:
        """(B, S, S, C) bytes as (B, C, S, S) in [0, 1]."""
        return pixels.permute(0, 3, 1, 2).to(self.dtype).div_(255).contiguous()


def _first(labels: Tensor) -> Tensor:
    """The label that an image is sorted by: of several heads, (n, heads), that of the first."""
    return labels[:, 0] if labels.dim() > 1 else labels


def facts_of(photos: Photos) -> Facts:
    """Shape, classes, and the mean and deviation of the training pixels: from sums of whole numbers, so exact."""
    if photos.facts is not None:
        return photos.facts
    pixels = torch.from_numpy(photos.train_images)
    # Counted by value: exact, and no copy of the images in float.
    histograms = [torch.bincount(pixels[..., c].flatten(), minlength=256) for c in range(pixels.shape[3])]
    heads = photos.train_labels.shape[1] if photos.train_labels.ndim > 1 else 1
    return counted_facts(torch.stack(histograms), pixels.shape[1], photos.classes, heads)
