"""Backbones of other packages: what is built of their nets, what is refused."""

import importlib
import zlib

import pytest
import torch
from foreign_packages import FACTS, TIMM, TORCHVISION, backbones, config, install_packages

from torch_stn.lab import models
from torch_stn.lab.config import Config, override
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.experiments.folder import CONFIG
from torch_stn.lab.models.dropout import has_dropout, set_samples


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    install_packages(monkeypatch)


@pytest.mark.parametrize("name", [TIMM, "timm:resnet18.a1_in1k", TORCHVISION])
@pytest.mark.parametrize("words", [(), ("transform=none",), ("count=2", "crop=16"), ("count=2", "backbones=2")])
def test_a_net_of_another_package_is_the_backbone(packages: None, name: str, words: tuple[str, ...]) -> None:
    wanted = config(name, *words)
    model = models.build(wanted, FACTS)
    found = backbones(model)
    assert len(found) == wanted.backbones
    assert {each.out_features for each in found} == {8}
    assert all(each.training for each in found)
    again = models.build(wanted, FACTS)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)


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
        (
            ("backbone=resnet18",),
            "backbone: wanted timm:NAME, torchvision:NAME, lin-lucey or lin-lucey-cnn, got 'resnet18'",
        ),
        (("backbone=timm:hf-hub:a/b",), "backbone: wanted timm:NAME"),
        (("backbone=timm:../x",), "backbone: wanted timm:NAME"),
        (("weights=w.safetensors",), "weights: wanted backbone="),
        (("backbone=timm:resnet18", "width=8"), "width: is of our residual net"),
        (
            ("backbone=timm:resnet18", "width=0", "norm=batch"),
            "norm: is of our residual net, wanted group with backbone=timm:resnet18, got batch",
        ),
        (
            ("backbone=lin-lucey", "width=0", "average=false"),
            "average: is of our residual net, wanted true with backbone=lin-lucey, got false",
        ),
        (("backbone=timm:resnet18", "width=0", "series=2"), "series: is of our residual net"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(UserError) as raised:
        override(CONFIG, words)
    assert text in str(raised.value)


def test_digits_have_no_backbone() -> None:
    with pytest.raises(UserError, match="backbone: wanted model=resnet, got 'st-cnn'"):
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
