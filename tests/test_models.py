"""The networks of the experiments: sizes as the paper's, starting weights by seed."""

import pytest
import torch
import torch.nn.functional as F
from tiny_run import tiny_config
from torch import nn

from torch_stn.lab import models
from torch_stn.lab.data.distortions import DISTORTIONS
from torch_stn.lab.errors import UserError
from torch_stn.lab.models import build, count_parameters
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.classifiers import CNN, CNN_FILTERS, FCN, FCN_BUDGET, fcn_units
from torch_stn.lab.models.tutorial import TutorialClassifier, TutorialLocalization
from torch_stn.nn import LocalizationConv, LocalizationFC, SpatialTransformer
from torch_stn.nn.one_channel import OneChannelConv
from torch_stn.transforms import Affine, Projective, ThinPlateSpline

# Thousands of parameters, computed from the paper's description (A.4).
FCN_COUNTS = {
    28: {128: 118, 192: 190, 224: 228, 256: 269},
    30: {128: 133, 192: 212, 224: 254, 256: 299},
    42: {128: 244, 192: 378, 224: 448, 256: 520},
    60: {128: 479, 192: 730, 224: 859, 256: 990},
}
# The table counts with floor-mode pooling; ceil-mode leaves a wider map to the scores at 30 (3, not 2) and 42 (6, not 5).
CEIL_MORE = {28: 0, 30: 3**2 - 2**2, 42: 6**2 - 5**2, 60: 0}
CNN_COUNTS = {
    28: {32: 54, 48: 119, 64: 209},
    30: {32: 54, 48: 119, 64: 209},
    42: {32: 61, 48: 129, 64: 222},
    60: {32: 85, 48: 165, 64: 270},
}
LOCALIZATION_COUNTS = {28: (27.4, 11.1), 42: (58.8, 17.1), 60: (117.5, 43.1)}
NETWORKS = ("fcn", "cnn", "bn-cnn", "st-fcn", "st-cnn")


def rows(table: dict[int, dict[int, int]]) -> list[tuple[int, int, int]]:
    return [(side, width, count) for side, counts in table.items() for width, count in counts.items()]


# Sizes


@pytest.mark.parametrize(("side", "units", "thousands"), rows(FCN_COUNTS))
def test_parameters_of_the_fcn(side: int, units: int, thousands: int) -> None:
    net = FCN(side * side, units)
    assert abs(count_parameters(net) / 1000 - thousands) <= 0.6  # the table mixes rounding and cutting
    assert net(torch.zeros(2, 1, side, side)).shape == (2, 10)


@pytest.mark.parametrize(("side", "filters", "thousands"), rows(CNN_COUNTS))
def test_parameters_of_the_cnn(side: int, filters: int, thousands: int) -> None:
    net = CNN(side, filters)
    assert abs((count_parameters(net) - 10 * filters * CEIL_MORE[side]) / 1000 - thousands) <= 0.6
    assert net(torch.zeros(2, 1, side, side)).shape == (2, 10)
    normed = CNN(side, filters, batch_norm=True)
    assert count_parameters(normed) == count_parameters(net) + 4 * filters


@pytest.mark.parametrize("side", LOCALIZATION_COUNTS)
def test_parameters_of_the_localisation(side: int) -> None:
    counts = [
        count_parameters(SpatialTransformer(features((1, side, side)), Affine())) / 1000
        for features in (LocalizationFC, LocalizationConv)
    ]
    assert counts == pytest.approx(LOCALIZATION_COUNTS[side], abs=0.06)


@pytest.mark.parametrize(("transform", "numbers"), [(Affine(), 6), (Projective(), 8), (ThinPlateSpline(4), 32)])
def test_the_regression_has_as_many_outputs_as_the_transform_has_parameters(transform: nn.Module, numbers: int) -> None:
    net = SpatialTransformer(LocalizationFC((1, 28, 28)), transform)  # type: ignore[arg-type]
    assert net.head.weight.shape == (numbers, 32)


@pytest.mark.parametrize("data", DISTORTIONS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("transform", ["affine", "tps"])
def test_whole_networks_keep_the_budget_and_use_it(name: str, data: str, transform: str) -> None:
    net = build(tiny_config(f"model={name}", f"data={data}", f"transform={transform}", "width=0"))
    count = count_parameters(net)
    assert count <= FCN_BUDGET
    classifier = net.classifier if isinstance(net, Aligned) else net
    if isinstance(classifier, FCN):
        units = classifier.fc2.in_features
        wider = FCN(classifier.fc1.in_features, units + 8)
        assert units == 256 or count - count_parameters(classifier) + count_parameters(wider) > FCN_BUDGET
    else:
        assert isinstance(classifier, CNN)
        assert [layer.conv.out_channels for layer in classifier.layers] == [CNN_FILTERS] * 2 == [64, 64]
    side = DISTORTIONS[data].size
    assert net(torch.rand(2, 1, side, side)).shape == (2, 10)


def test_widths_that_are_asked_for_are_taken() -> None:
    fcn, cnn = (build(tiny_config(f"model={name}", "width=24")) for name in ("fcn", "st-cnn"))
    assert isinstance(fcn, FCN)
    assert fcn.fc1.out_features == fcn.fc2.out_features == 24
    assert isinstance(cnn, Aligned)
    assert isinstance(cnn.classifier, CNN)
    assert cnn.classifier.layers[0].conv.out_channels == 24


def test_fcn_units() -> None:
    assert fcn_units(28 * 28) == fcn_units(14 * 14) == 256
    assert fcn_units(42 * 42) == 200
    assert fcn_units(60 * 60, 0) < 128
    assert fcn_units(60 * 60, 10**9) == 8  # never none


# Layers


def test_pooling_is_in_ceil_mode() -> None:
    # 21 - 8 = 13 pixels: with floor they would be pooled to 6, on which no 7 x 7 window fits.
    net = CNN(21, 8)
    assert net.scores.in_features == 8
    x = torch.rand(3, 1, 21, 21)
    conv1, conv2 = (layer.conv for layer in net.layers)
    first = F.max_pool2d(F.relu(F.conv2d(x, conv1.weight, conv1.bias)), 2, ceil_mode=True)
    second = F.max_pool2d(F.relu(F.conv2d(first, conv2.weight, conv2.bias)), 2, ceil_mode=True)
    assert first.shape == (3, 8, 7, 7)
    assert second.shape == (3, 8, 1, 1)
    torch.testing.assert_close(net(x), F.linear(second.flatten(1), net.scores.weight, net.scores.bias))


@pytest.mark.parametrize("side", [21, 28, 30, 42, 60])
def test_the_cnn_of_the_paper_layer_by_layer(side: int) -> None:
    net = CNN(side, 4)
    layers = nn.Sequential(
        *(nn.Conv2d(1, 4, 9), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        *(nn.Conv2d(4, 4, 7), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        *(nn.Flatten(), nn.Linear(net.scores.in_features, 10)),
    )
    layers.load_state_dict(dict(zip(layers.state_dict(), net.state_dict().values(), strict=True)))
    x = torch.rand(2, 1, side, side)
    torch.testing.assert_close(net(x), layers(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("side", "kernel"), [(28, 9), (42, 9), (21, 9), (9, 9), (12, 5)])
def test_a_one_channel_convolution_is_a_convolution(side: int, kernel: int, dtype: torch.dtype) -> None:
    ours = OneChannelConv(6, kernel).to(dtype)
    theirs = nn.Conv2d(1, 6, kernel).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(3, 1, side, side + 2, dtype=dtype)  # not square: rows are not columns
    x, y = (images.clone().requires_grad_() for _ in range(2))
    a, b = ours(x), theirs(y)
    torch.testing.assert_close(a, b)
    weight = torch.rand_like(a)
    ours_grads = torch.autograd.grad((a * weight).sum(), [x, *ours.parameters()])
    theirs_grads = torch.autograd.grad((b * weight).sum(), [y, *theirs.parameters()])
    for mine, true in zip(ours_grads, theirs_grads, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-5, atol=1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize(("data", "pool"), [("r", 1), ("p", 1), ("e", 1), ("plain", 1), ("rts", 2), ("tc", 2)])
def test_pooling_after_the_transformer_on_larger_canvases(data: str, pool: int) -> None:
    net = build(tiny_config("model=st-cnn", f"data={data}"))
    assert isinstance(net, Aligned)
    assert net.pool == pool
    side = DISTORTIONS[data].size
    x = torch.rand(2, 1, side, side)
    # At the start the transformer is the identity, so the classifier sees the input, pooled.
    torch.testing.assert_close(net(x), net.classifier(F.avg_pool2d(x, pool)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.transformer(x), x, rtol=1e-4, atol=1e-5)


def test_scores_and_theta_of_one_pass() -> None:
    net = build(tiny_config("model=st-fcn"))
    assert isinstance(net, Aligned)
    nn.init.normal_(net.transformer.head.weight, std=0.05)
    x = torch.rand(4, 1, 28, 28)
    aligned, theta = net.transformer(x, return_theta=True)
    torch.testing.assert_close(net(x), net.classify(aligned, net.theta(x)))
    grid = net.map(x).grid((28, 28))
    torch.testing.assert_close(grid, F.affine_grid(theta.view(-1, 2, 3), [4, 1, 28, 28], align_corners=False))


# The tutorial's network


class TutorialAsPublished(nn.Module):
    """The network of the PyTorch tutorial as it stands there, without its dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.localization = nn.Sequential(
            *(nn.Conv2d(1, 8, 7), nn.MaxPool2d(2, stride=2), nn.ReLU()),
            *(nn.Conv2d(8, 10, 5), nn.MaxPool2d(2, stride=2), nn.ReLU()),
        )
        self.fc_loc = nn.Sequential(nn.Linear(10 * 3 * 3, 32), nn.ReLU(), nn.Linear(32, 3 * 2))
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.fc_loc(self.localization(x).view(-1, 90)).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc2(F.relu(self.fc1(x.view(-1, 320))))


def test_the_tutorial_network_is_the_published_one() -> None:
    net = build(tiny_config("model=tutorial", "data=plain"))
    assert isinstance(net, Aligned)
    nn.init.normal_(net.transformer.head.weight, std=0.05)
    published = TutorialAsPublished()
    assert count_parameters(net) == count_parameters(published)
    localization, head = net.transformer.features, net.transformer.head
    for mine, theirs in (
        *((localization.conv1, published.localization[0]), (localization.conv2, published.localization[3])),
        *((localization.fc, published.fc_loc[0]), (head, published.fc_loc[2])),
        *((net.classifier.conv1, published.conv1), (net.classifier.conv2, published.conv2)),
        *((net.classifier.fc1, published.fc1), (net.classifier.fc2, published.fc2)),
    ):
        assert isinstance(theirs, nn.Module)
        assert isinstance(mine, nn.Module)
        theirs.load_state_dict(mine.state_dict())
    x = torch.rand(5, 1, 28, 28)
    net.eval()
    torch.testing.assert_close(net(x), published(x), rtol=1e-4, atol=1e-5)
    # The flaw that ours has not: black is 0, as what the sampler reads outside.
    assert net.transformer.padding_mode == "zeros"
    assert net.transformer.fill == 0


def test_tutorial_shapes() -> None:
    x = torch.rand(3, 1, 28, 28)
    assert TutorialLocalization()(x).shape == (3, TutorialLocalization.out_features)
    assert TutorialClassifier().eval()(x).shape == (3, 10)
    assert count_parameters(TutorialClassifier()) == 21_840


@pytest.mark.parametrize("data", [kind for kind in DISTORTIONS if DISTORTIONS[kind].size != 28])
def test_the_tutorial_network_on_a_larger_canvas_is_refused(data: str) -> None:
    with pytest.raises(UserError, match=f"wanted a set on 28 x 28 pixels .*, got data={data}"):
        build(tiny_config("model=tutorial", f"data={data}"))


def test_labels() -> None:
    assert models.label(tiny_config("model=bn-cnn")) == "BN-CNN"
    assert models.label(tiny_config("model=st-fcn", "transform=tps")) == "ST-FCN tps"
    assert models.label(tiny_config("model=tutorial", "data=plain")) == "Tutorial ST-CNN affine"


# Starting weights


@pytest.mark.parametrize("name", [*NETWORKS, "tutorial"])
def test_starting_weights_are_a_function_of_the_seed(name: str) -> None:
    config = tiny_config(f"model={name}", "transform=tps", "seed=3")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(config).state_dict()
    assert torch.get_rng_state().equal(state)  # nobody else's numbers are touched
    torch.manual_seed(2)
    second = build(config).state_dict()
    other = build(tiny_config(f"model={name}", "transform=tps", "seed=4")).state_dict()
    assert all(first[key].equal(second[key]) for key in first)
    drawn = [key for key in first if key.endswith("weight") and "norm" not in key and "head" not in key]
    assert drawn
    assert not any(first[key].equal(other[key]) for key in drawn)


@pytest.mark.parametrize("transform", ["affine", "attention", "projective", "similarity", "translation", "tps"])
def test_every_transform_starts_near_the_identity(transform: str) -> None:
    net = build(tiny_config("model=st-fcn", f"transform={transform}"))
    assert isinstance(net, Aligned)
    x = torch.rand(2, 1, 28, 28)
    grid = net.map(x).grid((28, 28))
    still = Affine()(torch.eye(2, 3)[None]).grid((28, 28))
    assert (grid - still).abs().max() < (0.2 if transform == "tps" else 1e-6)  # 16 points start slightly apart


@pytest.mark.parametrize(("given", "nearest"), [("afine", "affine"), ("Project", "projective")])
def test_an_unknown_transform_is_answered_with_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"transform: wanted one of .*, got '{given}'; nearest: {nearest}$"):
        build(tiny_config("model=st-fcn", f"transform={given}"))
