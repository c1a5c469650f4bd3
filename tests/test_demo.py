"""`stn demo` from the first word to the page; `test_cli.py` holds what it refuses."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from torch_stn.lab.cli import app
from torch_stn.lab.run_folder import RunFolder

pytestmark = pytest.mark.slow
MODELS = ("fcn", "st-fcn", "st-cnn")


def demo(path: Path, *words: str) -> str:
    """What it prints."""
    result = CliRunner().invoke(app, ["demo", "seconds=2", "test_distortions=2", *words, "--run", str(path)])
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def test_the_demo_trains_prints_a_table_and_draws(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "demo"
    out = demo(path)
    assert all(label in out for label in ("FCN", "ST-FCN", "ST-CNN"))
    assert f"report: {path / 'report.html'}" in out
    assert f"animation: {path / 'alignment.gif'}" in out
    assert {entry.name for entry in path.iterdir()} == {*MODELS, "report.html", "alignment.gif"}
    for model in MODELS:
        folder = RunFolder.open(path / model)
        record = json.loads((path / model / "evaluation.json").read_text())
        assert folder.config().model == model
        assert record["train_steps"] == folder.load_state()["step"] > 0
        # The same seconds for each: of training, not of looking and writing.
        assert 2 <= record["train_seconds"] < 4
        assert 0 <= record["error"] <= 100
    page = (path / "report.html").read_text(encoding="utf-8")
    assert all(label in page for label in ("ST-FCN", "ST-CNN"))
    assert "http://" not in page.replace("http://www.w3.org", "")
    with Image.open(path / "alignment.gif") as animation:
        assert animation.format == "GIF"
        assert animation.n_frames > 3
    # A second demo takes the place of the first.
    first = (path / "fcn" / "environment.json").stat().st_mtime_ns
    demo(path, "seconds=0.5")
    assert (path / "fcn" / "environment.json").stat().st_mtime_ns > first


def test_the_demo_refuses_a_folder_with_strangers(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    result = CliRunner().invoke(app, ["demo", "seconds=2", "--run", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr == f"stn: {tmp_path}: holds thesis.txt, which is no part of a demo; choose another --run\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
