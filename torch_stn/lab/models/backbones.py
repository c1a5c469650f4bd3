"""Backbones of torchvision and timm: an image's features by somebody else's net, with weights of a file on this disk.
Nothing is downloaded, nothing is unpickled.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from torch_stn.lab.config import Config
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.dropout import Keyed
from torch_stn.lab.models.residual import Normalize

INSTALL = "pip install 'torch-stn[backbones]'"
# What nearly all published weights were trained with, where the net does not say.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 1000  # of torchvision's classifiers, whose last layer is taken off
NESTED = ("state_dict", "model")  # keys under which training scripts put the tensors
SPREAD = 0x9E3779B97F4A7C15  # so that neighbouring seeds are far apart


class Backbone(Keyed):
    """Pixels in [0, 1], grey or colour, normalised as the net's own training did: (N, C, H, W) -> (N, out_features).

    Whatever the net draws while it trains (dropout, stochastic depth) is a function of the seed and of the batch's
    first sample: a resumed run repeats it, with as many processes as before.
    """

    def __init__(self, net: nn.Module, mean: Sequence[float], deviation: Sequence[float], out_features: int) -> None:
        super().__init__()
        self.normalize = Normalize(mean, deviation)
        self.net = net
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalize(x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1))
        if not self.training or self.samples is None:
            return self.net(x)
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            torch.manual_seed((self.seed * SPREAD + int(self.samples[0])) % 2**63)
            return self.net(x)


def foreign_backbone(config: Config, side: int) -> Backbone:
    """The net that ``backbone=PACKAGE:NAME`` names, without its classifier, for pictures of so many pixels a side.

    Raises: UserError for a package that is missing, a name it does not have, a net that cannot look at such pictures.
    """
    package, _, name = config.backbone.partition(":")
    net, mean, deviation = (_timm if package == "timm" else _torchvision)(name)
    return Backbone(net, mean, deviation, _features(net, config.backbone, side))


def load_weights(model: nn.Module, config: Config) -> None:
    """Put the tensors of ``weights=`` into every backbone of a new network; those of a classifier are passed over."""
    if not config.weights:
        return
    path = Path(config.weights)
    tensors = read_weights(path)
    for net in (module.net for module in model.modules() if isinstance(module, Backbone)):
        own = net.state_dict()
        wanted = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
        lacking = [key for key in wanted if key not in tensors]
        if lacking:
            raise UserError(f"weights: {path}: has no {lacking[0]}, nor {len(lacking) - 1} others of {config.backbone}")
        for key, value in wanted.items():
            if tensors[key].shape != value.shape:
                shapes = f"{tuple(value.shape)}, got {tuple(tensors[key].shape)}"
                raise UserError(f"weights: {path}: {key}: wanted the shape {shapes}")
        net.load_state_dict({key: tensors.get(key, value) for key, value in own.items()})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a .pt or .pth that holds tensors and plain values alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of the archives that are refused here
            if path.suffix == ".safetensors":
                found: Any = safetensors.torch.load_file(path)
            elif path.suffix in (".pt", ".pth"):
                found = torch.load(path, map_location="cpu", weights_only=True)
            else:
                raise UserError(f"weights: wanted a .safetensors file, or a .pt or .pth of plain tensors, got {path}")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"weights: {path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights: {path}: cannot be read: {_line(error)}") from None
    except Exception:  # whatever a broken or hostile file makes of the reader
        raise UserError(f"weights: {path}: holds more than plain tensors, or is damaged; wanted safetensors") from None
    found = found if isinstance(found, dict) else {}
    found = next((found[key] for key in NESTED if isinstance(found.get(key), dict)), found)
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"weights: {path}: holds no tensors by name")
    return tensors


def _timm(name: str) -> tuple[nn.Module, Sequence[float], Sequence[float]]:
    timm = _package("timm")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=3)
    known = getattr(net, "pretrained_cfg", None) or {}
    return net, known.get("mean") or MEAN, known.get("std") or DEVIATION


def _torchvision(name: str) -> tuple[nn.Module, Sequence[float], Sequence[float]]:
    known = _package("torchvision.models")
    classifiers = known.list_models(module=known)  # nets for detection and the like would download their own backbone
    if name not in classifiers:
        raise _unknown("torchvision", name, classifiers)
    net = known.get_model(name, weights=None)
    last = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)][-1:]
    if not last or net.get_submodule(last[0]).out_features != CLASSES or getattr(net, "aux_logits", False):
        raise UserError(f"backbone: torchvision:{name} is not one row of features before one linear layer of classes")
    net.set_submodule(last[0], nn.Identity())
    return net, MEAN, DEVIATION


def _package(name: str) -> Any:
    """A package that is imported only where a config names it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"backbone: the package {error.name} is not installed: {INSTALL}") from None
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # torchvision is built for one torch
        beside = f"beside torch {torch.__version__}: {_line(error)}"
        raise UserError(f"backbone: {name.split('.')[0]} cannot be used {beside}") from None


def _unknown(package: str, name: str, known: Iterable[str]) -> UserError:
    nearest = difflib.get_close_matches(name, list(known), 1)
    return UserError(f"backbone: {package} has no {name!r}{f'; nearest: {nearest[0]}' if nearest else ''}")


def _features(net: nn.Module, name: str, side: int) -> int:
    """How many a picture gives: asked of the net, since what packages say of it means different layers."""
    try:
        with torch.no_grad():
            found = net.eval()(torch.zeros(1, 3, side, side))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise UserError(f"backbone: {name} cannot look at {side} x {side} pixels: {_line(error)}") from None
    if not isinstance(found, Tensor) or found.dim() != 2:
        raise UserError(f"backbone: {name} gives no row of features for {side} x {side} pixels")
    net.train()
    return found.shape[1]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
