"""What the commands do: train a run and evaluate it, make the demo. The command line only parses and prints."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from torch_stn.lab import models
from torch_stn.lab.config import Config
from torch_stn.lab.console import say, watching
from torch_stn.lab.data.load import Source, facts_for, load
from torch_stn.lab.data.photos import Photos
from torch_stn.lab.data.places import is_url
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.models.backbones import load_weights
from torch_stn.lab.processes import (
    counts,
    in_step,
    launch,
    losses_told,
    refuse_different,
    refuse_unshared,
)
from torch_stn.lab.run_folder import RunFolder, environment
from torch_stn.lab.train import progress, step_limit, train

FULL = 60_000  # training digits of MNIST


def run_name(config: Config) -> str:
    """``table1-rts-st-cnn-affine-seed0``."""
    label = models.label(config).lower().replace(" ", "-")
    data = config.data
    if config.photos:
        name = Path(data).expanduser().absolute().name if data else config.source
        data = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:40] or "images"
    return f"{config.experiment}-{data}-{label}-seed{config.seed}"


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with -2, -3, ... where that holds a run already."""
    for number in range(1, 10_000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not (folder / "config.json").exists():
            return folder
    raise AssertionError("ten thousand runs of one name")


def prepare(config: Config) -> tuple[Fabric, Config, Source]:
    """Everything that may be refused before a run folder exists: the network, the device, the data.

    The config comes back with what was found in the place of digits=auto and of a relative path: a resumed run must
    find the same.
    """
    if config.weights:
        config = replace(config, weights=str(Path(config.weights).expanduser().absolute()))
    if not config.photos:
        models.build(config)
    fabric = launch(config)
    devices, nodes = counts(config)
    config = replace(config, devices=devices, nodes=nodes)  # of torchrun, which the words need not repeat
    with losses_told(None, fabric):
        source = in_step(fabric, lambda: load(config, notice=say if fabric.is_global_zero else _silent))
    if isinstance(source, Photos):
        load_weights(models.build(config, facts_for(source, config)), config)
        # {a,b}/train.tar stands for several paths, and is kept as it is, as a URL is.
        given = config.data and not config.data.startswith("{") and not is_url(config.data)
        where = str(Path(config.data).expanduser().absolute()) if given else config.data
        return fabric, replace(config, data=where), source
    found = "embedded" if len(source.train_images) < FULL else "mnist"
    return fabric, replace(config, digits=found), source


def start(config: Config, path: Path, fabric: Fabric | None = None, source: Source | None = None) -> RunFolder:
    """A new run folder, made by the first process. What cannot work says so before anything is written.

    ``source`` may be left out for digits, of which the config says all that the folder must know.
    """
    if config.photos and not isinstance(source, Photos):
        raise UserError("data: wanted the images of the folder, which a run's record describes; got none")
    models.build(config, None if source is None else facts_for(source, config))
    fabric = fabric or launch(config)
    with losses_told(None, fabric):
        refuse_different(fabric, config)
        path = Path(fabric.broadcast(str(path)))
        in_step(fabric, RunFolder(path).refuse_existing)
        if config.threads and fabric.is_global_zero:
            torch.set_num_threads(config.threads)  # the record of the machine says it
        machine = environment(str(fabric.device))
        in_step(fabric, lambda: RunFolder.create(path, config, machine, source) if fabric.is_global_zero else None)
        refuse_unshared(fabric, path)
    return RunFolder.open(path)


def train_and_evaluate(
    folder: RunFolder, source: Source | None = None, fabric: Fabric | None = None, deadline: float = math.inf
) -> Mapping[str, Any] | None:
    """Train a run to its end, from wherever it stands, and evaluate it; None in all processes but the first.

    Raises: Interrupted, after Ctrl-C or where training passes the ``deadline`` of time.monotonic().
    """
    config = folder.config()
    resumed = fabric is None
    fabric = fabric or launch(config)
    with losses_told(folder, fabric):
        if resumed:
            refuse_unshared(fabric, folder.path)
        if source is None:
            notice = say if fabric.is_global_zero else _silent
            source = in_step(fabric, lambda: load(config, notice=notice, run=folder.path))
        in_step(fabric, partial(folder.refuse_other, source))
        if not fabric.is_global_zero:
            train(folder, source, fabric=fabric, deadline=deadline)
            return None
        limit = step_limit(config, len(source.train_labels))
        with watching(models.label(config), lambda row: progress(config, limit, row["step"], row["seconds"])) as watch:
            train(folder, source, watch, fabric, deadline)
    return evaluate(folder, fabric.device, source)


def _silent(line: str) -> None:
    """What the other processes say: nothing, the first says it."""
