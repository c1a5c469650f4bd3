"""`stn doctor`: it names versions, backends with their reasons, and the digits at hand."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from torch_stn._version import __version__
from torch_stn.lab import console
from torch_stn.lab.cli import app
from torch_stn.sampling.choose import BACKENDS
from torch_stn.sampling.interpolation import INTERPOLATIONS


def examined(width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(console.out, "width", width)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.exception
    assert result.stderr == ""
    return result.stdout


def test_versions_backends_and_data_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_STN_DATA", raising=False)
    out = examined(200, monkeypatch)
    assert __version__ in out
    assert torch.__version__ in out
    assert all(name in out for name in BACKENDS)
    assert all(out.count(mode) >= 2 for mode in INTERPOLATIONS)  # in 2-D and in 3-D
    assert "F.grid_sample" in out  # why aten does not serve a kernel of one's own
    assert "mnist" in out
    assert "mnist_5k.csv.gz" in out


def test_every_row_has_one_backend_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [line for line in examined(200, monkeypatch).splitlines() if "2-D" in line or "3-D" in line]
    devices = 2 if torch.cuda.is_available() else 1
    # Modes with the same answers share a row; nearest and catmull-rom never have those of bilinear.
    assert devices * 2 * 3 <= len(rows) <= devices * 2 * 6
    assert all(row.count("serves") == 1 for row in rows)


def test_a_data_folder_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_STN_DATA", str(tmp_path / "nowhere"))
    out = examined(300, monkeypatch)
    assert "not at hand: " in out
    assert str(tmp_path / "nowhere") in out


def test_nothing_is_cut_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "…" not in examined(80, monkeypatch)
