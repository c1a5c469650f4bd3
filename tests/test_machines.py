"""A run on several machines, played by processes of this one: started by hand, and by torchrun."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from photo_folder import WORDS, photo_folder
from test_folder_ranks import losses
from test_ranks import ROOT, stn

from torch_stn.lab import processes
from torch_stn.lab.config import Config
from torch_stn.lab.errors import UserError
from torch_stn.lab.run_folder import RunFolder

PATIENCE = 600
CALL = ("train", "folder", "data=photos", *WORDS, "steps=20", "optimizer=sgd", "learning_rate=0.05")


def free_port() -> str:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


def together(
    commands: Sequence[Sequence[str]], folders: Sequence[Path], environments: Sequence[dict[str, str]]
) -> list[tuple[int, str]]:
    """Exit code and stderr of commands that run at once; none outlives the call."""
    ours = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=ours | environment, text=True, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for command, folder, environment in zip(commands, folders, environments, strict=True)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=PATIENCE)[1] for process in running]
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return [(process.returncode, err) for process, err in zip(running, said, strict=True)]


def two_machines(words: Sequence[Sequence[str]], folders: Sequence[Path]) -> list[tuple[int, str]]:
    """The command on machine 0 and on machine 1."""
    port = free_port()
    meeting = [{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": node} for node in ("0", "1")]
    return together([("-m", "torch_stn", *each) for each in words], folders, meeting)


def own_words(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("stn: ")]


def same_as_one(one: Path, run: Path) -> None:
    """The curve and the weights of one process with the whole batch; only process 0 wrote."""
    curves = losses(one), losses(run)
    assert len(curves[0]) == len(curves[1]) == 20
    curve = max(abs(a - b) for a, b in zip(*curves, strict=True))
    weights = [RunFolder.open(each).load_weights() for each in (one, run)]
    final = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    print(f"{run.name}: largest difference: loss curve {curve:.1e}, final weights {final:.1e}")
    assert curve < 1e-5
    assert final < 1e-5
    assert (run / "evaluation.json").exists()
    assert not list(run.glob(".seen-*"))


@pytest.mark.slow
def test_two_machines_and_torchrun_have_the_loss_curve_of_one_process(tmp_path: Path) -> None:
    photo_folder(tmp_path / "photos", 8)
    code, _, err = stn(*CALL, "--run", "one", folder=tmp_path)
    assert code == 0, err
    for code, err in two_machines([(*CALL, "nodes=2", "--run", "machines")] * 2, [tmp_path] * 2):
        assert code == 0, err
    same_as_one(tmp_path / "one", tmp_path / "machines")
    torchrun, port = ("-m", "torch.distributed.run", "--nproc-per-node"), free_port()
    words = ("-m", "torch_stn", "--", *CALL, "--run")
    ((code, err),) = together([(*torchrun, "2", "--master-port", port, *words, "processes")], [tmp_path], [{}])
    assert code == 0, err
    same_as_one(tmp_path / "one", tmp_path / "processes")
    where = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", free_port(), "--node-rank")
    commands = [(*torchrun, "1", *where, node, *words, "nodes") for node in ("0", "1")]
    for code, err in together(commands, [tmp_path] * 2, [{}, {}]):
        assert code == 0, err
    same_as_one(tmp_path / "one", tmp_path / "nodes")
    config = RunFolder.open(tmp_path / "nodes").config()
    assert (config.devices, config.nodes) == (1, 2)


@pytest.mark.slow
def test_machines_that_differ_say_so_and_end(tmp_path: Path) -> None:
    """One was told another seed; one works in another folder."""
    photo_folder(tmp_path / "photos", 8)
    words = [(*CALL, "nodes=2", "--run", "r", f"seed={seed}") for seed in (1, 2)]
    for code, err in two_machines(words, [tmp_path] * 2):
        assert code == 2, err
        (line,) = own_words(err)
        assert line.startswith("stn: seed: wanted the same everywhere, got 1 in process 0, 2 in process 1, on ")
        assert "Traceback" not in err
    assert not (tmp_path / "r").exists()
    (tmp_path / "elsewhere").mkdir()
    words = [(*CALL, "nodes=2", "--run", "r", f"data={tmp_path / 'photos'}")] * 2
    for code, err in two_machines(words, [tmp_path, tmp_path / "elsewhere"]):
        assert code == 2, err
        (line,) = own_words(err)
        assert line.startswith("stn: r: not seen by process 1 of 2, on ")
        assert line.endswith("wanted one file system for all machines")
        assert "Traceback" not in err


def fabric(world: int = 1, rank: int = 0) -> Any:
    return SimpleNamespace(world_size=world, global_rank=rank, is_global_zero=rank == 0, broadcast=lambda each: each)


def test_a_complaint_of_one_process_is_raised_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(complaints: list[str | None], complaint: str | None) -> None:
        complaints[:] = [None, complaint, "of another"]

    monkeypatch.setattr(processes.torch.distributed, "all_gather_object", gather)
    for complaint, wanted in ((None, "of another"), ("ours", "ours")):
        with pytest.raises(UserError, match=wanted):
            processes.all_or_none(fabric(3), complaint)
    with pytest.raises(UserError, match="alone"):
        processes.all_or_none(fabric(), "alone")


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.counts(Config(devices=2, nodes=3)) == (2, 3)
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for config in (Config(), Config(devices=2, nodes=3), Config(devices=6)):
        assert processes.counts(config) == (2, 3)
    with pytest.raises(
        UserError, match=r"wanted none beside torchrun's 6 processes, or as many, got devices=2 nodes=1"
    ):
        processes.counts(Config(devices=2))


def test_fabric_still_has_the_observer_that_we_replace() -> None:
    """Without it, a lost process would again be a kill without a word."""
    from lightning_fabric.strategies.launchers import subprocess_script

    before = subprocess_script._launch_process_observer
    with processes._watched():
        assert subprocess_script._launch_process_observer is processes._watch_children
    assert subprocess_script._launch_process_observer is before
