"""Checkpoints: whole or not there, whatever stops the writer; what else lies there is refused in a plain word."""

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import KilledError

from torch_stn.lab.config import Config
from torch_stn.lab.errors import UserError
from torch_stn.lab.run_folder import RunFolder

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


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    paths = [save(folder, step) for step in (2, 4, 10, 100_000_000)]
    assert folder.checkpoints() == paths[-2:]
    assert last(folder) == (100_000_000, 1e8, 1e8)
    assert names(folder.path / "checkpoints") == {path.name for path in paths[-2:]}


def test_a_checkpoint_keeps_every_layout_and_type(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    weights = {"t": torch.arange(6.0).reshape(2, 3).T, "h": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    folder.save_checkpoint(1, weights, {"elapsed": 0.5})
    back = folder.load_weights()
    assert back.keys() == weights.keys()
    assert all(back[key].equal(weights[key]) and back[key].dtype == weights[key].dtype for key in weights)
    assert folder.load_state() == {"step": 1, "elapsed": 0.5}


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    folder = create(tmp_path / "a")
    assert said(folder.load_weights) == f"{folder.path}: no checkpoint yet"


def killing(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Kill before the file operation number ``at``; the list fills with those done."""
    done: list[str] = []

    def put(name: str) -> None:
        true = getattr(os, name)

        def operation(*args: Any, **kwargs: Any) -> Any:
            if len(done) >= at:
                raise KilledError
            done.append(name)
            return true(*args, **kwargs)

        monkeypatch.setattr(os, name, operation)

    for name in OPERATIONS:
        put(name)
    return done


def kill_everywhere(
    folder: RunFolder,
    act: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[RunFolder, bool], None],
) -> int:
    """Do the same from the same start again and again, killed one file operation later each time; returns how many."""
    original = folder.path.with_name("original")
    shutil.copytree(folder.path, original)
    for at in range(1000):
        shutil.rmtree(folder.path)
        shutil.copytree(original, folder.path)
        with monkeypatch.context() as patch:
            killing(patch, at)
            try:
                act()
                survived = True
            except KilledError:
                survived = False
        look(RunFolder.open(folder.path), survived)
        if survived:
            return at
    raise AssertionError("it never ends")


def test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(tmp_path / "a")
    for step in (2, 4):
        save(folder, step)

    def look(folder: RunFolder, survived: bool) -> None:
        assert last(folder) in (((6, 6.0, 6.0),) if survived else ((4, 4.0, 4.0), (6, 6.0, 6.0)))
        # And the run goes on from there.
        save(folder, 8)
        assert last(folder) == (8, 8.0, 8.0)
        assert len(folder.checkpoints()) == 2

    assert kill_everywhere(folder, lambda: save(folder, 6), monkeypatch, look) > 3


def test_a_kill_while_a_checkpoint_is_written_again_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(tmp_path / "a")
    for step in (2, 4):
        save(folder, step)

    def look(folder: RunFolder, survived: bool) -> None:
        assert last(folder) in ((4, -1.0, -1.0), (4, 4.0, 4.0), (2, 2.0, 2.0))

    kill_everywhere(folder, lambda: save(folder, 4, -1.0), monkeypatch, look)


def test_a_kill_while_a_checkpoint_is_dropped_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(tmp_path / "a")
    for step in (2, 4):
        save(folder, step)

    def look(folder: RunFolder, survived: bool) -> None:
        assert last(folder) in (((2, 2.0, 2.0),) if survived else ((4, 4.0, 4.0), (2, 2.0, 2.0)))

    kill_everywhere(folder, lambda: folder.drop_checkpoint(4), monkeypatch, look)


def test_a_kill_while_a_resume_tidies_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path / "a")
    for step in (1, 2, 3):
        folder.append_metrics({"step": step})
        folder.write_arrays(f"snapshots/step-{step:08d}.safetensors", {"x": torch.ones(1)})

    def look(folder: RunFolder, survived: bool) -> None:
        assert folder.metrics()[:2] == [{"step": 1}, {"step": 2}]
        folder.forget_after(2)
        assert folder.metrics() == [{"step": 1}, {"step": 2}]
        assert len(names(folder.path / "snapshots")) == 2

    assert kill_everywhere(folder, lambda: folder.forget_after(2), monkeypatch, look) == 2


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path / "a")
    save(folder, 2)
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises((OSError, UserError), match="No space"):
        save(folder, 4)
    assert last(folder) == (2, 2.0, 2.0)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 not weights", None])
def test_damaged_weights_are_named(tmp_path: Path, content: bytes | None) -> None:
    folder = create(tmp_path / "a")
    path = save(folder, 2) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    assert said(folder.load_weights).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"foreign", None])
def test_a_damaged_state_is_named(tmp_path: Path, content: bytes | None) -> None:
    folder = create(tmp_path / "a")
    path = save(folder, 2) / "state.pt"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    assert said(folder.load_state).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_checkpoint_without_a_file_is_named(tmp_path: Path, name: str) -> None:
    folder = create(tmp_path / "a")
    path = save(folder, 2) / name
    path.unlink()
    load = folder.load_weights if name == "model.safetensors" else folder.load_state
    assert said(load).startswith(f"{path}: ")


class Malice:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("by", ["torch", "pickle"])
@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path, by: str, name: str) -> None:
    folder = create(tmp_path / "a")
    path = save(folder, 2) / name
    bait = tmp_path / "executed"
    record = {"step": 2, "optimizer": Malice(bait)}
    if by == "torch":
        torch.save(record, path)
    else:
        path.write_bytes(pickle.dumps(record))
    load = folder.load_weights if name == "model.safetensors" else folder.load_state
    assert said(load).startswith(f"{path}: ")
    assert not bait.exists()
    # The bait works, where someone bites.
    if by == "pickle":
        pickle.loads(path.read_bytes())
        assert bait.exists()


@pytest.mark.parametrize("state", [[1, 2], {"elapsed": 1.0}, torch.ones(2)])
def test_a_state_of_something_else_is_refused(tmp_path: Path, state: object) -> None:
    folder = create(tmp_path / "a")
    path = save(folder, 2) / "state.pt"
    torch.save(state, path)
    assert said(folder.load_state).startswith(f"{path}: wanted a training state")
