"""The command, killed for real: SIGKILL at moments nobody chose, Ctrl-C, and the run that goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_run import WORDS, weights

from torch_stn.lab.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
STEPS = 400
# A checkpoint every other step: most of the time is spent writing them, so most kills fall into one.
RUN = (*WORDS, f"steps={STEPS}", "checkpoint_every=2", "log_every=7", "width=64", "threads=1", "evaluations=5")
PATIENCE = 180.0


@contextmanager
def stn(*words: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A `stn` of its own; whatever happens, it does not outlive the test."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("TORCH_STN_DATA", None)
    with open(folder / "stderr", "w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "torch_stn", *words],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=err, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def to_its_end(*words: str, folder: Path) -> None:
    with stn(*words, folder=folder) as process:
        assert process.wait(PATIENCE) == 0, (folder / "stderr").read_text()


def wait_for(process: subprocess.Popen[str], run: Path, step: int) -> bool:
    """Until the run has a checkpoint at or after a step; False if the run ended before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if last_step(run) >= step:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    raise AssertionError(f"no step {step} after {PATIENCE:.0f} s")


def last_step(run: Path) -> int:
    """Of the last whole checkpoint; -1 before the first."""
    try:
        names = [name for name in os.listdir(run / "checkpoints") if name.startswith("step-")]
    except FileNotFoundError:
        return -1
    return max((int(name.removeprefix("step-")) for name in names), default=-1)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "seed"), [("fcn", 1), ("tutorial", 2)])
def test_a_run_killed_three_times_ends_with_the_bits_of_an_unbroken_one(tmp_path: Path, model: str, seed: int) -> None:
    moments = random.Random(seed)  # and the clock of the machine
    words = ("train", "table1", *RUN, f"model={model}")
    to_its_end(*words, "--run", "whole", folder=tmp_path)
    run = tmp_path / "killed"
    start: tuple[str, ...] = (*words, "--run", "killed")
    killed = 0
    inside = 0  # a checkpoint
    while killed < 3:
        done = max(0, last_step(run))
        goal = done + moments.randint(2, STEPS // 5)
        with stn(*start, folder=tmp_path) as process:
            assert wait_for(process, run, goal), (tmp_path / "stderr").read_text()
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            assert process.wait(PATIENCE) == -signal.SIGKILL
        killed += 1
        inside += any(name.startswith(".") for name in os.listdir(run / "checkpoints"))
        # pytest shows these lines when the test fails.
        print(f"killed at or after step {last_step(run)}; half-written: {sorted(os.listdir(run / 'checkpoints'))}")
        start = ("train", "--resume", "killed")
    print(f"{inside} of {killed} kills fell into a checkpoint")
    to_its_end(*start, folder=tmp_path)
    whole, again = RunFolder.open(tmp_path / "whole"), RunFolder.open(run)
    assert last_step(run) == STEPS
    assert weights(again) == weights(whole)
    assert [path.name for path in again.checkpoints()] == [path.name for path in whole.checkpoints()]
    for name in ("loss", "test_error"):
        rows = [[(row["step"], row[name]) for row in folder.metrics() if name in row] for folder in (again, whole)]
        assert [step for step, _ in rows[0]] == [step for step, _ in rows[1]]
        if name == "test_error":
            assert rows[0] == rows[1]


@pytest.mark.slow
def test_killed_before_its_first_checkpoint_and_while_it_starts(tmp_path: Path) -> None:
    words = ("train", "table1", *RUN, "checkpoint_every=1000", "steps=60", "--run")
    to_its_end(*words, "whole", folder=tmp_path)
    with stn(*words, "killed", folder=tmp_path) as process:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "killed" / "config.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    to_its_end("train", "--resume", "killed", folder=tmp_path)
    assert weights(RunFolder.open(tmp_path / "killed")) == weights(RunFolder.open(tmp_path / "whole"))


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = ("train", "table1", *RUN, "checkpoint_every=100000", "steps=3000", "--run")
    to_its_end(*words, "whole", folder=tmp_path)
    run = tmp_path / "stopped"
    with stn(*words, "stopped", folder=tmp_path) as process:
        deadline = time.monotonic() + PATIENCE
        while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 3:
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    said = (tmp_path / "stderr").read_text().splitlines()
    step = last_step(run)
    assert 0 < step < 3000
    assert said[-1] == f"stn: stopped at step {step}; go on with: stn train --resume stopped"
    assert not any("Traceback" in line for line in said)
    to_its_end("train", "--resume", "stopped", folder=tmp_path)
    assert weights(RunFolder.open(run)) == weights(RunFolder.open(tmp_path / "whole"))
