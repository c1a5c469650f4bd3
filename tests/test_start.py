"""How fast things start, in CPU time, since the machine may be busy: `stn --help`, and `import torch_stn` after torch."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "numpy", "matplotlib", "lightning_fabric", "lightning", "PIL", "safetensors", "tensorboard")
TRIES = 5  # the best counts: a neighbour on the same core makes every instruction slower, never faster


def python(*words: str) -> tuple[str, float]:
    """What a fresh Python prints, and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    # What is installed has its bytecode; without, compiling the sources is most of what a start costs.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow  # a clock needs a machine to itself: `make test-slow` runs one process, `make test` one a core
@pytest.mark.parametrize("words", [("--help",)])  # typer loads pydantic, where it is there, for the others
def test_the_command_answers_at_once(words: tuple[str, ...]) -> None:
    seconds: list[float] = []
    while len(seconds) < TRIES and min(seconds, default=1.0) > 0.4:
        out, spent = python("-m", "torch_stn", *words)
        seconds.append(spent)
        assert out
    assert min(seconds) <= 0.5, seconds


def test_neither_help_nor_a_mistyped_word_loads_anything_heavy() -> None:
    program = f"""
import sys
from torch_stn.lab.cli import app
for words in (["--help"], ["--version"], ["train", "--help"], ["report", "--help"], ["demo", "--help"], ["bench", "--help"], ["bench", "--cases", "17x17"], ["trian"], ["train"]):
    try:
        app(words)
    except SystemExit:
        pass
print("loaded:", *sorted(set({HEAVY}) & set(sys.modules)))
"""
    out, _ = python("-c", program)
    assert out.splitlines()[-1] == "loaded:"


def test_an_unknown_experiment_is_answered_without_torch() -> None:
    program = """
import sys
from torch_stn.lab.cli import app
try:
    app(["train", "tabel1"])
except SystemExit as stop:
    print(stop.code, "torch" in sys.modules)
"""
    assert python("-c", program)[0] == "2 False\n"


def test_the_library_adds_little_to_importing_torch() -> None:
    program = """
import json, time
import torch
begun = time.process_time()
import torch_stn
bare = time.process_time() - begun
for name in torch_stn.__all__:
    getattr(torch_stn, name)
print(json.dumps([bare, time.process_time() - begun]))
"""
    runs: list[list[float]] = []
    # The second figure too: names resolved on first use must not only have moved the time elsewhere.
    while len(runs) < TRIES and (not runs or min(whole for _, whole in runs) > 0.04):
        runs.append(json.loads(python("-c", program)[0]))
    assert min(bare for bare, _ in runs) <= 0.05, runs
    assert min(whole for _, whole in runs) <= 0.1, runs  # every public name: some seventy modules


def test_the_library_alone_loads_nothing() -> None:
    out, _ = python("-c", "import sys, torch_stn; print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert out == "False False\n"
