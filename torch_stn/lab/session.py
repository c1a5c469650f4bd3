"""What the commands do: train a run and evaluate it, make the demo. The command line only parses and prints."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch_stn.lab import models
from torch_stn.lab.config import Config
from torch_stn.lab.console import say, watching
from torch_stn.lab.data.digits import Digits, load_digits
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.run_folder import RunFolder, environment
from torch_stn.lab.train import launch, progress, step_limit, train

FULL = 60_000  # training digits of MNIST


def run_name(config: Config) -> str:
    """``table1-rts-st-cnn-affine-seed0``."""
    label = models.label(config).lower().replace(" ", "-")
    return f"{config.experiment}-{config.data}-{label}-seed{config.seed}"


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with -2, -3, ... where that holds a run already."""
    for number in range(1, 10_000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not (folder / "config.json").exists():
            return folder
    raise AssertionError("ten thousand runs of one name")


def find_digits(config: Config) -> tuple[Config, Digits]:
    """The digits of a run, and its config with "auto" replaced by what was found: a resumed run must find the same."""
    digits = load_digits(config.digits, notice=say)
    found = "embedded" if len(digits.train_images) < FULL else "mnist"
    return replace(config, digits=found), digits


def check_can_run(config: Config) -> None:
    """Build the network and launch Fabric: what costs nothing and may be refused, before data are looked for."""
    models.build(config)
    launch(config)


def start(config: Config, path: Path) -> RunFolder:
    """A new run folder; the network is built once, so that a config that cannot work says so before anything is
    written.
    """
    models.build(config)
    return RunFolder.create(path, config, environment(str(launch(config).device)))


def train_and_evaluate(folder: RunFolder, digits: Digits | None = None) -> Mapping[str, Any]:
    """Train a run to its end, from wherever it stands, and evaluate it."""
    config = folder.config()
    if digits is None:
        digits = load_digits(config.digits, notice=say)
    limit = step_limit(config, len(digits.train_images))
    with watching(models.label(config), lambda row: progress(config, limit, row["step"], row["seconds"])) as watch:
        train(folder, digits, watch)
    return evaluate(folder, launch(config).device, digits)
