"""A folder trained by two processes: the loss curve and the weights of one, and what happens when one is killed."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from photo_folder import WORDS, photo_folder
from test_ranks import stn

from torch_stn.lab.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: two processes are refused"),
]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in RunFolder.open(run).metrics() if "loss" in row]


@pytest.mark.parametrize("words", [(), ("balance=weights", "transform=attention", "count=2", "crop=8")])
def test_two_processes_have_the_loss_curve_of_one_with_the_doubled_batch(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    photo_folder(tmp_path / "photos", 8)
    call = ("train", "folder", "data=photos", *WORDS, "steps=20", "optimizer=sgd", "learning_rate=0.05", *words)
    for devices, run in ((1, "one"), (2, "two")):
        code, _, err = stn(*call, f"devices={devices}", "--run", run, folder=tmp_path)
        assert code == 0, err
        assert err.count("data: 24 images") == 1
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 20
    curve = max(abs(a - b) for a, b in zip(one, two, strict=True))
    weights = [RunFolder.open(tmp_path / run).load_weights() for run in ("one", "two")]
    final = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    print(f"largest difference: loss curve {curve:.1e}, final weights {final:.1e}")
    assert curve < 1e-5
    assert final < 1e-5


def ranks(run: str) -> list[int]:
    """The processes of a run, by their command lines: parent and child have the same."""
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in found if f"--run {run}" in line and "torch_stn" in line]


@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_killed_process_ends_the_job_with_a_line_and_it_goes_on(tmp_path: Path, victim: str) -> None:
    photo_folder(tmp_path / "photos", 8)
    name = f"killed-{victim}-{os.getpid()}"
    call = ("train", "folder", "data=photos", *WORDS, "steps=3000", "checkpoint_every=10", "devices=2", "--run", name)
    run = tmp_path / name

    def kill(process: subprocess.Popen[str]) -> None:
        while len(list(run.glob("checkpoints/step-*"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        children = [pid for pid in ranks(name) if pid != process.pid]
        assert len(children) == 1
        os.kill(process.pid if victim == "first" else children[0], signal.SIGKILL)
        if victim == "first":  # its child goes by itself
            deadline = time.monotonic() + 60
            while children[0] in ranks(name) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert children[0] not in ranks(name)

    code, _, err = stn(*call, folder=tmp_path, during=kill)
    assert code != 0
    assert err.count("another of the 2 processes ended; its last checkpoint is step-") == 1, err
    assert f"go on with: stn train --resume {name}" in err
    assert "Traceback" not in err
    folder = RunFolder.open(run)
    at = folder.load_state()["step"]
    with contextlib.suppress(FileNotFoundError):
        text = (run / "config.json").read_text()
        (run / "config.json").write_text(text.replace('"steps": 3000', f'"steps": {at + 10}'))
    code, out, err = stn("train", "--resume", name, folder=tmp_path)
    assert code == 0, err
    assert f"run: {name}" in out
    assert folder.load_state()["step"] == at + 10
    assert all(bool(torch.isfinite(value).all()) for value in folder.load_weights().values())
