"""One of two processes killed for real: the other says so and ends, and the run goes on to the weights of an unbroken
one.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from photo_folder import WORDS, photo_folder
from test_folder_ranks import losses
from test_ranks import ROOT, stn

from torch_stn.lab.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: two processes are refused"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="wanted /proc, to find the second process"),
]
STEPS = 200
CALL = ("train", "folder", "data=photos", *WORDS, f"steps={STEPS}", "checkpoint_every=5", "devices=2", "threads=1")


def second(process: subprocess.Popen[str]) -> int:
    """The process that the first one started."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    photo_folder(folder / "photos", 8)
    code, _, err = stn(*CALL, "--run", "whole", folder=folder)
    assert code == 0, err
    return folder


def test_a_process_that_exchanges_nothing_is_ended_too() -> None:
    """As one that waits in NCCL would wait for half an hour."""
    code = (
        "from torch_stn.lab import processes as p; import time; p.GRACE = 0.1; p._watch(lambda: True); time.sleep(600)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "stn: another process of the run ended; go on with: stn train --resume RUN\n"


@pytest.mark.parametrize("which", ["first", "second"])
def test_one_of_two_processes_is_killed_and_the_run_goes_on(whole: Path, which: str) -> None:
    run = whole / which

    def kill(process: subprocess.Popen[str]) -> None:
        while not list((run / "checkpoints").glob("step-*")):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid if which == "first" else second(process), signal.SIGKILL)

    # communicate() waits until all that hold stderr have ended: both processes.
    code, out, err = stn(*CALL, "--run", which, folder=whole, during=kill)
    assert code == (-signal.SIGKILL if which == "first" else 1), err
    assert out == ""
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("stn: ")]
    print(line)
    assert line.startswith("stn: another of the 2 processes ended; its last checkpoint is step-")
    assert line.endswith(f"go on with: stn train --resume {which}")
    folder = RunFolder.open(run)
    done = folder.load_state()["step"]
    assert 0 < done < STEPS
    code, _, err = stn("train", "--resume", which, folder=whole)
    assert code == 0, err
    assert folder.load_state()["step"] == STEPS
    curves = losses(run), losses(whole / "whole")
    assert len(curves[0]) == len(curves[1]) == STEPS
    curve = max(abs(a - b) for a, b in zip(*curves, strict=True))
    weights = [RunFolder.open(each).load_weights() for each in (run, whole / "whole")]
    final = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    print(f"killed at step {done} of {STEPS}; largest difference: loss curve {curve:.1e}, final weights {final:.1e}")
    assert curve == 0
    assert final == 0
