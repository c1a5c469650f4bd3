"""SpatialTransformer in training: it learns, it is saved, it refuses what makes no sense; sizes of the paper's nets."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import FAMILIES, waves
from torch import Tensor, nn

from torch_stn import (
    Affine,
    Attention,
    Interpolation,
    LocalizationConv,
    LocalizationFC,
    Projective,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Transform,
    Translation,
    warp,
)


class Tent(Interpolation):
    """A tent of learnable width."""

    support = 2

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(0.9))

    def kernel(self, distance: Tensor) -> Tensor:
        return (1 - distance.abs() / self.width).clamp(min=0)


def small(transform: Transform, **how: Any) -> SpatialTransformer:
    """A transformer of 12 x 12 grey pictures on a few units."""
    return SpatialTransformer(LocalizationFC((1, 12, 12), (8,)), transform, **how)


@pytest.mark.parametrize(
    "family", [Translation(), Attention(), Similarity(), Affine(), Projective(), ThinPlateSpline(3)]
)
def test_it_learns_to_undo_a_shift(family: Transform) -> None:
    """Pictures shifted by different amounts are to look like the one that is not: only theta can do that."""
    torch.manual_seed(0)
    picture = waves((12, 12)).float()
    shifts = 0.3 * (2 * torch.rand(16, 2) - 1)
    x = warp(picture, Translation()(shifts))
    stn = small(family)
    optimizer = torch.optim.Adam(stn.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        values = stn(x)
        loss = F.mse_loss(values, picture.expand_as(values))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0], losses
    centre = family(stn.theta(x).detach()).sources(torch.zeros(1, 1, 2))[:, 0]
    assert (centre + shifts).abs().mean() < 0.6 * shifts.abs().mean()


def test_the_kernel_of_the_sampler_learns_too() -> None:
    stn = small(Affine(), mode=Tent())
    names = dict(stn.named_parameters())
    assert any(parameter is stn.get_parameter(name) and name.endswith("width") for name, parameter in names.items())
    nn.init.normal_(stn.head.weight, std=0.1)
    x = torch.rand(4, 1, 12, 12)
    stn(x).square().sum().backward()
    for name, parameter in names.items():
        assert parameter.grad is not None, name


def test_a_learned_basis_learns_inside() -> None:
    stn = small(FAMILIES["basis, learned"]())
    nn.init.normal_(stn.head.weight, std=0.1)
    stn(torch.rand(4, 1, 12, 12)).square().sum().backward()
    for name, parameter in stn.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoints_hold_parameters_only_and_bring_everything_back(name: str) -> None:
    def build() -> SpatialTransformer:
        family = FAMILIES[name]()
        shape = (1, 12, 12) if family.dims == 2 else (1, 3, 4, 5)
        return SpatialTransformer(LocalizationFC(shape, (8,)), family)

    stn, other = build(), build()
    nn.init.normal_(stn.head.weight, std=0.1)
    x = torch.rand(3, 1, 12, 12) if stn.transform.dims == 2 else torch.rand(3, 1, 3, 4, 5)
    wanted = stn(x)
    assert set(stn.state_dict()) == {name for name, _ in stn.named_parameters()}
    file = io.BytesIO()
    torch.save(stn.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    for again in (other, copy.deepcopy(stn), pickle.loads(pickle.dumps(stn))):
        assert torch.equal(again(x), wanted)


@pytest.mark.parametrize("name", ["affine", "projective", "tps", "basis, learned"])
def test_several_nets_run_stacked(name: str) -> None:
    """Seeds trained side by side: their parameters stacked, the module called once under vmap."""
    nets = [small(FAMILIES[name]()) for _ in range(3)]
    for net in nets:
        nn.init.normal_(net.head.weight, std=0.1)
    parameters, buffers = torch.func.stack_module_state(nets)  # type: ignore[arg-type]
    x = torch.rand(4, 1, 12, 12)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(nets[0], (parameters, buffers), (x,)).square().mean()

    stacked = torch.vmap(torch.func.grad(loss))(parameters, buffers)
    for i, net in enumerate(nets):
        net(x).square().mean().backward()
        for key, parameter in net.named_parameters():
            torch.testing.assert_close(stacked[key][i], parameter.grad, rtol=1e-4, atol=1e-6)


def test_after_evaluation_comes_training() -> None:
    stn = small(ThinPlateSpline())
    x = torch.rand(2, 1, 12, 12)
    with torch.inference_mode():
        stn(x)
    stn(x).sum().backward()
    with torch.no_grad():
        stn(x)
    stn(x).sum().backward()


def test_its_repr_says_what_it_is() -> None:
    text = repr(small(ThinPlateSpline(4), size=(6, 7), count=2, padding_mode="border"))
    for word in (
        "SpatialTransformer",
        "ThinPlateSpline",
        "size=(6, 7)",
        "count=2",
        "border",
        "bilinear",
        "LocalizationFC",
    ):
        assert word in text


class Loose(nn.Module):
    """Features that say nothing about their width."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-1, -2))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"transform": "affine"}, TypeError, r"^transform: wanted a Transform object such as Affine\(\), got 'affine'"),
        ({"transform": Affine}, TypeError, r"^transform: wanted a Transform object"),
        (
            {"features": Loose()},
            ValueError,
            r"^in_shape: wanted \(C, H, W\), since Loose has no out_features, got None",
        ),
        ({"size": 28}, ValueError, r"^size: wanted \(h, w\).* got 28"),
        ({"size": (1, 2, 3)}, ValueError, r"^size: wanted \(h, w\).* got \(1, 2, 3\)"),
        ({"size": (0, 3)}, ValueError, r"^size: .* at least 1"),
        ({"transform": Affine(3), "size": (4, 5)}, ValueError, r"^size: wanted \(d, h, w\).* got \(4, 5\)"),
        ({"count": 0}, ValueError, r"^count: wanted at least 1, got 0"),
        ({"init": torch.zeros(5)}, ValueError, r"^init: wanted 6 numbers, .* got \(5,\)"),
        ({"init": torch.zeros(12), "count": 3}, ValueError, r"^init: wanted 6 numbers, or 3 times"),
        ({"mode": "lanczos"}, ValueError, r"^mode: wanted one of"),
        ({"padding_mode": "zero"}, ValueError, r"^padding_mode: wanted one of"),
        ({"backend": "cuda"}, ValueError, r"^backend: wanted one of"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"features": LocalizationFC((1, 8, 8)), "transform": Affine(), **change}
    with pytest.raises(error, match=message):
        SpatialTransformer(**arguments)  # type: ignore[arg-type]


def test_a_picture_of_the_wrong_dimension_is_named() -> None:
    stn = SpatialTransformer(nn.Flatten(), Affine(3), in_shape=(1, 4, 4))
    with pytest.raises(ValueError, match=r"^map: wanted a 2-D map"):
        stn(torch.rand(2, 1, 4, 4))


class TestLocalization:
    # Thousands of parameters of the nets of A.4, with the regression layer of an affine transformer.
    @pytest.mark.parametrize(("side", "fc", "conv"), [(28, 27.4, 11.1), (42, 58.8, 17.1), (60, 117.5, 43.1)])
    def test_the_papers_parameter_counts(self, side: int, fc: float, conv: float) -> None:
        for net, wanted in ((LocalizationFC, fc), (LocalizationConv, conv)):
            stn = SpatialTransformer(net((1, side, side)), Affine())
            assert round(sum(p.numel() for p in stn.parameters()) / 1000, 1) == wanted

    def test_shapes(self) -> None:
        assert LocalizationFC((3, 20, 30))(torch.rand(2, 3, 20, 30)).shape == (2, 32)
        assert LocalizationFC((1, 8, 8), (7, 5))(torch.rand(2, 1, 8, 8)).shape == (2, 5)
        assert LocalizationFC((1, 8, 8), (7, 5)).out_features == 5
        for shape in ((1, 28, 28), (3, 31, 44), (2, 28, 29, 30)):
            net = LocalizationConv(shape, filters=3, hidden=4)
            assert net(torch.rand(2, *shape)).shape == (2, net.out_features) == (2, 4)
        full = LocalizationConv((1, 14, 17), halve=False)
        assert full(torch.rand(2, 1, 14, 17)).shape == (2, 20)

    def test_the_layers_in_the_papers_order(self) -> None:
        """Halve, conv 5x5, ReLU, max-pool 2, conv 5x5, ReLU, FC, ReLU, from the module's own weights."""
        for dtype in (torch.float32, torch.float64):
            for channels in (1, 3):
                net, x = LocalizationConv((channels, 32, 36)).to(dtype), torch.rand(2, channels, 32, 36, dtype=dtype)
                y = F.max_pool2d(F.relu(F.conv2d(F.avg_pool2d(x, 2), net.conv1.weight, net.conv1.bias)), 2)
                y = F.relu(F.conv2d(y, net.conv2.weight, net.conv2.bias)).flatten(1)
                wanted = F.relu(F.linear(y, net.fc.weight, net.fc.bias))
                got = net(x)
                torch.testing.assert_close(got, wanted)
                assert (got >= 0).all()
                parameters = list(net.parameters())
                for ours, theirs in zip(
                    *(torch.autograd.grad(v.sum(), parameters) for v in (got, wanted)), strict=True
                ):
                    torch.testing.assert_close(ours, theirs)

    def test_a_picture_that_is_too_small_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"^in_shape: wanted at least 28 pixels a side, got \(27, 40\)"):
            LocalizationConv((1, 27, 40))
        with pytest.raises(ValueError, match=r"^in_shape: wanted at least 14 pixels a side, got \(13, 13\)"):
            LocalizationConv((1, 13, 13), halve=False)
        with pytest.raises(ValueError, match=r"^in_shape: wanted \(C, H, W\) or \(C, D, H, W\), got \(28, 28\)"):
            LocalizationConv((28, 28))
        with pytest.raises(ValueError, match=r"^hidden: wanted at least one"):
            LocalizationFC((1, 8, 8), ())
