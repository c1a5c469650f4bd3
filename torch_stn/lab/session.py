"""What the commands do: train a run and evaluate it, make the demo. The command line only parses and prints."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

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


def prepare(config: Config) -> tuple[Fabric, Config, Digits]:
    """Everything that may be refused before a run folder exists: the network, the device, the digits.

    The config comes back with digits=auto replaced by what was found: a resumed run must find the same.
    """
    models.build(config)
    fabric = launch(config)
    digits = load_digits(config.digits, notice=say if fabric.is_global_zero else _silent)
    found = "embedded" if len(digits.train_images) < FULL else "mnist"
    return fabric, replace(config, digits=found), digits


def start(config: Config, path: Path, fabric: Fabric | None = None) -> RunFolder:
    """A new run folder, made by the first process. What cannot work says so before anything is written."""
    models.build(config)
    fabric = fabric or launch(config)
    path = Path(fabric.broadcast(str(path)))
    RunFolder(path).refuse_existing()
    fabric.barrier()
    if fabric.is_global_zero:
        RunFolder.create(path, config, environment(str(fabric.device)))
    fabric.barrier()
    return RunFolder.open(path)


def train_and_evaluate(
    folder: RunFolder, digits: Digits | None = None, fabric: Fabric | None = None
) -> Mapping[str, Any] | None:
    """Train a run to its end, from wherever it stands, and evaluate it; None in all processes but the first."""
    config = folder.config()
    fabric = fabric or launch(config)
    if digits is None:
        digits = load_digits(config.digits, notice=say if fabric.is_global_zero else _silent)
    if not fabric.is_global_zero:
        train(folder, digits, fabric=fabric)
        return None
    limit = step_limit(config, len(digits.train_images))
    with watching(models.label(config), lambda row: progress(config, limit, row["step"], row["seconds"])) as watch:
        train(folder, digits, watch, fabric)
    return evaluate(folder, fabric.device, digits)


def _silent(line: str) -> None:
    """What the other processes say: nothing, the first says it."""
