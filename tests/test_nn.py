"""SpatialTransformer and the paper's localisation features."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import FAMILIES, PADDINGS
from torch import Tensor, nn

from torch_stn import (
    Affine,
    Attention,
    LocalizationConv,
    LocalizationFC,
    Projective,
    Similarity,
    SpatialTransformer,
    Transform,
    warp,
)


def plain(transform: Transform, seen: tuple[int, ...] = (9, 7), channels: int = 2, **how: Any) -> SpatialTransformer:
    """A transformer of pictures of the size `seen`, on one hidden layer."""
    features = nn.Sequential(nn.Flatten(), nn.Linear(channels * torch.Size(seen).numel(), 6), nn.Tanh())
    return SpatialTransformer(features, transform, in_shape=(channels, *seen), **how)


def awake(stn: SpatialTransformer) -> SpatialTransformer:
    """With a head that is no longer at its start, so that theta differs from picture to picture."""
    torch.manual_seed(3)
    nn.init.normal_(stn.head.weight, std=0.1)
    return stn


# Polar coordinates move every picture: no theta of theirs is the identity.
STILL = [name for name, family in FAMILIES.items() if family().has_identity]


def at_rest(family: Transform) -> Tensor | None:
    """An exact identity also for families that start a little beside it."""
    return None if torch.equal(family.initial(), family.identity()) else family.identity()


class Backbone(nn.Module):
    """A net with batch norm and dropout that says nothing about its width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(F.relu(self.norm(self.conv(x))))


class TestStart:
    @pytest.mark.parametrize("name", STILL)
    def test_it_starts_as_the_identity(self, name: str) -> None:
        family = FAMILIES[name]()
        size = (9, 7) if family.dims == 2 else (3, 4, 5)
        x = torch.rand(3, 2, *size)
        stn = plain(family, size, init=at_rest(family))
        torch.testing.assert_close(stn(x), x, rtol=0, atol=1e-5)
        assert torch.equal(stn.theta(x), family.identity().flatten().expand(3, -1))
        unperturbed = plain(FAMILIES[name](), size)
        assert torch.equal(unperturbed.theta(x), family.initial().flatten().expand(3, -1))

    @pytest.mark.parametrize(
        "features",
        [
            LocalizationFC((2, 9, 7)),
            nn.Flatten(),
            Backbone(),
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            nn.Sequential(nn.Flatten(), nn.Linear(126, 3), nn.Softmax(dim=1)),
        ],
        ids=["fc", "flatten", "backbone", "conv", "softmax"],
    )
    def test_on_any_features(self, features: nn.Module) -> None:
        x = 100 * torch.rand(4, 2, 9, 7)
        stn = SpatialTransformer(features, Affine(), in_shape=(2, 9, 7))
        torch.testing.assert_close(stn(x), x, rtol=0, atol=1e-3)
        torch.testing.assert_close(stn.eval()(x), x, rtol=0, atol=1e-3)

    def test_the_start_may_be_given(self) -> None:
        wanted = torch.tensor([0.5, 0.25, -0.25])
        x = torch.rand(2, 2, 9, 7)
        assert torch.equal(plain(Attention(), init=wanted).theta(x), wanted.expand(2, -1))
        square = torch.tensor([[0.5, 0, 0], [0, 0.5, 0.1]])
        assert torch.equal(plain(Affine(), init=square).theta(x), square.flatten().expand(2, -1))
        both = plain(Attention(), init=wanted, count=2)
        assert torch.equal(both.theta(x), wanted.expand(2, 2, -1))
        tiles = torch.tensor([[0.5, -0.5, -0.5], [0.5, 0.5, -0.5], [0.5, -0.5, 0.5]])
        assert torch.equal(plain(Attention(), init=tiles, count=3).theta(x), tiles.expand(2, -1, -1))

    def test_the_first_step_moves_the_head(self) -> None:
        stn = plain(Affine())
        stn(torch.rand(3, 2, 9, 7)).square().sum().backward()
        assert stn.head.weight.grad is not None
        assert stn.head.weight.grad.any()
        assert stn.head.bias.grad is not None
        assert stn.head.bias.grad.any()

    def test_measuring_the_features_leaves_them_alone(self) -> None:
        features = Backbone()
        features.norm.eval()  # frozen by the user, in a net that trains
        before = copy.deepcopy(features.state_dict())
        flags = {name: module.training for name, module in features.named_modules()}
        stn = SpatialTransformer(features, Affine(), in_shape=(2, 9, 7))
        assert stn.head.in_features == 3 * 7 * 5
        assert {name: module.training for name, module in features.named_modules()} == flags
        after = features.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert all(parameter.grad is None for parameter in features.parameters())

    def test_features_may_live_in_another_dtype(self) -> None:
        stn = SpatialTransformer(Backbone().double(), Affine(), in_shape=(2, 9, 7))
        x = torch.rand(2, 2, 9, 7, dtype=torch.float64)
        assert stn.theta(x).dtype == torch.float64
        torch.testing.assert_close(stn(x), x)


class TestOneLook:
    @pytest.mark.parametrize("size", [None, (4, 5), (18, 14)])
    @pytest.mark.parametrize("padding", PADDINGS)
    def test_it_is_warp_at_its_theta(self, padding: str, size: tuple[int, int] | None) -> None:
        x = torch.rand(3, 2, 9, 7)
        for align_corners in (False, True):
            for mode in ("bilinear", "bicubic"):
                how: dict[str, Any] = {
                    "padding_mode": padding,
                    "mode": mode,
                    "align_corners": align_corners,
                    "fill": 0.5,
                }
                stn = awake(plain(Affine(), size=size, **how))
                theta = stn.theta(x)
                assert theta.shape == (3, 6)
                assert not torch.equal(theta[0], theta[1])
                assert torch.equal(stn(x), warp(x, Affine()(theta), size, **how))

    def test_theta_is_handed_on(self) -> None:
        x = torch.rand(3, 2, 9, 7)
        for count in (1, 3):
            stn = awake(plain(Similarity(), count=count))
            values, theta = stn(x, return_theta=True)
            assert torch.equal(theta, stn.theta(x))
            assert theta.shape == ((3, 4) if count == 1 else (3, 3, 4))
            assert torch.equal(values, stn(x))
            assert torch.equal(stn.read(x, theta), values)
            assert theta.requires_grad

    def test_it_reads_from_another_source(self) -> None:
        x = torch.rand(3, 2, 9, 7)
        stn = awake(plain(Affine(), size=(6, 6)))
        sharp, mask = torch.rand(3, 5, 90, 70), torch.rand(3, 1, 9, 7, dtype=torch.float64)
        for source in (sharp, mask, torch.rand(1, 1, 4, 4)):
            wanted = warp(source, Affine()(stn.theta(x)), (6, 6))
            got = stn(x, source)
            assert torch.equal(got, wanted)
            assert got.dtype == source.dtype
        keeps = awake(plain(Affine()))
        assert keeps(x, sharp).shape == sharp.shape, "size=None takes the source's"

    def test_side_by_side(self) -> None:
        x = torch.rand(3, 2, 9, 7)
        stn = awake(plain(Attention(), count=4, size=(5, 6)))
        values, theta = stn(x, return_theta=True)
        assert values.shape == (3, 4, 2, 5, 6)
        for i in range(4):
            assert torch.equal(values[:, i], warp(x, Attention()(theta[:, i]), (5, 6)))
        assert stn.head.out_features == 12
        assert not torch.equal(theta[:, 0], theta[:, 1])

    def test_one_after_the_other(self) -> None:
        x = torch.rand(3, 2, 9, 7)
        pair = nn.Sequential(
            awake(plain(Affine())), nn.Conv2d(2, 4, 3, padding=1), awake(plain(Projective(), channels=4))
        )
        pair(x).square().sum().backward()
        assert pair(x).shape == (3, 4, 9, 7)
        for name, parameter in pair.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name

    def test_on_volumes(self) -> None:
        x = torch.rand(2, 1, 28, 30, 29)
        for features in (LocalizationFC((1, 28, 30, 29)), LocalizationConv((1, 28, 30, 29), filters=2)):
            stn = awake(SpatialTransformer(features, Affine(3), (4, 5, 6)))
            values, theta = stn(x, return_theta=True)
            assert values.shape == (2, 1, 4, 5, 6)
            assert torch.equal(values, warp(x, Affine(3)(theta), (4, 5, 6)))

    def test_an_empty_batch(self) -> None:
        assert plain(Affine())(torch.rand(0, 2, 9, 7)).shape == (0, 2, 9, 7)
        assert plain(Affine(), count=2)(torch.rand(0, 2, 9, 7)).shape == (0, 2, 2, 9, 7)


class TestPrecision:
    def test_autocast_keeps_the_head_in_float32(self) -> None:
        stn, x = awake(plain(Affine())), torch.rand(3, 2, 9, 7)
        with torch.autocast("cpu", torch.bfloat16):
            values, theta = stn(x, return_theta=True)
            features = stn.features(x).flatten(1)
        assert features.dtype == torch.bfloat16
        assert theta.dtype == torch.float32
        assert torch.equal(theta, F.linear(features.float(), stn.head.weight, stn.head.bias))
        assert values.dtype == torch.float32
        assert torch.equal(values, warp(x, Affine()(theta)))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_model_in_half_precision_keeps_theta_in_float32(self, dtype: torch.dtype) -> None:
        start = torch.tensor([1.001, 0.0007, 0.3])
        stn = plain(Attention(), init=start).to(dtype)
        x = torch.rand(3, 2, 9, 7).to(dtype)
        values, theta = stn(x, return_theta=True)
        assert values.dtype == dtype
        assert theta.dtype == torch.float32
        assert torch.equal(theta, start.expand(3, -1)), "half precision rounds theta by up to 7 pixels at 3840"

    @pytest.mark.parametrize("name", STILL)
    def test_it_starts_as_the_identity_in_bfloat16_too(self, name: str) -> None:
        family = FAMILIES[name]()
        size = (9, 7) if family.dims == 2 else (3, 4, 5)
        x = torch.rand(3, 2, *size).bfloat16()
        stn = plain(family, size, init=at_rest(family)).bfloat16()
        torch.testing.assert_close(stn(x), x, rtol=0, atol=0.004)

    def test_float64_stays_float64(self) -> None:
        stn, x = awake(plain(Affine())).double(), torch.rand(3, 2, 9, 7, dtype=torch.float64)
        values, theta = stn(x, return_theta=True)
        assert values.dtype == theta.dtype == torch.float64
        assert torch.equal(values, warp(x, Affine()(theta)))
