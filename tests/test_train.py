"""Training and evaluation on a few digits: what a run leaves on the disk, going on after a stop, stopping at NaN."""

import json
import math
import os
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from tiny_run import KilledError, go_on, tiny_config, tiny_digits, tiny_train, weights
from torch import nn

from torch_stn.lab import experiments, models
from torch_stn.lab.config import Config, override
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import ClassSums, evaluate, quick_error
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import free_folder, run_name, start
from torch_stn.lab.train import (
    Interrupted,
    area_penalty,
    evaluation_moments,
    make_optimizer,
    progress,
    shape,
    step_limit,
    train,
)
from torch_stn.transforms import Affine

TEST = 60  # digits


def load(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


# What a run leaves


@pytest.mark.parametrize("name", ["fcn", "st-fcn"])
@pytest.mark.parametrize("data", ["rts", "plain"])
def test_a_run_folder_has_everything_that_its_page_lists(tmp_path: Path, name: str, data: str) -> None:
    words = (f"model={name}", f"data={data}", "steps=6", "checkpoint_every=2", "log_every=2", "evaluations=3")
    folder = tiny_train(tmp_path / "run", *words, "tensorboard=yes")
    record = evaluate(folder, "cpu", tiny_digits())
    transformer, side = name == "st-fcn", 42 if data == "rts" else 28

    made = {"config.json", "environment.json", "metrics.jsonl", "checkpoints", "tensorboard"}
    made |= {"evaluation.json", "evaluation.safetensors"} | ({"snapshots"} if transformer else set())
    assert {entry.name for entry in folder.path.iterdir()} == made
    assert len(list((folder.path / "tensorboard").iterdir())) == 1

    # Checkpoints: the last two, each whole.
    assert [path.name for path in folder.checkpoints()] == ["step-00000004", "step-00000006"]
    for path in folder.checkpoints():
        assert {entry.name for entry in path.iterdir()} == {"model.safetensors", "state.pt"}

    # Metrics: a loss every two steps, an error at each of three moments: 0, 1/4 and all of the run.
    rows = folder.metrics()
    losses = [row for row in rows if "loss" in row]
    errors = [row for row in rows if "test_error" in row]
    assert len(losses) + len(errors) == len(rows)
    assert [row["step"] for row in losses] == [2, 4, 6]
    assert [row["step"] for row in errors] == [0, 2, 6]
    for row in losses:
        assert row.keys() == {"step", "seconds", "loss", "learning_rate", "images_per_second"}
        assert row["loss"] > 0
        assert row["images_per_second"] > 0
    for row in errors:
        assert row.keys() == {"step", "seconds", "test_error"}
        assert 0 <= row["test_error"] <= 100
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)

    # Snapshots: what a dozen digits look like behind the transformer, and where it reads them.
    if transformer:
        paths = sorted((folder.path / "snapshots").iterdir())
        assert [path.name for path in paths] == [f"step-{step:08d}.safetensors" for step in (0, 2, 6)]
        for path, step in zip(paths, (0, 2, 6), strict=True):
            arrays = load(path)
            check_pictures(arrays, side)
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata()
            assert int(metadata["step"]) == step
            assert float(metadata["seconds"]) >= 0

    # The evaluation.
    assert json.loads((folder.path / "evaluation.json").read_text()) == record
    keys = {"error", "error_sd", "distortions", "test_images", "parameters", "train_seconds", "train_steps"}
    assert record.keys() >= keys | {"pose", "variance", "digits", "set", "label"}
    distortions = 1 if data == "plain" else 2  # a plain digit is the same every time
    assert record["distortions"] == distortions
    assert record["test_images"] == distortions * TEST
    assert record["train_steps"] == 6
    assert record["train_seconds"] == rows[-1]["seconds"] > 0
    assert record["digits"] == tiny_digits().name
    assert record["set"] == ("RTS" if data == "rts" else "plain")
    assert record["label"] == ("ST-FCN affine" if transformer else "FCN")
    assert record["parameters"] == models.count_parameters(models.build(folder.config()))
    arrays = load(folder.path / "evaluation.safetensors")
    check_evaluation(arrays, record, side=side, transformer=transformer, posed=data == "rts")


def check_pictures(arrays: dict[str, torch.Tensor], side: int) -> None:
    assert arrays["outputs"].shape == (12, side, side)
    assert arrays["outputs"].dtype == torch.float32
    assert 0 <= arrays["outputs"].min() < arrays["outputs"].max() <= 1 + 1e-5
    assert arrays["lines"].shape[:2] == (12, 10)
    assert arrays["lines"].shape[3] == 2
    assert arrays["lines"].dtype == torch.float32


def check_evaluation(
    arrays: dict[str, torch.Tensor], record: dict[str, Any], *, side: int, transformer: bool, posed: bool
) -> None:
    wanted = {"confusion", "mean_inputs", "inputs", "labels", "predictions"}
    wanted |= {"mistakes", "mistake_labels", "mistake_predictions", "mistake_confidence"}
    if transformer:
        wanted |= {"outputs", "lines", "mean_outputs", "mistake_outputs"}
        check_pictures(arrays, side)
    if transformer and posed:
        wanted |= {"true_pose", "predicted_pose", "pose_labels"}
    assert arrays.keys() == wanted

    confusion = arrays["confusion"]
    assert confusion.dtype == torch.int64
    assert confusion.shape == (10, 10)
    assert confusion.sum() == record["test_images"]
    assert (confusion.sum(dim=1) == record["test_images"] / 10).all()  # rows are the true classes
    wrong = confusion.sum() - confusion.diagonal().sum()
    assert record["error"] == pytest.approx(100 * wrong.item() / record["test_images"])

    assert arrays["labels"].tolist() == [*range(10), 2, 4]
    assert arrays["inputs"].shape == (12, side, side)
    assert arrays["predictions"].shape == (12,)
    assert arrays["mean_inputs"].shape == (10, side, side)
    count = min(24, int(wrong)) if record["distortions"] == 1 else len(arrays["mistakes"])
    assert 0 < count <= 24
    assert arrays["mistakes"].shape == (count, side, side)
    assert arrays["mistake_labels"].shape == arrays["mistake_predictions"].shape == (count,)
    assert (arrays["mistake_labels"] != arrays["mistake_predictions"]).all()
    confidence = arrays["mistake_confidence"]
    assert confidence.equal(confidence.sort(descending=True).values)
    assert 0.1 <= confidence.min() <= confidence.max() <= 1

    if not transformer:
        assert record["pose"] is record["variance"] is record["variance_share"] is None
        return
    assert arrays["mean_outputs"].shape == (10, side, side)
    assert arrays["mistake_outputs"].shape == (count, side, side)
    assert 0 < record["variance"]["after"] < 1
    for pair in (record["variance"], record["variance_share"]):
        assert pair["after"] == pytest.approx(pair["before"], rel=0.3)
    if not posed:
        assert record["pose"] is None
        return
    assert record["pose"].keys() == {"rotation_deg", "shift_px", "log_scale"}
    for pair in record["pose"].values():
        assert pair.keys() == {"before", "after"}
        # Six steps teach nothing: what is left is what there was, and never nothing.
        assert pair["after"] == pytest.approx(pair["before"], rel=0.3)
    assert 15 < record["pose"]["rotation_deg"]["before"] < 30
    assert arrays["true_pose"].shape == arrays["predicted_pose"].shape == (TEST, 4)
    assert arrays["pose_labels"].equal(torch.from_numpy(tiny_digits().test_labels))


def test_the_same_config_makes_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = tiny_train(tmp_path / "a", "model=st-cnn")
    torch.manual_seed(2)
    second = tiny_train(tmp_path / "b", "model=st-cnn")
    other = tiny_train(tmp_path / "c", "model=st-cnn", "seed=1")
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_what_is_watched_and_written_changes_no_weight(tmp_path: Path) -> None:
    quiet = tiny_train(tmp_path / "a", "model=tutorial", "evaluations=0", "log_every=100", "checkpoint_every=100")
    busy = tiny_train(tmp_path / "b", "model=tutorial", "evaluations=6", "log_every=1", "checkpoint_every=1")
    assert weights(quiet) == weights(busy)


def test_evaluating_twice_says_the_same_and_leaves_the_model_training(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "model=bn-cnn")
    first = evaluate(folder, "cpu", tiny_digits())
    assert evaluate(folder, "cpu", tiny_digits()) == first
    model = models.build(folder.config()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quick_error(model, DigitSet(tiny_digits(), "r", 0))
    assert model.training
    assert torch.is_grad_enabled()
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())  # batch statistics too


def test_learning_lowers_the_loss(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "data=plain", "width=32", "steps=60", "learning_rate=0.01", "evaluations=2")
    rows = [row for row in folder.metrics() if "loss" in row]
    assert sum(row["loss"] for row in rows[-10:]) < 0.5 * sum(row["loss"] for row in rows[:10])
    errors = [row["test_error"] for row in folder.metrics() if "test_error" in row]
    assert errors[-1] < 60 < errors[0]


# The length of a run


def test_a_run_ends_at_the_first_of_its_limits() -> None:
    assert step_limit(Config(steps=7), 100) == 7
    assert step_limit(Config(steps=0, epochs=2, batch_size=8), 100) == 25
    assert step_limit(Config(steps=0, epochs=0.5, batch_size=64), 100) == 1
    assert step_limit(Config(steps=7, epochs=2, batch_size=8), 100) == 7
    assert step_limit(Config(steps=70, epochs=2, batch_size=8), 100) == 25
    assert step_limit(Config(steps=0, seconds=9), 100) == math.inf
    config = Config(steps=10, seconds=2.0)
    assert progress(config, 10, 0, 0) == 0
    assert progress(config, 10, 5, 0.1) == 0.5
    assert progress(config, 10, 1, 1.5) == 0.75
    assert progress(config, 10, 11, 0) == progress(config, 10, 0, 9) == 1
    assert progress(Config(steps=0, seconds=2.0), math.inf, 10**6, 1) == 0.5


def test_a_run_of_seconds_ends(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "steps=0", "seconds=0.2", "log_every=1000")
    rows = folder.metrics()
    assert rows[-1]["seconds"] >= 0.2
    assert folder.load_state()["elapsed"] >= 0.2
    assert next(row["step"] for row in rows if "test_error" in row) == 0


def test_a_run_of_epochs_ends(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "steps=0", "epochs=0.1", "batch_size=10")  # of 240 digits
    assert folder.load_state()["step"] == 3


# The schedule


@pytest.mark.parametrize("warmup", [0.02, 0.25])
def test_the_cosine_rises_to_its_peak_and_falls_to_0(warmup: float) -> None:
    config = Config(warmup=warmup)
    at = [i / 1000 for i in range(1001)]
    rates = [shape(config, done) for done in at]
    assert rates[0] == 0.01  # the first step should move
    assert shape(config, warmup / 2) == pytest.approx(0.5)
    assert shape(config, warmup) == 1 == max(rates)
    assert shape(config, (1 + warmup) / 2) == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(abs(a - b) for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False)) < 0.01  # no jumps


def test_the_rate_of_steps_falls_by_ten_at_each_third() -> None:
    config = Config(schedule="steps", warmup=0.0)
    assert [shape(config, done) for done in (0, 0.33, 0.34, 0.66, 0.67, 1.0)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize("schedule", ["cosine", "steps"])
@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.999])
def test_a_rate_at_every_moment(schedule: str, warmup: float) -> None:
    config = Config(schedule=schedule, warmup=warmup)
    assert all(0 <= shape(config, i / 997) <= 1 for i in range(998))


def test_the_rate_that_is_written_is_the_one_of_the_schedule(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "steps=10", "learning_rate=0.01", "warmup=0.2")
    rows = [row for row in folder.metrics() if "loss" in row]
    expected = [0.01 * shape(folder.config(), row["step"] / 10) for row in rows]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 14])
def test_moments_of_looking_are_closer_together_at_the_start(count: int) -> None:
    moments = evaluation_moments(count)
    assert len(moments) == count
    if count:
        assert moments[0] == 0
    if count > 1:
        assert moments[-1] == 1
    gaps = [b - a for a, b in pairwise(moments)]
    assert gaps == sorted(gaps)


# The optimiser


def rows_of(model: nn.Module, config: Config) -> dict[str, tuple[float, float]]:
    """Each parameter's share of the learning rate and its weight decay, as the optimiser has them."""
    groups = make_optimizer(model, config).param_groups
    of = {parameter: (group["scale"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in groups)  # none twice
    return {name: of[parameter] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weights_decay_but_biases_norms_and_the_regression_do_not(optimizer: str) -> None:
    words = ("weight_decay=0.3", f"optimizer={optimizer}", "localization_rate=0.25", "learning_rate=0.125")
    config = tiny_config("model=st-cnn", *words)
    model = models.build(config)
    rows = rows_of(model, config)
    assert len(rows) == len(list(model.parameters()))
    for name, (scale, decay) in rows.items():
        decays = name.endswith("weight") and "head" not in name
        assert decay == (0.3 if decays else 0.0), name
        assert scale == (0.25 if name.startswith("transformer.") else 1.0), name
    config = tiny_config("model=bn-cnn", *words)
    rows = rows_of(models.build(config), config)
    for name, (scale, decay) in rows.items():
        assert decay == (0.3 if name.endswith("weight") and "norm" not in name else 0.0), name
        assert scale == 1.0


def test_the_optimiser_is_the_one_asked_for() -> None:
    model = nn.Linear(2, 2)
    sgd = make_optimizer(model, Config(optimizer="sgd", momentum=0.75))
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.75}
    assert isinstance(make_optimizer(model, Config()), torch.optim.AdamW)


def test_a_localisation_net_without_a_rate_stays_as_it_is(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "model=st-fcn", "localization_rate=0", "weight_decay=0", "learning_rate=0.01")
    start_weights = models.build(folder.config()).state_dict()
    trained = folder.load_weights()
    for name, value in trained.items():
        assert value.equal(start_weights[name]) == name.startswith("transformer."), name


def test_clipping_limits_the_step(tmp_path: Path) -> None:
    words = ("optimizer=sgd", "momentum=0", "weight_decay=0", "learning_rate=1", "warmup=0", "steps=1", "evaluations=0")
    moved = []
    for name, clip in (("a", 0.0), ("b", 1e-3)):
        folder = tiny_train(tmp_path / name, *words, f"clip={clip}")
        before, after = models.build(folder.config()).state_dict(), folder.load_weights()
        moved.append(math.sqrt(sum(float((after[key] - before[key]).square().sum()) for key in after)))
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)
    assert moved[0] > 0.1


def test_the_area_penalty_counts_the_zoom() -> None:
    def penalty(*theta: float) -> float:
        return area_penalty(Affine()(torch.tensor([theta], dtype=torch.float32))).item()

    assert penalty(1, 0, 0.4, 0, 1, -0.2) == pytest.approx(0, abs=1e-6)  # shifts are free
    assert penalty(0.6, -0.8, 0, 0.8, 0.6, 0) == pytest.approx(0, abs=1e-6)  # and turns
    assert penalty(0.5, 0, 0, 0, 0.5, 0) == pytest.approx(math.log(4) ** 2, rel=1e-4)
    assert penalty(2, 0, 0, 0, 2, 0) == pytest.approx(math.log(4) ** 2, rel=1e-4)
    assert penalty(0, 0, 0, 0, 0, 0) == penalty(-1, 0, 0, 0, 1, 0) == pytest.approx(math.log(100) ** 2, rel=1e-4)


def test_the_area_penalty_acts_on_networks_with_a_transformer_only(tmp_path: Path) -> None:
    for model, acts in (("st-fcn", True), ("fcn", False)):
        plain = tiny_train(tmp_path / f"{model}-0", f"model={model}", "learning_rate=0.01")
        held = tiny_train(tmp_path / f"{model}-1", f"model={model}", "learning_rate=0.01", "area_penalty=5")
        assert (weights(plain) != weights(held)) == acts


# Going on


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

    def interrupt(row: dict[str, float]) -> None:
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


# Everything runs


@pytest.mark.parametrize("name", experiments.names())
def test_two_steps_of_every_experiment(tmp_path: Path, name: str) -> None:
    module = experiments.__dict__.get(name)
    configs = [experiments.config(name), *getattr(module, "RUNS", ())]
    for number, config in enumerate(configs):
        words = ["steps=2", "epochs=0", "seconds=0", "width=8", "batch_size=8", "digits=embedded"]
        words += ["evaluations=2", "test_distortions=1", "accelerator=cpu"]
        folder = start(override(config, words), tmp_path / str(number))
        train(folder, tiny_digits())
        record = evaluate(folder, "cpu", tiny_digits())
        assert record["train_steps"] == 2
        assert 0 <= record["error"] <= 100


TRANSFORMS = ("affine", "projective", "tps", "similarity")
PLAIN = [
    (model, data, "affine") for model in ("fcn", "cnn", "bn-cnn") for data in ("plain", "r", "rts", "p", "e", "tc")
]
SPATIAL = [
    (model, data, transform)
    for model in ("st-fcn", "st-cnn", "tutorial")
    for data in ("plain", "r", "rts", "p", "e", "tc")
    for transform in TRANSFORMS
    if not (model == "tutorial" and (data in ("rts", "tc") or transform != "affine"))
]


@pytest.mark.parametrize(("model", "data", "transform"), PLAIN + SPATIAL)
def test_two_steps_of_every_model_on_every_set(tmp_path: Path, model: str, data: str, transform: str) -> None:
    words = (
        f"model={model}",
        f"data={data}",
        f"transform={transform}",
        "steps=2",
        "evaluations=2",
        "test_distortions=1",
    )
    folder = tiny_train(tmp_path / "a", *words)
    record = evaluate(folder, "cpu", tiny_digits())
    assert record["train_steps"] == 2
    json.dumps(record, allow_nan=False)
    for name, value in load(folder.path / "evaluation.safetensors").items():
        assert torch.isfinite(value.float()).all(), name
    built = models.build(folder.config())
    changed = [not value.equal(built.state_dict()[key]) for key, value in folder.load_weights().items()]
    assert sum(changed) > len(changed) // 2
    if isinstance(built, Aligned):
        head = folder.load_weights()["transformer.head.weight"]
        assert head.abs().max() > 0  # the gradient reaches the localisation net


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("model", ["cnn", "st-fcn", "st-cnn"])
def test_two_steps_in_every_precision(tmp_path: Path, model: str, precision: str) -> None:
    folder = tiny_train(tmp_path / "a", f"model={model}", f"precision={precision}", "steps=2", "evaluations=2")
    assert evaluate(folder, "cpu", tiny_digits())["train_steps"] == 2


# Session


def test_names_of_runs(tmp_path: Path) -> None:
    config = tiny_config("model=st-fcn", "transform=tps", "data=rts", "seed=3")
    name = run_name(config)
    assert name == "tiny-rts-st-fcn-tps-seed3"
    assert free_folder(tmp_path, name) == tmp_path / name
    start(config, tmp_path / name)
    assert free_folder(tmp_path, name) == tmp_path / f"{name}-2"
    start(config, tmp_path / f"{name}-2")
    assert free_folder(tmp_path, name) == tmp_path / f"{name}-3"
    shutil.rmtree(tmp_path / name)
    assert free_folder(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "words",
    [("model=tutorial", "data=rts"), ("transform=afine", "model=st-fcn"), ("precision=foo",), ("accelerator=foo",)],
)
def test_a_config_that_cannot_work_leaves_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        start(tiny_config(*words), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_stn.lab import train as module

    class TwoProcesses:
        world_size = 2

    monkeypatch.setattr(module, "launch", lambda config: TwoProcesses())
    with pytest.raises(UserError, match="batch_size: wanted a multiple of the 2 processes, got 9"):
        tiny_train(tmp_path / "a", "batch_size=9")


# Sums


def test_means_and_variance_within_a_class() -> None:
    images, labels = torch.rand(300, 1, 4, 5), torch.randint(0, 9, (300,))  # no nines
    sums = ClassSums()
    for part in torch.arange(300).split(70):
        sums.add(images[part], labels[part])
    means = sums.means()
    variances = []
    for digit in range(9):
        chosen = images[labels == digit, 0]
        torch.testing.assert_close(means[digit], chosen.mean(dim=0))
        variances.append(chosen.double().var(dim=0, unbiased=False).mean())
    assert means[9].abs().max() == 0
    variance, share = sums.variance()
    assert variance == pytest.approx(float(torch.stack(variances).mean()))
    squares = [images[labels == digit].double().square().mean() for digit in range(9)]
    assert share == pytest.approx(variance / float(torch.stack(squares).mean()))
