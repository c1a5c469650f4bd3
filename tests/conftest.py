"""What holds for every test: threads, seeds, compiled code, and where the real digits are."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

# For tests of scripts; at the end, since a script and a module of the tests may have one name.
sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

# Asserts of modules that are no test_*.py show their values only if pytest is told of them.
pytest.register_assert_rewrite("family_contract", "map_contract", "interpolation_contract")

# Two workers with two threads each would fight over two cores; the variable is for the commands that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """A test draws the same numbers alone, in any order and in any worker."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    """What one test compiled must not fill the next one's cache; importing dynamo for that would cost each run 2 s."""
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data sets ($TORCH_STN_DATA); tests that need it skip where it is not set."""
    named = os.environ.get("TORCH_STN_DATA")
    if not named:
        pytest.skip("TORCH_STN_DATA is not set: no real data here")
    folder = Path(named)
    # Set but wrong is no reason to skip: a renamed folder would turn every real test off without a word.
    assert folder.is_dir(), f"TORCH_STN_DATA={named} is no folder"
    return folder.resolve()
