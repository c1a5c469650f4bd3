"""Two steps of everything: every experiment, every network on every set, every precision."""

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from photo_folder import bird_folder, photo_folder, sign_folder
from tiny_run import tiny_digits, tiny_train

from torch_stn.lab import experiments, models
from torch_stn.lab.config import override
from torch_stn.lab.data.load import Source
from torch_stn.lab.data.photos import load_photos
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.session import start
from torch_stn.lab.train import (
    train,
)

TEST = 60  # digits


def load(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


@pytest.mark.parametrize("name", experiments.names())
def test_two_steps_of_every_experiment(tmp_path: Path, name: str) -> None:
    module = experiments.__dict__.get(name)
    configs = [experiments.config(name), *getattr(module, "RUNS", ())]
    for number, config in enumerate(configs):
        words = ["steps=2", "epochs=0", "seconds=0", "width=8", "batch_size=8", "digits=embedded"]
        words += ["evaluations=2", "test_distortions=1", "accelerator=cpu"]
        source: Source = tiny_digits()
        if config.photos:
            make = {"gtsrb": sign_folder, "cub": bird_folder}.get(config.source, photo_folder)
            words += [f"data={make(tmp_path / 'photos')}", "size=16"]
            source = load_photos(override(config, words), lambda line: None)
        folder = start(override(config, words), tmp_path / str(number), source=source)
        train(folder, source)
        record = evaluate(folder, "cpu", source)
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
