"""The processes of a run, on one machine or several: how they start, that they mean the same run, and what is said when
one of them is lost. Only the first, process 0, writes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.launchers import subprocess_script
from lightning_fabric.utilities.exceptions import MisconfigurationException

from torch_stn.lab.config import Config
from torch_stn.lab.console import say
from torch_stn.lab.errors import LostProcessError, UserError
from torch_stn.lab.run_folder import RunFolder

PORT = "29500"  # at MASTER_ADDR, where nothing else is said; torchrun's too
NEEDED = {"MASTER_ADDR": "the address of machine 0", "NODE_RANK": "which machine this is, from 0"}
PARENT = "TORCH_STN_PARENT"  # the process that started this one
LOOK = 0.2  # seconds between two looks at the other processes of this machine
GRACE = 5.0  # seconds for the training itself to notice a lost process, and to say it better
UNSEEN = 30.0  # seconds that a network file system may take to show a new file
BROKEN = ("gloo", "nccl", "connection", "peer", "broken pipe", "tcpstore")  # an exchange whose other end is gone

_told = threading.Event()  # this process has said why it ends
_trained = threading.Event()  # the others may end as they like


def launch(config: Config) -> Fabric:
    """Fabric, launched: device, precision and processes.

    Under torchrun its environment says how many; SLURM, LSF and MPI are Fabric's affair. Several machines without any
    of them need MASTER_ADDR and NODE_RANK in the environment, and the same command on each.
    Raises: UserError, before any process is started, for a variable that is missing and for devices that are not there.
    """
    devices, nodes = counts(config)
    cores = os.cpu_count() or 1
    if devices > cores and (config.accelerator == "cpu" or not torch.cuda.is_available()):
        raise UserError(f"devices: wanted at most the {cores} cores of this machine, got {devices}")
    _trained.clear()
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=config.precision,  # type: ignore[arg-type]
        )
        if nodes > 1 and isinstance(getattr(fabric.strategy, "cluster_environment", None), LightningEnvironment):
            _meet(nodes)
        with _watched():
            fabric.launch()
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        what = "MASTER_ADDR, MASTER_PORT, devices, nodes" if nodes > 1 else "accelerator, devices"
        raise UserError(f"{what} or precision: {line}") from None
    return fabric


def counts(config: Config) -> tuple[int, int]:
    """Processes on this machine, and machines: the config's, or torchrun's, which the config may not contradict."""
    if not (torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()):
        return config.devices, config.nodes
    world, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if config.devices * config.nodes not in (1, world):
        got = f"devices={config.devices} nodes={config.nodes}"
        raise UserError(f"devices, nodes: wanted none beside torchrun's {world} processes, or as many, got {got}")
    return here, world // here


def _meet(nodes: int) -> None:
    """What several machines must know to find each other; a UserError names what is missing."""
    for name, meaning in NEEDED.items():
        if not os.environ.get(name):
            raise UserError(
                f"{name}: not in the environment: {meaning}; nodes={nodes} wants the same command on every machine, "
                f"with {' and '.join(NEEDED)} set, or torchrun"
            )
    node, port = os.environ["NODE_RANK"], os.environ.get("MASTER_PORT", PORT)
    if not (node.isdecimal() and int(node) < nodes):
        raise UserError(f"NODE_RANK: wanted a number from 0 to {nodes - 1}, got {node!r}")
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"MASTER_PORT: wanted a number from 1 to 65535, got {port!r}")
    os.environ["MASTER_PORT"] = port  # Fabric would take any that is free here
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"machine {node}, the last is {nodes - 1}: waits for the others at {os.environ['MASTER_ADDR']}:{port}")


@contextmanager
def losses_told(folder: RunFolder | None, fabric: Fabric) -> Iterator[None]:
    """A process that is killed breaks the others' next exchange of gradients, deep inside torch: told in a line."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if fabric.world_size == 1 or not any(word in text for word in BROKEN):
            raise
        _told.set()
        raise LostProcessError(_lost(fabric.world_size, folder)) from None


def _lost(world: int, folder: RunFolder | None) -> str:
    line = f"another of the {world} processes ended"
    if folder is None:
        return f"{line}; nothing was trained yet"
    saved = f"its last checkpoint is {found[-1].name}" if (found := folder.checkpoints()) else "nothing is saved"
    return f"{line}; {saved}, go on with: stn train --resume {folder.path}"


def trained() -> None:
    """From here on the others may end as they like: nothing is exchanged any more."""
    _trained.set()


def all_or_none(fabric: Fabric, complaint: str | None) -> None:
    """UserError in every process where one has a complaint, so that none waits for one that has left."""
    complaints = [complaint]
    if fabric.world_size > 1:
        complaints = [None] * fabric.world_size
        torch.distributed.all_gather_object(complaints, complaint)
    for each in complaints:
        if each is not None:
            raise UserError(each)


def in_step(fabric: Fabric, action: Callable[[], Any]) -> Any:
    """What an action returns; where it is refused in one process, all raise its UserError."""
    found, complaint = None, None
    try:
        found = action()
    except UserError as error:
        complaint = str(error)
    all_or_none(fabric, complaint)
    return found


def refuse_different(fabric: Fabric, config: Config) -> None:
    """Every process must have been told the same, and have found the same data set: on machines it is typed by hand."""
    mine = asdict(config)
    first = fabric.broadcast(mine)
    wrong = [key for key in mine if mine[key] != first[key]]
    where = f"process {fabric.global_rank}, on {socket.gethostname()}"
    told = [
        f"{key}: wanted the same everywhere, got {first[key]!r} in process 0, {mine[key]!r} in {where}" for key in wrong
    ]
    all_or_none(fabric, told[0] if told else None)


def refuse_unshared(fabric: Fabric, path: Path) -> None:
    """Every process must see the run folder that the first one writes: a file that it makes there is looked for."""
    if fabric.world_size == 1:
        return
    sign = path / fabric.broadcast(f".seen-{uuid4().hex}")
    if fabric.is_global_zero:
        sign.touch()
    fabric.barrier()
    deadline = time.monotonic() + UNSEEN
    while not (seen := sign.exists()) and time.monotonic() < deadline:
        time.sleep(LOOK)
    where = f"process {fabric.global_rank} of {fabric.world_size}, on {socket.gethostname()} in {Path.cwd()}"
    try:
        all_or_none(fabric, None if seen else f"{path}: not seen by {where}: wanted one file system for all machines")
    finally:
        if fabric.is_global_zero:
            sign.unlink(missing_ok=True)


@contextmanager
def _watched() -> Iterator[None]:
    """Our watch in the place of Fabric's, which every five seconds kills this process, without a word, where another
    has ended; and a process that was started here watches the one that started it.
    """
    parent = os.getppid()
    if os.environ.get(PARENT) == str(parent):
        _watch(lambda: os.getppid() != parent)
    theirs = subprocess_script._launch_process_observer
    subprocess_script._launch_process_observer = _watch_children
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        subprocess_script._launch_process_observer = theirs
        del os.environ[PARENT]


def _watch_children(child_processes: list[subprocess.Popen[Any]]) -> None:
    _watch(lambda: any(child.poll() not in (None, 0) for child in child_processes))


def _watch(lost: Callable[[], bool]) -> None:
    """End this process where another is lost and the training does not notice by itself: NCCL waits half an hour."""

    def look() -> None:
        while not lost():
            if _trained.wait(LOOK):
                return
        if _told.wait(GRACE):
            time.sleep(GRACE)  # and if the process has not ended by then, it hangs in torch's own clearing up
        elif not _trained.is_set():
            sys.stderr.write("stn: another process of the run ended; go on with: stn train --resume RUN\n")
            sys.stderr.flush()
        if not _trained.is_set():
            os._exit(1)

    threading.Thread(target=look, daemon=True, name="other-processes").start()
