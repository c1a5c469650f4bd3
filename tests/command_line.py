"""The `stn` command inside the test's own process: what it prints, and what it says when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import WORDS, go_on, tiny_digits
from typer.testing import CliRunner

from torch_stn.lab import demo, experiments, session
from torch_stn.lab.cli import app
from torch_stn.lab.config import override
from torch_stn.lab.data import load
from torch_stn.lab.run_folder import RunFolder

MISTAKE, FOREIGN, INTERRUPTED = 2, 1, 130


def move_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, without a data folder."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TORCH_STN_DATA", raising=False)


def see_few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and evaluation find 300 digits, whatever they look for."""
    for module in (load, demo):
        monkeypatch.setattr(module, "load_digits", lambda *args, **kwargs: tiny_digits())


def stn(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; an exception that reaches the top would be a traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def complaint(*words: object, code: int = MISTAKE) -> str:
    """The one line on stderr of a command that fails."""
    exit_code, out, err = stn(*words)
    assert exit_code == code, err
    assert out == ""
    lines = err.splitlines()
    # What a run said before it failed stands above; the last line says why it ended.
    assert all(line.startswith("FCN: step ") for line in lines[:-1]), err
    assert lines[-1].startswith("stn: ")
    return lines[-1].removeprefix("stn: ")


def train(*words: object) -> tuple[object, ...]:
    """A tiny training of the table's experiment; later words win."""
    return ("train", "table1", *WORDS, *words)


def unbroken(path: Path, *words: str) -> RunFolder:
    """The same without the command."""
    return go_on(session.start(override(experiments.config("table1"), [*WORDS, *words]), path))
