"""Training: how long, at which rate, which parameters, and what a session makes of a config."""

import math
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_run import tiny_config, tiny_digits, tiny_train, weights
from torch import nn

from torch_stn.lab import models
from torch_stn.lab.config import Config
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.dropout import set_samples
from torch_stn.lab.session import free_folder, run_name, start
from torch_stn.lab.train import (
    evaluation_moments,
    make_optimizer,
    progress,
    shape,
    step_limit,
)
from torch_stn.nn.penalties import area
from torch_stn.transforms import Affine

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
        return area(Affine()(torch.tensor([theta], dtype=torch.float32))).item()

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


# The loop


def test_training_is_the_plain_loop(tmp_path: Path) -> None:
    """Batches, dropout by sample, learning rates and updates, written down once more without Fabric."""
    words = ("model=tutorial", "data=plain", "steps=4", "localization_rate=0.5", "label_smoothing=0.2", "seed=5")
    folder = tiny_train(tmp_path / "a", *words)
    config = folder.config()
    model = models.build(config).train()
    optimizer = make_optimizer(model, config)
    data = DigitSet(tiny_digits(), config.data, config.seed)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * group["scale"] * shape(config, step / 4)
        batch = data.training_batch(step, config.batch_size)
        assert batch.samples.tolist() == list(range(8 * step, 8 * step + 8))
        set_samples(model, config.seed, batch.samples)
        optimizer.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.2).backward()
        optimizer.step()
    for name, value in folder.load_weights().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-6)


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
