"""Training with two processes on the CPU: together they draw what one would, and they write once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import WORDS

from torch_stn.lab.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 180


def stn(*words: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; the processes it starts end with it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch_stn", *words]
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: two processes are refused")
@pytest.mark.parametrize("model", ["st-fcn", "tutorial"])
def test_two_processes_train_the_network_of_one(tmp_path: Path, model: str) -> None:
    words = ("train", "table1", *WORDS, f"model={model}", "steps=8", "optimizer=sgd")
    code, _, err = stn(*words, "--run", "one", folder=tmp_path)
    assert code == 0, err
    code, out, err = stn(*words, "devices=2", "--run", "two", folder=tmp_path)
    assert code == 0, err
    assert out.count("run: two") == 1
    one, two = RunFolder.open(tmp_path / "one"), RunFolder.open(tmp_path / "two")
    assert [row["step"] for row in one.metrics()] == [row["step"] for row in two.metrics()]
    for key, value in one.load_weights().items():
        torch.testing.assert_close(two.load_weights()[key], value, rtol=1e-4, atol=1e-6)
    assert (two.path / "evaluation.json").exists()


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: two processes are refused")
def test_two_processes_stop_together_when_the_seconds_are_over(tmp_path: Path) -> None:
    words = ("train", "table1", *WORDS, "steps=0", "seconds=1", "devices=2", "--run", "two")
    code, _, err = stn(*words, folder=tmp_path)
    assert code == 0, err
    assert RunFolder.open(tmp_path / "two").load_state()["elapsed"] >= 1
