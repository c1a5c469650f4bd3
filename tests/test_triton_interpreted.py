"""The Triton kernels by their interpreter, in a process of its own: see test_triton.py and test_triton_gather.py."""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MISSING = find_spec("triton") is None
# Triton 3.6's interpreter asks NumPy for int(array of one number), which NumPy 2.4 refuses; 3.9 does not.
OLD = not MISSING and [int(part) for part in version("triton").split(".")[:2]] < [3, 9]


@pytest.mark.skipif(MISSING, reason="the package triton is not installed")
@pytest.mark.skipif(OLD, reason="interpreters before Triton 3.9 do not run with today's NumPy")
@pytest.mark.parametrize(  # in parts, so that workers share them
    ("file", "part"),
    [
        ("test_triton", "points"),
        ("test_triton", "not points"),
        ("test_triton_gather", "wild"),
        ("test_triton_gather", "not wild"),
    ],
)
def test_the_kernels_are_right_in_the_interpreter(file: str, part: str) -> None:
    told = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-k", part, str(HERE / f"{file}.py")]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=HERE.parent,
        env=told | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
