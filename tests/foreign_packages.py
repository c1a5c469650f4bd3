"""Stand-ins of timm and torchvision: the part of their documented interface that is used, with a net of a few layers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch
from photo_folder import WORDS
from torch import Tensor, nn

from torch_stn.lab.config import Config, override
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.experiments.folder import CONFIG
from torch_stn.lab.models.backbones import Backbone

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


def install_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins are what `import timm` and `import torchvision` find."""
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
