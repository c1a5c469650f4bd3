"""A few real digits and runs of a few steps: what the tests of the lab train on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from torch_stn.lab.config import Config, override
from torch_stn.lab.data.digits import Digits, load_digits
from torch_stn.lab.recorder import Watch
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import start
from torch_stn.lab.train import train

TRAIN, TEST = 24, 6  # of each class
CONFIG = Config(
    experiment="tiny",
    digits="embedded",
    data="r",
    model="fcn",
    width=8,
    steps=6,
    batch_size=8,
    log_every=1,
    checkpoint_every=2,
    evaluations=3,
    test_distortions=2,
    tensorboard=False,
    accelerator="cpu",
)
WORDS = [  # the same for the command line
    "digits=embedded", "data=r", "model=fcn", "width=8", "steps=6", "batch_size=8", "log_every=1", "checkpoint_every=2",
    "evaluations=3", "test_distortions=2", "tensorboard=false", "accelerator=cpu",
]  # fmt: skip


class KilledError(BaseException):
    """As if the process ended here: no `except Exception` catches it."""


@lru_cache(maxsize=1)
def tiny_digits() -> Digits:
    """The first 24 training and 6 test digits of each class of the embedded ones."""
    digits = load_digits("embedded")
    train, test = (
        np.sort(np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(10)]))
        for labels, count in ((digits.train_labels, TRAIN), (digits.test_labels, TEST))
    )
    return Digits(
        digits.train_images[train],
        digits.train_labels[train],
        digits.test_images[test],
        digits.test_labels[test],
        name="300 digits",
        source=digits.source,
    )


def tiny_config(*words: str) -> Config:
    """CONFIG with `key=value` words applied."""
    return override(CONFIG, words)


def tiny_train(path: Path, *words: str, kill_at: int | None = None) -> RunFolder:
    """A run of CONFIG, to its end or to the first row of metrics at the step ``kill_at``."""
    return go_on(start(tiny_config(*words), path), kill_at=kill_at)


def go_on(folder: RunFolder, *, kill_at: int | None = None) -> RunFolder:
    """Train from wherever the run stands."""
    train(folder, tiny_digits(), killer(kill_at))
    return folder


def killer(step: int | None) -> Watch:
    """A watcher that ends the run at its first row of a step."""

    def watch(row: Mapping[str, Any]) -> None:
        if step is not None and row["step"] >= step:
            raise KilledError

    return watch


def weights(folder: RunFolder) -> bytes:
    """The last checkpoint's weights, as they lie on the disk."""
    return (folder.checkpoints()[-1] / "model.safetensors").read_bytes()
