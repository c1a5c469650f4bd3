"""The zoo: what is kept of a run, what comes back, and how files that are damaged are refused."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch
from tiny_run import TEST, tiny_digits, tiny_train
from torch import nn

from torch_stn.lab import models, zoo
from torch_stn.lab.data.sets import DigitSet, digit_facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate, quick_error
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.run_folder import RunFolder

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "zoo.py"
LIMIT = 1_000_000  # bytes


@pytest.fixture
def keeper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keep_in_zoo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of nothing, in a folder of its own."""
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    return tmp_path / "zoo"


def images(data: str = "r") -> torch.Tensor:
    return DigitSet(tiny_digits(), data, 0).test_batch(0, torch.arange(10 * TEST)).images


def outputs(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(pixels)


def test_what_is_kept_comes_back(tmp_path: Path, keeper: ModuleType, empty: Path) -> None:
    run = tiny_train(tmp_path / "run", "model=st-fcn", "data=rts", "width=16")
    before = evaluate(run, "cpu", tiny_digits())
    assert zoo.names() == []
    keeper.keep(run.path, "rts-tiny", tiny_digits())
    assert zoo.names() == ["rts-tiny"]
    assert {path.suffix for path in empty.iterdir()} == {".safetensors", ".json", ".md"}
    model = zoo.load("rts-tiny")
    assert isinstance(model, Aligned)
    assert not model.training
    assert zoo.config_of("rts-tiny") == run.config()
    trained = models.build(run.config()).eval()
    run.load_into(trained)
    assert torch.equal(outputs(model, images("rts")), outputs(trained, images("rts")))
    record = zoo.record_of("rts-tiny")
    assert not record["half"]
    assert record["evaluation"]["error"] == before["error"]
    assert record["evaluation"]["train_seconds"] == before["train_seconds"] > 0
    text = zoo.card("rts-tiny")
    assert text.startswith("# rts-tiny\n")
    assert f"* error: {before['error']:.2f} ± {before['error_sd']:.2f} %" in text
    assert f"{before['pose']['shift_px']['before']:.2f} -> {before['pose']['shift_px']['after']:.2f}" in text


def test_a_network_of_more_than_a_megabyte_is_kept_and_measured_in_half(
    tmp_path: Path, keeper: ModuleType, empty: Path
) -> None:
    run = tiny_train(tmp_path / "run", "model=bn-cnn", "width=80", "steps=2")
    path = keeper.keep(run.path, "wide", tiny_digits())
    assert len(safetensors.torch.save(run.load_weights())) > LIMIT >= path.stat().st_size
    model = zoo.load("wide")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for key, value in run.load_weights().items():
        assert torch.equal(model.state_dict()[key], value.half().float() if value.is_floating_point() else value), key
    predicted = outputs(model, images()).argmax(1)
    labels = DigitSet(tiny_digits(), "r", 0).test_batch(0, torch.arange(10 * TEST)).labels
    both = [100 * float((predicted != labels).float().mean())]
    second = DigitSet(tiny_digits(), "r", 0).test_batch(1, torch.arange(10 * TEST))
    both.append(100 * float((outputs(model, second.images).argmax(1) != second.labels).float().mean()))
    assert zoo.record_of("wide")["evaluation"]["error"] == pytest.approx(sum(both) / 2, abs=1e-4)
    assert "half precision" in zoo.card("wide")


def test_a_network_too_large_for_the_zoo_is_refused_and_nothing_is_written(
    tmp_path: Path, keeper: ModuleType, empty: Path
) -> None:
    run = tiny_train(tmp_path / "run", "width=512", "steps=1", "evaluations=0")
    with pytest.raises(UserError, match="bytes in half precision, wanted at most 1,000,000"):
        keeper.keep(run.path, "huge", tiny_digits())
    assert not empty.exists()


@pytest.mark.parametrize("name", ["", "A", "a/b", "a.b", "../a"])
def test_a_name_is_one_of_a_file(tmp_path: Path, keeper: ModuleType, empty: Path, name: str) -> None:
    run = tiny_train(tmp_path / "run", "steps=1", "evaluations=0")
    with pytest.raises(UserError, match="NAME: wanted small letters"):
        keeper.keep(run.path, name, tiny_digits())


def test_unknown_names_and_damaged_files_are_a_line(tmp_path: Path, keeper: ModuleType, empty: Path) -> None:
    with pytest.raises(UserError, match="rts: no network of the zoo, which has: none yet"):
        zoo.load("rts")
    run = tiny_train(tmp_path / "run", "steps=1", "evaluations=0")
    path = keeper.keep(run.path, "tiny-r", tiny_digits())
    with pytest.raises(UserError, match="tiny-rr: no network of the zoo, which has: tiny-r; nearest: tiny-r"):
        zoo.load("tiny-rr")
    whole, record = path.read_bytes(), path.with_suffix(".json").read_text()
    path.write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"tiny-r\.safetensors: not the weights of this network") as raised:
        zoo.load("tiny-r")
    assert "\n" not in str(raised.value)
    path.write_bytes(whole)
    for damage in ({"format": 7}, {"config": {"modle": "fcn"}}, {"config": 3}):
        path.with_suffix(".json").write_text(json.dumps(json.loads(record) | damage))
        with pytest.raises(UserError, match=r"tiny-r\.json: "):
            zoo.load("tiny-r")
    other = json.loads(record)
    other["config"]["width"] = 9
    path.with_suffix(".json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="not the weights of this network"):
        zoo.load("tiny-r")


def test_the_networks_of_the_package_are_whole_small_and_as_good_as_their_cards_say() -> None:
    """On 60 digits that they were not trained on; each is allowed two mistakes more than its error predicts."""
    for name in zoo.names():
        model, record = zoo.load(name), zoo.record_of(name)
        assert all(
            (zoo.FOLDER / f"{name}{ending}").stat().st_size <= LIMIT for ending in (".safetensors", ".json", ".md")
        )
        data = zoo.config_of(name).data
        assert digit_facts(data).channels == 1
        error = quick_error(model, DigitSet(tiny_digits(), data, 0))
        assert error <= record["evaluation"]["error"] + 100 * 2 / (10 * TEST)
        assert f"{record['evaluation']['error']:.2f}" in zoo.card(name)


def test_a_run_on_images_is_refused(tmp_path: Path, keeper: ModuleType, empty: Path) -> None:
    run = tiny_train(tmp_path / "run", "steps=1", "evaluations=0")
    config = json.loads((run.path / "config.json").read_text())
    RunFolder(run.path).write_json("config.json", config | {"source": "folder", "data": "x", "model": "resnet"})
    with pytest.raises(UserError, match="learned from images, wanted a run on digits"):
        keeper.keep(run.path, "photos", tiny_digits())
