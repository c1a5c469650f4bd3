"""prepend puts a transformer in front of any model; parameter_groups tells localisation nets from the rest."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_stn import Affine, LocalizationConv, LocalizationFC, SpatialTransformer, ThinPlateSpline
from torch_stn.nn import parameter_groups, prepend
from torch_stn.transforms import TRANSFORMS


def classifier(channels: int = 1, side: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * side * side, 3)
    )


class TestPrepend:
    @pytest.mark.parametrize("name", [name for name, family in TRANSFORMS.items() if family().has_identity])
    def test_the_model_says_what_it_said(self, name: str) -> None:
        model = classifier().eval()
        x = torch.rand(2, 1, 12, 12)
        start = TRANSFORMS[name]().identity()
        torch.testing.assert_close(prepend(model, name, (1, 12, 12), init=start)(x), model(x), rtol=0, atol=1e-5)

    def test_its_parts(self) -> None:
        model, family = classifier(), ThinPlateSpline(3)
        both = prepend(model, family, (1, 12, 12), padding_mode="border", iterations=2)
        assert both.model is model
        assert both.transformer.transform is family
        assert both.transformer.padding_mode == "border"
        assert both.transformer.iterations == 2
        assert isinstance(both.transformer.features, LocalizationFC)

    def test_its_mode_is_the_model_s(self) -> None:
        assert prepend(classifier(), "affine", (1, 12, 12)).transformer.training
        assert not prepend(classifier().eval(), "affine", (1, 12, 12)).transformer.training

    @pytest.mark.parametrize(
        ("shape", "kind", "seen"),
        [
            ((1, 27, 40), LocalizationFC, None),
            ((3, 28, 28), LocalizationConv, None),
            ((1, 111, 300), LocalizationConv, None),
            ((3, 112, 113), nn.Sequential, (3, 56, 56)),
            ((1, 230, 500), nn.Sequential, (1, 57, 125)),
            ((1, 30, 30, 30), LocalizationConv, None),
        ],
        ids=["small", "28", "111", "112", "230", "volume"],
    )
    def test_what_localises(self, shape: tuple[int, ...], kind: type, seen: tuple[int, ...] | None) -> None:
        both = prepend(nn.Flatten(), "affine", shape)
        x = torch.rand(1, *shape)
        torch.testing.assert_close(both(x), x.flatten(1), rtol=0, atol=1e-5 * max(shape))
        assert isinstance(both.transformer.features, kind)
        if seen is not None:
            assert tuple(both.transformer.features[0](x).shape[1:]) == seen

    def test_another_size_than_the_picture_s(self) -> None:
        assert prepend(classifier(), "affine", (1, 30, 40), size=(12, 12))(torch.rand(2, 1, 30, 40)).shape == (2, 3)

    def test_more_arguments_go_to_the_model(self) -> None:
        class Scaled(nn.Module):
            def forward(self, x: Tensor, factor: float, *, offset: float) -> Tensor:
                return x * factor + offset

        x = torch.rand(2, 1, 8, 8)
        both = prepend(Scaled(), "affine", (1, 8, 8))
        torch.testing.assert_close(both(x, 2.0, offset=1.0), 2 * x + 1, rtol=0, atol=1e-5)

    def test_the_dtype_of_the_model(self) -> None:
        double = prepend(classifier().double(), "affine", (1, 12, 12))
        assert double(torch.rand(2, 1, 12, 12, dtype=torch.float64)).dtype == torch.float64
        half = prepend(classifier().bfloat16(), "affine", (1, 12, 12))
        assert half.transformer.head.weight.dtype == torch.float32
        assert half(torch.rand(2, 1, 12, 12).bfloat16()).dtype == torch.bfloat16

    def test_its_state_goes_to_another(self) -> None:
        one, other = (prepend(classifier(), "affine", (1, 12, 12)).eval() for _ in range(2))
        nn.init.normal_(one.transformer.head.weight)
        x = torch.rand(2, 1, 12, 12)
        assert not torch.equal(other(x), one(x))
        other.load_state_dict(one.state_dict())
        assert torch.equal(other(x), one(x))
        assert sum(key.startswith("model.") for key in one.state_dict()) == len(classifier().state_dict())

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"model": print}, TypeError, r"^model: wanted an nn.Module, got builtin_function_or_method$"),
            ({"transform": "afine"}, ValueError, r"^transform: wanted one of translation, .*, or a Transform object, got 'afine'$"),
            ({"transform": Affine}, TypeError, r"^transform: wanted a Transform object such as Affine\(\), or its name, got <class"),
            ({"transform": Affine(3)}, ValueError, r"^transform: wanted a 2-D family for in_shape, got a 3-D one, Affine\(dims=3\)$"),
            ({"in_shape": (12, 12)}, ValueError, r"^in_shape: wanted \(C, H, W\) or \(C, D, H, W\), each at least 1, got \(12, 12\)$"),
            ({"in_shape": None}, ValueError, r"^in_shape: wanted \(C, H, W\) or \(C, D, H, W\), each at least 1, got None$"),
            ({"count": 2}, TypeError, r"^count: several transformers side by side give "),
            ({"shared": nn.Linear(2, 2)}, ValueError, r"^shared: wanted layers of the model, got 2 parameters that it does not have$"),
            ({"shared": 2}, TypeError, r"^shared: wanted layers of the model, got int$"),
        ],
        ids=["model", "name", "class", "3-D", "no channels", "none", "count", "strangers", "number"],
    )  # fmt: skip
    def test_what_is_refused(self, change: dict[str, Any], error: type[Exception], message: str) -> None:
        right: dict[str, Any] = {"model": classifier(), "transform": "affine", "in_shape": (1, 12, 12)}
        given = right | change
        with pytest.raises(error, match=message):
            prepend(given.pop("model"), given.pop("transform"), given.pop("in_shape"), **given)


class TestSharedLayers:
    @pytest.mark.parametrize("iterations", [1, 2])
    def test_they_learn_from_the_localisation_too(self, iterations: int) -> None:
        model = classifier().eval()
        both = prepend(model, "affine", (1, 12, 12), shared=model[:3], iterations=iterations)
        x = torch.rand(2, 1, 12, 12)
        torch.testing.assert_close(both(x), model(x), rtol=0, atol=1e-5)
        nn.init.normal_(both.transformer.head.weight, std=0.1)
        weight = model[0].weight
        through_theta = torch.autograd.grad(both.transformer.theta(x).sum(), weight)[0]
        assert through_theta.any()
        # The gradient of the whole is that through theta and that through the classifier's own use of the layers.
        separate = prepend(
            copy.deepcopy(model),
            "affine",
            (1, 12, 12),
            features=copy.deepcopy(both.transformer.features),
            iterations=iterations,
        )
        separate.transformer.head.load_state_dict(both.transformer.head.state_dict())
        torch.testing.assert_close(separate(x), both(x))
        whole = torch.autograd.grad(both(x).square().sum(), weight)[0]
        parts = torch.autograd.grad(
            separate(x).square().sum(), [separate.model[0].weight, separate.transformer.features[0][0].weight]
        )
        torch.testing.assert_close(whole, parts[0] + parts[1])

    def test_they_are_counted_once_and_copied_together(self) -> None:
        model = classifier()
        alone = sum(p.numel() for p in model.parameters())
        both = prepend(model, "affine", (1, 12, 12), shared=model[:3])
        own = sum(p.numel() for p in both.transformer.features[1].parameters()) + sum(
            p.numel() for p in both.transformer.head.parameters()
        )
        assert sum(p.numel() for p in both.parameters()) == alone + own
        twin = copy.deepcopy(both)
        assert twin.transformer.features[0][0].weight is twin.model[0].weight
        assert twin.model[0].weight is not model[0].weight

    def test_features_of_ones_own_behind_them(self) -> None:
        model = classifier()
        own = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten())
        both = prepend(model, "affine", (1, 12, 12), shared=model[:3], features=own)
        assert both.transformer.head.in_features == 4 * 9

    def test_they_learn_at_the_rate_of_the_model(self) -> None:
        model = classifier()
        both = prepend(model, "affine", (1, 12, 12), shared=model[:3])
        groups = parameter_groups(both, lr=1.0, localization_rate=0.1)
        slow = {p for group in groups if group["lr"] == 0.1 for p in group["params"]}
        assert slow == set(both.transformer.features[1].parameters()) | set(both.transformer.head.parameters())


class TestParameterGroups:
    def test_every_parameter_once_in_its_group(self) -> None:
        model = prepend(classifier(), "affine", (1, 12, 12))
        model.model[1].bias.requires_grad_(False)
        groups = parameter_groups(model, lr=0.01, localization_rate=0.5, weight_decay=0.1)
        of = {p: (group["lr"], group["scale"], group["weight_decay"]) for group in groups for p in group["params"]}
        assert sum(len(group["params"]) for group in groups) == len(of) == len(list(model.parameters())) - 1
        for name, parameter in model.named_parameters():
            if name == "model.1.bias":
                continue
            inside = name.startswith("transformer.")
            decays = parameter.dim() > 1 and not name.startswith("transformer.head.")
            assert of[parameter] == (0.005 if inside else 0.01, 0.5 if inside else 1.0, 0.1 if decays else 0.0), name

    def test_a_rate_of_zero_freezes(self) -> None:
        model = prepend(classifier(), "affine", (1, 12, 12))
        before = copy.deepcopy(model.transformer.state_dict())
        optimizer = torch.optim.AdamW(parameter_groups(model, lr=0.1, localization_rate=0.0, weight_decay=0.1))
        model(torch.rand(2, 1, 12, 12)).square().sum().backward()
        weight = model.model[0].weight.clone()
        optimizer.step()
        assert all(torch.equal(value, before[name]) for name, value in model.transformer.state_dict().items())
        assert not torch.equal(model.model[0].weight, weight)

    def test_a_model_without_a_transformer(self) -> None:
        (weights, rest) = parameter_groups(nn.Linear(2, 2), lr=0.1, localization_rate=0.0, weight_decay=0.5)
        assert (weights["lr"], rest["lr"]) == (0.1, 0.1)
        assert (weights["weight_decay"], rest["weight_decay"]) == (0.5, 0.0)

    def test_a_transformer_alone(self) -> None:
        stn = SpatialTransformer(LocalizationFC((1, 4, 4)), Affine())
        assert {group["scale"] for group in parameter_groups(stn, lr=1.0, localization_rate=3.0)} == {3.0}

    @pytest.mark.parametrize("name", ["lr", "localization_rate", "weight_decay"])
    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf], ids=["negative", "nan", "infinite"])
    def test_what_is_refused(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=rf"^{name}: wanted a finite number >= 0, got {value!r}$"):
            parameter_groups(nn.Linear(2, 2), **{"lr": 0.1, name: value})
