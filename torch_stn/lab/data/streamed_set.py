"""Training images read from shards as they are needed: no pixels are held but those of the next batches.

Each image is found by its place in the index, with a seek, so that the order is the true shuffle of
:func:`~torch_stn.lab.data.draws.batch_indices`, a function of (seed, step): a resumed run repeats an unbroken one bit
by bit, and ranks read disjoint images of one batch. Streaming a shard front to back through a shuffle buffer would save
the seek, and lose all three: what lies in a buffer depends on everything that was read before.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from torch_stn.lab.config import Config
from torch_stn.lab.data.photo_set import PhotoSet
from torch_stn.lab.data.photos import Photos
from torch_stn.lab.data.sets import Batch
from torch_stn.lab.data.stored import Array, Stored

AHEAD = 2  # batches that are read while one is trained on


class StreamedSet(PhotoSet):
    """The same batches as a PhotoSet of these images gives, bit by bit."""

    def __init__(self, photos: Photos, stored: Stored, config: Config, device: torch.device | str = "cpu") -> None:
        super().__init__(photos, config, device)
        self.stored = stored
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[tuple[int, ...], list[Future[Array]]] = {}  # by (step, batch size, rank, ranks)
        self._now: tuple[int, ...] = ()

    def training_batch(self, step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of a step; those of the next steps are read meanwhile."""
        wanted = [(each, batch_size, rank, ranks) for each in range(step, step + 1 + AHEAD)]
        for key in [key for key in self._coming if key not in wanted]:  # the run went elsewhere
            for future in self._coming.pop(key):
                future.cancel()
        for key in wanted:
            if key not in self._coming:
                _, indices = self.places(*key)
                self._coming[key] = [self._threads().submit(self.stored.read, index) for index in indices.tolist()]
        self._now = wanted[0]
        return super().training_batch(step, batch_size, rank, ranks)

    def pixels(self, indices: Tensor) -> Tensor:
        """The images of the step that was asked for."""
        images = np.stack([future.result() for future in self._coming.pop(self._now)])
        return torch.from_numpy(images).to(self.device)

    def _threads(self) -> ThreadPoolExecutor:
        """Started by the first batch: an evaluation needs none. Pillow lets go of Python's lock while it decodes."""
        if self._pool is None:
            # Each file was decoded once, under alarm, when it was indexed; what Pillow remarks on it is known.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            self._pool = ThreadPoolExecutor(self.config.threads or os.cpu_count() or 1, "stn-shards")
        return self._pool
