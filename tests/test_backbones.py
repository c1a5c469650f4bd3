"""Backbones of other packages: their nets, weights from a file, what is refused. The packages themselves are played by
modules with the part of their documented interface that is used; where they can be imported, the same runs on them.
"""

import importlib
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from command_line import move_to, stn
from photo_folder import WORDS, photo_folder
from torch import Tensor, nn

from torch_stn.lab import models
from torch_stn.lab.config import Config, override
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.experiments.folder import CONFIG
from torch_stn.lab.models.backbones import Backbone, load_weights, read_weights
from torch_stn.lab.models.dropout import has_dropout, set_samples
from torch_stn.lab.run_folder import RunFolder

FACTS = Facts(3, 16, 16, ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3)
TIMM, TORCHVISION = "timm:resnet18", "torchvision:resnet18"


class Net(nn.Module):
    """A stand-in of a few layers: batch norm and dropout as those packages have them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 16:
            raise AssertionError("Input height (8) doesn't match model (16).\nSecond line")
        return self.fc(self.drop(self.bn1(self.conv1(x)).relu().mean(dim=(2, 3))))


class Detector(nn.Module):
    """A net whose last layer is none of classes."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def fake_timm() -> ModuleType:
    def create_model(name: str, pretrained: bool = False, *, num_classes: int = 1000, in_chans: int = 3) -> nn.Module:
        assert not pretrained
        assert in_chans == 3
        net = Net(num_classes)
        net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # type: ignore[assignment]
        net.num_features = 8  # type: ignore[assignment]
        return net

    module = ModuleType("timm")
    module.__dict__.update(
        create_model=create_model,
        is_model=lambda name: name.split(".")[0] == "resnet18",
        list_models=lambda: ["resnet18", "resnet50"],
    )
    return module


def fake_torchvision() -> tuple[ModuleType, ModuleType]:
    def list_models(module: ModuleType | None = None) -> list[str]:
        assert module is known
        return ["odd", "resnet18"]

    def get_model(name: str, *, weights: None) -> nn.Module:
        assert weights is None
        return Detector() if name == "odd" else Net(1000)

    known = ModuleType("torchvision.models")
    known.__dict__.update(list_models=list_models, get_model=get_model)
    whole = ModuleType("torchvision")
    whole.__dict__.update(models=known, __path__=[])
    return whole, known


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, known = fake_torchvision()
    for name, module in {"timm": fake_timm(), "torchvision": whole, "torchvision.models": known}.items():
        monkeypatch.setitem(sys.modules, name, module)


def config(backbone: str, *words: str) -> Config:
    return override(CONFIG, [*WORDS, "width=0", "data=photos", f"backbone={backbone}", *words])


def backbones(model: nn.Module) -> list[Backbone]:
    return [module for module in model.modules() if isinstance(module, Backbone)]


def saved(path: Path, net: nn.Module) -> str:
    """Weights of a net, other than those it starts with."""
    tensors = {key: torch.full_like(value, 0.25) for key, value in net.state_dict().items()}
    safetensors.torch.save_file(tensors, path)
    return str(path)


@pytest.mark.parametrize("name", [TIMM, "timm:resnet18.a1_in1k", TORCHVISION])
@pytest.mark.parametrize("words", [(), ("transform=none",), ("count=2", "crop=16"), ("count=2", "backbones=2")])
def test_a_net_of_another_package_is_the_backbone(packages: None, name: str, words: tuple[str, ...]) -> None:
    wanted = config(name, *words)
    model = models.build(wanted, FACTS)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    found = backbones(model)
    assert len(found) == wanted.backbones
    assert {each.out_features for each in found} == {8}
    assert all(each.training for each in found)
    again = models.build(wanted, FACTS)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)


def test_pixels_are_normalised_as_the_net_was_trained_and_grey_is_three_alike(packages: None) -> None:
    grey = Facts(1, 16, 16, ("a", "b"), (0.5,), (0.2,))
    x = torch.rand(2, 1, 16, 16)
    for name, mean, deviation in (
        (TIMM, [0.5] * 3, [0.5] * 3),
        (TORCHVISION, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ):
        model = models.build(config(name, "grey=true", "transform=none"), grey).eval()
        (net,) = backbones(model)
        ready = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
        torch.testing.assert_close(model(x), model.scores(net.net(ready)))  # type: ignore[operator]


def test_the_label_names_the_package_and_is_fit_for_a_file_name() -> None:
    assert models.label(config(TIMM)) == "ST-timm resnet18 affine"
    assert models.label(config(TORCHVISION, "transform=none")) == "torchvision resnet18"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("backbone=resnet18",), "backbone: wanted timm:NAME or torchvision:NAME, got 'resnet18'"),
        (("backbone=timm:hf-hub:a/b",), "backbone: wanted timm:NAME"),
        (("backbone=timm:../x",), "backbone: wanted timm:NAME"),
        (("weights=w.safetensors",), "weights: wanted backbone="),
        (("backbone=timm:resnet18", "width=8"), "width: is of our own net"),
        (("backbone=timm:resnet18", "width=0", "norm=batch"), "norm: is of our own net"),
        (("backbone=timm:resnet18", "width=0", "series=2"), "series: is of our own net"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(UserError) as raised:
        override(CONFIG, words)
    assert text in str(raised.value)


def test_digits_have_no_backbone() -> None:
    with pytest.raises(UserError, match="backbone: wanted images and model=resnet, got 'st-cnn'"):
        override(Config(), ["backbone=timm:resnet18"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("timm:resnet19", "backbone: timm has no 'resnet19'; nearest: resnet18"),
        ("torchvision:resnet19", "backbone: torchvision has no 'resnet19'; nearest: resnet18"),
        ("torchvision:odd", "torchvision:odd is not one row of features before one linear layer"),
    ],
)
def test_nets_that_are_not_there_or_of_another_kind_are_refused(packages: None, name: str, text: str) -> None:
    with pytest.raises(UserError) as raised:
        models.build(config(name), FACTS)
    assert text in str(raised.value)


def test_a_picture_that_the_net_cannot_look_at_is_told(packages: None) -> None:
    with pytest.raises(UserError) as raised:
        models.build(config(TIMM, "crop=8"), FACTS)
    assert str(raised.value) == (
        "backbone: timm:resnet18 cannot look at 8 x 8 pixels: Input height (8) doesn't match model (16)."
    )


@pytest.mark.parametrize("name", [TIMM, TORCHVISION])
def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def missing(wanted: str) -> None:
        raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted.split(".")[0])

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError) as raised:
        models.build(config(name), FACTS)
    package = name.split(":")[0]
    assert str(raised.value) == f"backbone: the package {package} is not installed: pip install 'torch-stn[backbones]'"


def test_a_torchvision_of_another_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatched(wanted: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", mismatched)
    with pytest.raises(UserError, match=r"torchvision cannot be used beside torch .*nms does not exist"):
        models.build(config(TORCHVISION), FACTS)


# Weights


def test_weights_reach_every_backbone_and_nothing_else(packages: None, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", Net(1000))
    wanted = config(TIMM, f"weights={path}", "count=2", "backbones=2")
    model, before = models.build(wanted, FACTS), models.build(wanted, FACTS)
    load_weights(model, wanted)
    for key, value in model.state_dict().items():
        same = value if ".net." not in key or "num_batches" in key else torch.full_like(value, 0.25)
        torch.testing.assert_close(value, same, rtol=0, atol=0)
        if ".net." not in key:
            torch.testing.assert_close(value, before.state_dict()[key], rtol=0, atol=0)


class Malice:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "wrap", [dict, lambda tensors: {"state_dict": dict(tensors), "epoch": 3}], ids=["plain", "nested"]
)
def test_plain_tensors_of_torch_save_are_read(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    torch.save(wrap(Net(3).state_dict()), tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == Net(3).state_dict().keys()


def test_what_would_have_to_be_unpickled_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "args": Malice()}, "malice.pt")
    torch.save(Net(3), "net.pth")
    Path("old.pth").write_bytes(b"\x80\x02}q\x00.")
    for name in ("malice.pt", "net.pth", "old.pth"):
        with pytest.raises(UserError) as raised:
            read_weights(Path(name))
        assert str(raised.value).startswith(f"weights: {name}: holds ")
        assert "\n" not in str(raised.value)
    assert not Path("executed").exists()


def test_files_that_do_not_fit_are_refused_before_a_run_begins(
    packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_to(tmp_path, monkeypatch)
    photo_folder(tmp_path / "photos")
    tensors = Net(3).state_dict()
    safetensors.torch.save_file({"conv1.weight": tensors["conv1.weight"]}, "few.safetensors")
    safetensors.torch.save_file(tensors | {"conv1.weight": torch.zeros(8, 1, 3, 3)}, "grey.safetensors")
    Path("cut.safetensors").write_bytes(b"12345678")
    Path("w.h5").touch()
    for name, text in {
        "none.safetensors": "none.safetensors: no such file",
        "few.safetensors": "has no bn1.weight, nor 3 others of timm:resnet18",
        "grey.safetensors": "conv1.weight: wanted the shape (8, 3, 3, 3), got (8, 1, 3, 3)",
        "cut.safetensors": "cut.safetensors: cannot be read",
        "w.h5": "weights: wanted a .safetensors file",
    }.items():
        words = (
            "train",
            "folder",
            "data=photos",
            *WORDS,
            "width=0",
            f"backbone={TIMM}",
            f"weights={name}",
            "--run",
            "r",
        )
        code, out, err = stn(*words)
        assert code == 2
        assert text in err.splitlines()[-1], err
        assert out == ""
        assert not Path("r").exists()


def test_what_a_net_draws_is_of_the_seed_and_the_sample(packages: None) -> None:
    model = models.build(config(TIMM, "transform=none"), FACTS)
    assert has_dropout(model)
    x, seen = torch.rand(4, 3, 16, 16), {}
    for seed, first in ((0, 0), (0, 4), (1, 0), (0, 0)):
        set_samples(model, seed, torch.arange(first, first + 4))
        torch.rand(zlib.crc32(str(len(seen)).encode()) % 7)  # the generator stands anywhere
        state = torch.get_rng_state()
        scores = model(x)
        assert torch.equal(torch.get_rng_state(), state)
        if (seed, first) in seen:
            assert torch.equal(seen[seed, first], scores)
        seen[seed, first] = scores
    assert not torch.equal(seen[0, 0], seen[0, 4])
    assert not torch.equal(seen[0, 0], seen[1, 0])


# Whole runs


def whole_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str, *words: str) -> None:
    """Trained, resumed, predicted and exported; the weights' file is gone after the training."""
    move_to(tmp_path, monkeypatch)
    photo_folder(tmp_path / "photos")
    call = ("train", "folder", "data=photos", *WORDS, "width=0", f"backbone={name}", f"weights={weights}", *words)
    for run in ("whole", "stopped"):
        code, _, err = stn(
            *call, *(("steps=4",) if run == "stopped" else ()), "schedule=steps", "warmup=0", "--run", run
        )
        assert code == 0, err
    record = RunFolder.open("whole").config()
    assert (record.backbone, record.weights) == (name, str(Path(weights).absolute()))
    Path(weights).unlink()
    stopped = RunFolder.open("stopped")
    unbroken = (stopped.checkpoints()[-1] / "model.safetensors").read_bytes()
    for checkpoint in stopped.checkpoints()[1:]:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    code, _, err = stn("train", "--resume", "stopped")
    assert code == 0, err
    assert (stopped.checkpoints()[-1] / "model.safetensors").read_bytes() == unbroken
    code, out, err = stn("predict", "whole", "photos")
    assert code == 0, err
    assert len(out.splitlines()) == 19
    code, _, err = stn("evaluate", "whole", "stopped")
    assert code == 0, err


@pytest.mark.parametrize("name", [TIMM, TORCHVISION])
def test_a_run_needs_its_weights_once(
    packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole_life(tmp_path, monkeypatch, name, saved(tmp_path / "w.safetensors", Net(1000)))


@pytest.mark.slow
def test_a_run_with_a_backbone_is_exported(packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_life(tmp_path, monkeypatch, TIMM, saved(tmp_path / "w.safetensors", Net(1000)))
    for kind in ("onnx", "torch"):
        code, out, err = stn("export", "whole", "--format", kind)
        assert code == 0, err
        print(out)


def real(name: str) -> Any:
    """The package, or a skip with the reason."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"{name}: {str(error).splitlines()[0]}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")  # theirs
@pytest.mark.parametrize("name", [TIMM, TORCHVISION, "timm:mobilenetv3_small_050", "torchvision:efficientnet_b0"])
def test_the_packages_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    package, _, net = name.partition(":")
    if package == "timm":
        made = real("timm").create_model(net, pretrained=False)
    else:
        made = real("torchvision.models").get_model(net, weights=None)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(made.state_dict(), path)
    whole_life(tmp_path, monkeypatch, name, str(path), "size=32", "steps=4")
    code, out, err = stn("export", "whole", "--format", "onnx")
    assert code == 0, err
    print(name, out)
