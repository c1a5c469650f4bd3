"""Weights of a file for backbones of other packages, and whole runs with them: on stand-ins of the packages, and where
the packages themselves can be imported on those too.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from command_line import move_to, stn
from foreign_packages import FACTS, TIMM, TORCHVISION, Net, config, install_packages, saved
from photo_folder import WORDS, photo_folder

from torch_stn.lab import models
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.backbones import load_weights, read_weights
from torch_stn.lab.run_folder import RunFolder


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    install_packages(monkeypatch)


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
    torch.save([Net(3).conv1.weight], "list.pth")
    Path("old.pth").write_bytes(b"\x80\x02}q\x00.")
    for name in ("malice.pt", "net.pth", "list.pth", "old.pth"):
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
