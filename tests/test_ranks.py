"""Training with two processes on the CPU: together they draw what one would, and they write once."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_run import WORDS

from torch_stn.lab.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600  # a hang, not a busy machine


def stn(
    *words: str, folder: Path, during: Callable[[subprocess.Popen[str]], None] = lambda process: None
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; the processes it starts end with it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch_stn", *words]
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            during(process)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
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


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: two processes are refused")
def test_ctrl_c_stops_two_processes_together_and_they_go_on(tmp_path: Path) -> None:
    words = ("train", "table1", *WORDS, "steps=1500", "checkpoint_every=100000", "--run")
    code, _, err = stn(*words, "whole", "devices=2", folder=tmp_path)
    assert code == 0, err
    run = tmp_path / "stopped"

    def press(process: subprocess.Popen[str]) -> None:
        while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 9:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them

    code, _, err = stn(*words, "stopped", "devices=2", folder=tmp_path, during=press)
    assert code == 130, err
    assert err.count("go on with: stn train --resume stopped") == 1
    assert "Traceback" not in err
    folder = RunFolder.open(run)
    assert 0 < folder.load_state()["step"] < 1500
    code, _, err = stn("train", "--resume", "stopped", folder=tmp_path)
    assert code == 0, err
    assert folder.load_state()["step"] == 1500
    for key, value in RunFolder.open(tmp_path / "whole").load_weights().items():
        torch.testing.assert_close(folder.load_weights()[key], value, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: two processes are refused")
def test_two_processes_refuse_with_one_voice(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.json").write_text("{}")
    for words, text in ((("--run", "r"), "holds a run already"), (("batch_size=9",), "batch_size: wanted a multiple")):
        code, out, err = stn("train", "table1", *WORDS, "devices=2", *words, folder=tmp_path)
        assert code == 2, err
        assert out == ""
        assert err.count("stn: ") == err.count(text) == 1, err
        assert "Traceback" not in err
