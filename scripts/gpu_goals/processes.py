"""Goal 0 and a part of 6: the test-suite on the device, and some of it under compute-sanitizer, as child processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from gpu_goals.device import Device
from gpu_goals.lines import Got, Line, NotRunError, Task, Wanted

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/test_triton.py", "tests/test_triton_gather.py")
# Each kind of kernel, on small shapes.
FEW = (
    "several_tiles or in_space or one_image or nearest-zeros or half_images or sorted "
    "or (wild and (nearly or leaning or turned))"
)
QUICK = "half_images"  # of --tiny
CLEAN = Wanted(0, "exit", most=True)
PATIENCE = 120.0  # seconds
CHECKER = "compute-sanitizer"


def suite(device: Device) -> list[Task]:
    """Goal 0."""
    # Small tests, each of which compiles: processes side by side, where pytest can; pytest-benchmark objects to that.
    beside = ["-n", str(min(8, (os.cpu_count() or 2) // 2)), "-p", "no:benchmark"] if find_spec("xdist") else []
    words = _pytest("not gpu", "-k", QUICK) if device.tiny else _pytest("gpu", *beside)
    return [Task([Line(f"pytest -m gpu {' '.join(TESTS)}", CLEAN)], partial(_tests, device, words))]


def checker(device: Device) -> list[Task]:
    """compute-sanitizer's memcheck; each tensor is an allocation of its own, so that it sees where one ends."""
    words = [CHECKER, "--tool", "memcheck", "--error-exitcode", "9", *_pytest("gpu", "-k", FEW)]

    def measure() -> list[Got]:
        if device.tiny:
            raise NotRunError("it looks at programs on a GPU")
        if shutil.which(CHECKER) is None:
            raise NotRunError(f"there is no {CHECKER} on the PATH")
        return _tests(device, words, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})

    return [Task([Line(f"{CHECKER} memcheck, some of {TESTS[0]} and its like", CLEAN)], measure)]


def _pytest(marked: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked, *words, *TESTS]


def _tests(device: Device, words: list[str], more: dict[str, str] | None = None) -> list[Got]:
    """Whether all passed: pytest calls it a success too where all were skipped."""
    told = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [told.get("PYTHONPATH")])])
    code, lines = _ended(words, min(PATIENCE, device.left()), told | {"PYTHONPATH": path} | (more or {}))
    ends = [line for line in lines if " passed" in line or " failed" in line or " error" in line or "ERROR SUM" in line]
    last = "; ".join(line.strip("= ") for line in ends[-2:]) or (lines[-1] if lines else "no word")
    passed = " passed" in last and "skipped" not in last
    return [Got(float(code or not passed), words=last[:160], numbers={"exit": float(code)})]


def _ended(words: list[str], seconds: float, environment: dict[str, str]) -> tuple[int, list[str]]:
    """Exit code and lines of a child, which is ended with its own children when its time is up."""
    child = subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, _ = child.communicate(timeout=seconds)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise NotRunError(f"it had not ended after {seconds:.0f} s") from None
        raise
    return child.returncode, [line for line in out.splitlines() if line.strip()]
