"""`stn demo` from the first word to the page, and what it leaves alone."""

import json
from pathlib import Path

import pytest
from command_line import complaint, move_to, see_few_digits
from PIL import Image, ImageSequence
from typer.testing import CliRunner

from torch_stn.lab.cli import app
from torch_stn.lab.run_folder import RunFolder

MODELS = ("fcn", "st-fcn", "st-cnn")


@pytest.fixture(autouse=True)
def bare_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    see_few_digits(monkeypatch)


def demo(path: Path, *words: str) -> str:
    """What it prints."""
    result = CliRunner().invoke(app, ["demo", "seconds=2", "test_distortions=2", *words, "--run", str(path)])
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


@pytest.mark.slow
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
        assert len(list(ImageSequence.Iterator(animation))) > 3
    # A second demo takes the place of the first.
    first = (path / "fcn" / "environment.json").stat().st_mtime_ns
    demo(path, "seconds=0.5")
    assert (path / "fcn" / "environment.json").stat().st_mtime_ns > first


def test_the_demo_leaves_the_folders_of_others_alone(few_digits: None) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years")
    Path("mine/fcn").mkdir()
    Path("mine/fcn/more.txt").write_text("more")
    text = complaint("demo", "--run", "mine")
    assert text in [
        f"mine: holds {name}, which is no part of a demo; choose another --run" for name in ("thesis.txt", "fcn")
    ]
    assert Path("mine/thesis.txt").read_text() == "years"
    assert Path("mine/fcn/more.txt").read_text() == "more"
    Path("file").write_text("mine")
    assert complaint("demo", "--run", "file").startswith("file: ")


def test_the_demo_replaces_an_earlier_demo_only(few_digits: None) -> None:
    """A folder that only looks like a part of the demo is somebody's."""
    Path("mine/fcn").mkdir(parents=True)
    Path("mine/fcn/thesis.txt").write_text("years")
    complaint("demo", "seconds=0.01", "test_distortions=1", "--run", "mine")
    assert Path("mine/fcn/thesis.txt").read_text() == "years"
