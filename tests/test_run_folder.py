"""A run folder: whole files or none, whatever stops the writer, and a plain word about everything else that lies there."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from torch_stn.lab.config import Config
from torch_stn.lab.errors import UserError
from torch_stn.lab.run_folder import RunFolder, environment

CONFIG = Config(seed=7, model="st-fcn", seconds=1.5)
# Through these every file comes, goes or changes its name; a kill may fall before each of them.
OPERATIONS = ("mkdir", "replace", "rename", "unlink", "remove", "rmdir")


def create(path: Path) -> RunFolder:
    return RunFolder.create(path, CONFIG, {"device": "cpu"})


def save(folder: RunFolder, step: int, value: float | None = None) -> Path:
    """A checkpoint whose weights and state both tell which one it is."""
    number = float(step) if value is None else value
    state = {"elapsed": number, "moment": 0, "optimizer": {"state": {0: torch.tensor(number)}}}
    return folder.save_checkpoint(step, {"weight": torch.full((3,), number)}, state)


def last(folder: RunFolder) -> tuple[int, float, float]:
    """Step, weight and state of the checkpoint that a resume would take."""
    state = folder.load_state()
    return state["step"], folder.load_weights()["weight"][0].item(), state["optimizer"]["state"][0].item()


def said(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as raised:
        action()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# Creating and opening


def test_a_new_run_holds_its_config_and_its_environment(tmp_path: Path) -> None:
    folder = create(tmp_path / "runs" / "a")
    assert names(folder.path) == {"config.json", "environment.json"}
    record = json.loads((folder.path / "config.json").read_text())
    assert record["format"] == 1
    assert (record["model"], record["seed"], record["seconds"]) == ("st-fcn", 7, 1.5)
    opened = RunFolder.open(folder.path)
    assert opened.config() == CONFIG
    assert opened.read_json("environment.json", missing="") == {"device": "cpu"}
    assert opened.metrics() == []
    assert opened.checkpoints() == []


def test_a_folder_with_a_run_in_it_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "a")
    text = said(lambda: create(tmp_path / "a"))
    assert "holds a run already" in text
    assert f"--resume {tmp_path / 'a'}" in text


def test_a_folder_without_a_run_in_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    create(tmp_path / "a")
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    assert str(tmp_path / "a") in said(lambda: create(tmp_path / "a"))
    assert str(tmp_path / "a") in said(lambda: create(tmp_path / "a" / "b"))
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("where", ["nowhere", "a/config.json", ""])
def test_no_run_there(tmp_path: Path, where: str) -> None:
    create(tmp_path / "a")
    assert said(lambda: RunFolder.open(tmp_path / where)).startswith(str(tmp_path / where))


@pytest.mark.parametrize("number", [2, 0, "1", None])
def test_a_folder_of_another_format_is_refused(tmp_path: Path, number: object) -> None:
    folder = create(tmp_path / "a")
    folder.write_json("config.json", {"format": number, "model": "of tomorrow"})
    text = said(lambda: RunFolder.open(folder.path))
    assert str(folder.path) in text
    assert "format 1" in text
    assert repr(number) in text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "damaged"),
        (b'{"format": 1, "mod', "damaged"),
        (b"\xff\xfe{}", "damaged"),
        (b"[1, 2]", "wanted a JSON object, got list"),
        (b"3", "wanted a JSON object, got int"),
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes, text: str) -> None:
    folder = create(tmp_path / "a")
    (folder.path / "config.json").write_bytes(content)
    came = said(lambda: RunFolder.open(folder.path))
    assert came.startswith(str(folder.path / "config.json"))
    assert text in came


def test_a_config_with_a_wrong_value_is_named_with_file_and_key(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    folder.write_json("config.json", {"format": 1, "modle": "fcn"})
    text = said(RunFolder.open(folder.path).config)
    assert text == f"{folder.path / 'config.json'}: modle: no such key; nearest: model"


def test_the_environment_says_where_a_run_was_made() -> None:
    record = environment("cpu")
    keys = {"torch_stn", "torch", "python", "platform", "device", "processor", "threads", "commit", "started"}
    assert record.keys() == keys
    assert record["torch"] == torch.__version__
    assert record["device"] == "cpu"
    assert record["processor"]
    assert record["threads"] == torch.get_num_threads()
    assert record["commit"] is None or len(record["commit"]) == 40
    assert json.loads(json.dumps(record)) == record


# Files whole or not at all


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_json_file_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path / "a")
    folder.write_json("evaluation.json", {"error": 1})
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises((OSError, UserError), match="No space"):
        folder.write_json("evaluation.json", {"error": 2})
    assert folder.read_json("evaluation.json", missing="") == {"error": 1}


def test_arrays_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path / "a")
    folder.write_arrays("snapshots/step-00000001.safetensors", {"x": torch.ones(2)}, {"step": 1, "seconds": "0.5"})
    path = folder.path / "snapshots" / "step-00000001.safetensors"
    good = path.read_bytes()
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises((OSError, UserError), match="No space"):
        folder.write_arrays("snapshots/step-00000001.safetensors", {"x": torch.zeros(2)})
    assert path.read_bytes() == good
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"step": "1", "seconds": "0.5"}


def test_arrays_of_any_layout_are_written(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    folder.write_arrays("x.safetensors", {"turned": x.T, "same": x, "part": x[:, 1:]})
    back = safetensors.torch.load_file(folder.path / "x.safetensors")
    assert back["turned"].equal(x.detach().T)
    assert back["part"].equal(x.detach()[:, 1:])


# Metrics


def test_metrics_are_lines_and_a_last_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    rows = [{"step": 1, "loss": 2.5}, {"step": 2, "test_error": 90.0}]
    for row in rows:
        folder.append_metrics(row)
    with open(folder.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    assert folder.metrics() == rows


def test_what_a_resume_will_do_again_is_forgotten(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    for step in (1, 2, 3, 4):
        folder.append_metrics({"step": step})
        folder.write_arrays(f"snapshots/step-{step:08d}.safetensors", {"x": torch.ones(1)})
    with open(folder.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 5')
    folder.forget_after(2)
    folder.append_metrics({"step": 3, "again": True})
    assert folder.metrics() == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    assert names(folder.path / "snapshots") == {"step-00000001.safetensors", "step-00000002.safetensors"}


def test_a_run_that_never_wrote_metrics_has_nothing_to_forget(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    folder.forget_after(0)
    assert folder.metrics() == []
