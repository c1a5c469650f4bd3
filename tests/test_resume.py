"""Going on after a stop, bit by bit as if there had been none; stopping where the loss is no number."""

import json
import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from tiny_run import KilledError, go_on, tiny_config, tiny_digits, tiny_train, weights

from torch_stn.lab import models
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import start
from torch_stn.lab.train import (
    Interrupted,
    train,
)

TEST = 60  # digits


def load(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


RESUMED = {
    "fcn with sgd": ("model=fcn", "optimizer=sgd"),
    "batch norm": ("model=bn-cnn", "batch_size=4"),
    "dropout": ("model=tutorial", "data=plain"),
    "transformer": ("model=st-fcn", "data=rts", "localization_rate=0.5", "clip=1"),
    "spline": ("model=st-cnn", "transform=tps", "data=e", "area_penalty=0.1"),
    "epochs": ("model=fcn", "steps=0", "epochs=0.2", "schedule=steps"),
}


@pytest.mark.parametrize("words", RESUMED.values(), ids=RESUMED)
def test_a_killed_run_that_goes_on_ends_where_an_unbroken_one_does(tmp_path: Path, words: tuple[str, ...]) -> None:
    whole = tiny_train(tmp_path / "whole", *words)
    with pytest.raises(KilledError):
        tiny_train(tmp_path / "killed", *words, kill_at=3)  # one step after a checkpoint
    folder = RunFolder.open(tmp_path / "killed")
    torch.manual_seed(99)
    torch.rand(7)
    with pytest.raises(KilledError):
        go_on(folder, kill_at=5)
    go_on(folder)
    assert weights(folder) == weights(whole)
    check_same_state(folder, whole)


def check_same_state(folder: RunFolder, whole: RunFolder) -> None:
    """Optimiser, moment and rows too, all but the clock."""
    mine, theirs = folder.load_state(), whole.load_state()
    assert (mine["step"], mine["moment"]) == (theirs["step"], theirs["moment"])
    torch.testing.assert_close(mine["optimizer"], theirs["optimizer"], rtol=0, atol=0)
    clock = {"seconds", "images_per_second"}
    rows = [
        [{key: value for key, value in row.items() if key not in clock} for row in run.metrics()]
        for run in (folder, whole)
    ]
    assert rows[0] == rows[1]
    snapshots = [sorted((run.path / "snapshots").glob("*")) for run in (folder, whole)]
    assert [path.name for path in snapshots[0]] == [path.name for path in snapshots[1]]
    for mine_path, their_path in zip(*snapshots, strict=True):
        assert all(value.equal(load(their_path)[key]) for key, value in load(mine_path).items())


@pytest.mark.parametrize("kill_at", [0, 1, 2, 3, 4, 5, 6])
def test_a_run_goes_on_from_wherever_it_was_killed(tmp_path: Path, kill_at: int) -> None:
    whole = tiny_train(tmp_path / "whole")
    with pytest.raises(KilledError):
        tiny_train(tmp_path / "killed", kill_at=kill_at)
    folder = go_on(RunFolder.open(tmp_path / "killed"))
    assert weights(folder) == weights(whole)
    check_same_state(folder, whole)


def test_going_on_with_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "model=st-fcn")
    before = {path: path.read_bytes() for path in sorted(folder.path.rglob("*")) if path.is_file()}
    go_on(folder)
    after = {path: path.read_bytes() for path in sorted(folder.path.rglob("*")) if path.is_file()}
    assert before == after


def test_seconds_that_were_trained_count_after_a_resume(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        tiny_train(tmp_path / "a", "steps=0", "seconds=0.3", "checkpoint_every=1", kill_at=5)
    folder = RunFolder.open(tmp_path / "a")
    trained = folder.load_state()["elapsed"]
    go_on(folder)
    assert folder.load_state()["elapsed"] < 0.3 + 0.2
    seconds = [row["seconds"] for row in folder.metrics()]
    assert seconds == sorted(seconds)
    assert trained > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_between_two_steps(tmp_path: Path, number: int) -> None:
    whole = tiny_train(tmp_path / "whole", "model=tutorial", "data=plain", "checkpoint_every=100")
    folder = start(tiny_config("model=tutorial", "data=plain", "checkpoint_every=100"), tmp_path / "stopped")
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(row: Mapping[str, Any]) -> None:
        if row["step"] == 3 and "loss" in row:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as stopped:
        train(folder, tiny_digits(), interrupt)
    assert {each: signal.getsignal(each) for each in before} == before
    assert 3 <= stopped.value.step <= 4
    assert folder.load_state()["step"] == stopped.value.step
    go_on(folder)
    assert weights(folder) == weights(whole)


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a")
    folder.write_json("config.json", {**json.loads((folder.path / "config.json").read_text()), "width": 16})
    for action in (lambda: go_on(folder), lambda: evaluate(folder, "cpu", tiny_digits())):
        with pytest.raises(UserError, match="checkpoints") as raised:
            action()
        assert "\n" not in str(raised.value)


def test_a_state_without_its_parts_is_named(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "steps=4")
    config = json.loads((folder.path / "config.json").read_text())
    folder.write_json("config.json", {**config, "steps": 6})
    torch.save({"step": 4}, folder.checkpoints()[-1] / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt: "):
        go_on(folder)


# NaN


def poison(folder: RunFolder, **changes: object) -> None:
    """Give a run that stands still other settings."""
    folder.write_json("config.json", {**json.loads((folder.path / "config.json").read_text()), **changes})


def loss_of(folder: RunFolder, checkpoint: Path) -> float:
    model = models.build(folder.config())
    model.load_state_dict(load(checkpoint / "model.safetensors"))
    data = DigitSet(tiny_digits(), folder.config().data, 0)
    batch = data.test_batch(0, torch.arange(TEST))
    with torch.no_grad():
        return float(F.cross_entropy(model(batch.images), batch.labels))


@pytest.mark.parametrize("name", ["fcn", "st-fcn"])
@pytest.mark.parametrize("log_every", [1, 50])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path, name: str, log_every: int) -> None:
    with pytest.raises(KilledError):
        tiny_train(tmp_path / "a", f"model={name}", "steps=20", "evaluations=20", kill_at=5)
    folder = RunFolder.open(tmp_path / "a")
    good = {path.name: weights for path in folder.checkpoints() for weights in [load(path / "model.safetensors")]}
    assert list(good) == ["step-00000002", "step-00000004"]
    poison(folder, learning_rate=1e30, checkpoint_every=10, log_every=log_every, evaluations=0)
    with pytest.raises(UserError) as raised:
        go_on(folder)
    text = str(raised.value)
    # Step 5 takes the ruinous step, from weights that were fine; step 6 or the one after it sees what came of it.
    assert text.startswith(("loss: not finite at step 6", "loss: not finite at step 7"))
    assert str(folder.checkpoints()[-1]) in text
    assert "\n" not in text
    assert [path.name for path in folder.checkpoints()] == list(good)
    for path in folder.checkpoints():
        kept = load(path / "model.safetensors")
        assert all(value.equal(good[path.name][key]) for key, value in kept.items())
    assert all(math.isfinite(row["loss"]) for row in folder.metrics() if "loss" in row)


def test_a_ruined_network_is_not_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        tiny_train(tmp_path / "a", "steps=20", kill_at=5)
    folder = RunFolder.open(tmp_path / "a")
    poison(folder, learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(UserError, match="not finite at step"):
        go_on(folder)
    assert folder.checkpoints()
    for path in folder.checkpoints():
        assert math.isfinite(loss_of(folder, path)), path.name
    # So the run can go on once the rate is mended.
    poison(folder, learning_rate=1e-3, steps=6)
    go_on(folder)
    assert folder.load_state()["step"] == 6


@pytest.mark.parametrize("rate", [1e30, 1e39])
def test_a_run_that_is_ruined_at_once_leaves_no_bad_checkpoint(tmp_path: Path, rate: float) -> None:
    config = tiny_config(f"learning_rate={rate}", "warmup=0", "checkpoint_every=1", "evaluations=0")
    folder = start(config, tmp_path / "a")
    with pytest.raises(UserError, match=r"not finite at step [123]"):
        go_on(folder)
    for path in folder.checkpoints():
        assert math.isfinite(loss_of(folder, path)), path.name
