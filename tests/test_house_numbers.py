"""The street view's networks: layer for layer as the paper has them, from the identity, and what they are for."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from torch_stn.lab import experiments, models
from torch_stn.lab.config import Config, override
from torch_stn.lab.data.draws import uniform
from torch_stn.lab.data.kinds import KINDS
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.dropout import set_samples
from torch_stn.lab.models.house_numbers import NumberNet
from torch_stn.lab.recipes import RECIPES
from torch_stn.lab.sequences import mistaken, sequence_measures
from torch_stn.nn import SpatialTransformer, parameter_groups
from torch_stn.transforms import Affine
from torch_stn.warping import warp

SMALL = Config(model="number-cnn", data="strings-64", scale=0.05)


def build(**changes: object) -> nn.Module:
    return models.build(replace(SMALL, **changes))  # type: ignore[arg-type]


def images(count: int = 3, size: int = 64) -> Tensor:
    return uniform(0, torch.arange(count), 99, 3 * size * size).view(count, 3, size, size)


def transformers(model: nn.Module) -> list[SpatialTransformer]:
    return [module for module in model.modules() if isinstance(module, SpatialTransformer)]


@pytest.mark.parametrize(
    ("size", "millions"), [(64, 32.8), (128, 61.1)]  # PAPER 3: with three fc layers, heads included
)  # fmt: skip
def test_the_cnn_has_the_papers_layers_at_full_width(size: int, millions: float) -> None:
    with torch.device("meta"):
        net = NumberNet(KINDS[f"strings-{size}"].facts)
    convs = [(conv.out_channels, conv.kernel_size, conv.stride, conv.padding) for conv in net.convs]
    assert [each[0] for each in convs] == [48, 64, 128, 160, 192, 192, 192, 192]
    assert {each[1:] for each in convs} == {((5, 5), (1, 1), (2, 2))}
    assert [(fc.in_features, fc.out_features) for fc in net.fcs] == [
        (192 * (size // 16) ** 2, 3072), (3072, 3072), (3072, 3072),
    ]  # fmt: skip
    assert net.scores.out_features == 5 * 11
    assert models.count_parameters(net) / 1e6 == pytest.approx(millions, abs=0.06)


def test_localisation_nets_are_the_papers() -> None:
    (single,) = transformers(build(model="st-number-cnn", scale=1.0))
    layers = [layer for layer in single.features.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [
        (32, 3, 5, 5), (32, 32, 5, 5), (32, 32 * 32 * 32), (32, 32),
    ]  # fmt: skip
    several = transformers(build(model="st-number-cnn-multi", scale=0.25))
    inputs = [next(layer for layer in each.features.modules() if isinstance(layer, nn.Linear)) for each in several]
    # The image; 12 filters on half its side; 16 there too; 32 on a quarter.
    assert [layer.in_features for layer in inputs] == [3 * 64**2, 12 * 32**2, 16 * 32**2, 32 * 16**2]


@pytest.mark.parametrize("model", ["number-cnn", "st-number-cnn", "st-number-cnn-multi"])
def test_scores_of_five_places(model: str) -> None:
    assert build(model=model)(images()).shape == (3, 5, 11)


@pytest.mark.parametrize("model", ["st-number-cnn", "st-number-cnn-multi"])
def test_at_the_start_every_transformer_is_the_identity(model: str) -> None:
    net, x = build(model=model).eval(), images()
    cnn = build().eval()
    backbone = net.classifier if isinstance(net, Aligned) else net
    weights = {key: value for key, value in backbone.state_dict().items() if not key.startswith("transformers")}
    cnn.load_state_dict(weights)
    assert torch.allclose(net(x), cnn(x), atol=1e-5)
    assert all(each.theta(torch.zeros_like(y)).equal(torch.tensor([[1.0, 0, 0, 0, 1, 0]])) for each, y in
               zip(transformers(net), inputs_of(net, x[:1]), strict=True))  # fmt: skip


def inputs_of(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What each transformer localises on."""
    seen: list[Tensor] = []
    hooks = [
        each.features.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for each in transformers(net)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_a_transformer_that_writes_fewer_pixels_than_it_reads() -> None:
    single, multi = (build(model=model, data="strings-128", crop=64).eval() for model in
                     ("st-number-cnn", "st-number-cnn-multi"))  # fmt: skip
    x = images(2, 128)
    assert single(x).shape == multi(x).shape == (2, 5, 11)
    assert isinstance(single, Aligned)
    # It starts at the middle, not at the whole.
    middle = warp(x, Affine()(0.7 * torch.eye(2, 3)[None]), (64, 64), padding_mode="border")
    assert torch.allclose(single.transformer(x), middle, atol=1e-6)
    assert torch.allclose(transformers(multi)[0].head.bias, torch.tensor([0.7, 0, 0, 0, 0.7, 0]))
    same = build(model="st-number-cnn", data="strings-128", window=0.5).eval()  # where it writes as many, too
    assert isinstance(same, Aligned)
    assert torch.allclose(same.transformer.head.bias, torch.tensor([0.5, 0, 0, 0, 0.5, 0]))
    small = build(data="strings-64").eval()
    small.load_state_dict(single.classifier.state_dict())
    assert torch.allclose(single(x), small(middle), atol=1e-5)


def test_frames_of_transformers_in_a_row() -> None:
    net = build(model="st-number-cnn-multi").eval()
    assert isinstance(net, NumberNet)
    thetas = ([0.5, 0, 0.5, 0, 0.5, 0], [1.0, 0, -0.5, 0, 1, 0], [0, -1.0, 0, 1, 0, 0], [2.0, 0, 0, 0, 1, 0])
    for each, theta in zip(net.transformers, thetas, strict=True):
        each.head.bias.data = torch.tensor(theta)
    corner = torch.tensor([[[1.0, 1.0]]])
    # T_1 (1, 1) = (1, 0.5); T_1 T_2 (1, 1) = T_1 (0.5, 1) = (0.75, 0.5); T_3 (1, 1) = (-1, 1), by T_2 (-1.5, 1), by T_1
    # (-0.25, 0.5); T_4 (1, 1) = (2, 1), by T_3 (-1, 2), by T_2 (-1.5, 2), by T_1 (-0.25, 1).
    wanted = [(1, 0.5), (0.75, 0.5), (-0.25, 0.5), (-0.25, 1.0)]
    points = [each.sources(corner)[0, 0] for each in net.frames(images(1))]
    assert torch.allclose(torch.stack(points), torch.tensor(wanted), atol=1e-6)


def test_dropout_spares_the_first_convolution_and_the_localisation_nets() -> None:
    net = build(model="st-number-cnn-multi", dropout=0.5).train()
    assert isinstance(net, NumberNet)
    x, samples = images(2), torch.tensor([5, 9])
    shapes: list[tuple[int, ...]] = []
    for dropout in net.dropouts:
        dropout.register_forward_hook(lambda _, args, out: shapes.append(tuple(out.shape[1:])))
    set_samples(net, 0, samples)
    once = net(x)
    assert [len(shape) for shape in shapes] == [3] * 7 + [1] * 3  # all convolutions but one, three fc
    assert torch.equal(net(x), once)  # a function of seed and sample
    set_samples(net, 0, samples.flip(0))
    assert not torch.allclose(net(x), once)
    assert not [m for each in net.transformers for m in each.modules() if type(m).__name__ == "SampleDropout"]


def test_localisation_nets_learn_slower() -> None:
    net = build(model="st-number-cnn-multi")
    rates = {group["lr"] for group in parameter_groups(net, lr=0.01, localization_rate=0.1)}
    assert rates == {0.01, 0.001}


def test_the_papers_recipe() -> None:
    cells = {cell.name: cell for cell in experiments.table("numbers").cells}
    config = RECIPES["paper"](cells["svhn-128-px-st-cnn-multi-full-width"].config)
    assert (config.optimizer, config.momentum, config.learning_rate, config.localization_rate) == ("sgd", 0, 0.01, 0.1)
    assert (config.batch_size, config.steps, config.schedule, config.weight_decay) == (128, 400_000, "fifths", 5e-4)
    assert (config.dropout, config.scale, config.size, config.source, config.window) == (0.5, 1.0, 128, "svhn", 1.0)


def test_the_table_has_the_papers_numbers() -> None:
    table = experiments.table("numbers")
    paper = {(cell.row, cell.column): cell.paper for cell in table.cells if cell.paper is not None}
    assert paper == {
        ("CNN, full width", "SVHN 64 px"): 4.0, ("CNN, full width", "SVHN 128 px"): 5.6,
        ("ST-CNN Single, full width", "SVHN 64 px"): 3.7, ("ST-CNN Single, full width", "SVHN 128 px"): 3.9,
        ("ST-CNN Multi, full width", "SVHN 64 px"): 3.6, ("ST-CNN Multi, full width", "SVHN 128 px"): 3.9,
    }  # fmt: skip
    assert len({cell.name for cell in table.cells}) == len(table.cells) == 28


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=cnn", "data=strings-64"], "model: wanted one of number-cnn, .* with source=digits data=strings-64"),
        (["model=number-cnn", "data=rts"], "model: wanted another than number-cnn, .* got 'number-cnn'"),
        (["model=resnet", "source=svhn", "data="], "model: wanted one of number-cnn, .* with source=svhn"),
        (["model=number-cnn", "data=strings-64", "dropout=1"], r"dropout: wanted a number of at most 0\.9"),
        (["model=number-cnn", "data=strings-64", "scale=0"], r"scale: wanted a number of at least 0\.01"),
    ],
)
def test_what_does_not_go_together(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        override(Config(), words)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"crop": 32}, "crop: wanted 0 with model=number-cnn, which has no transformer, got 32"),
        ({"crop": 30, "model": "st-number-cnn"}, "crop: wanted a multiple of 16, at most 64 pixels, got 30"),
        ({"crop": 128, "model": "st-number-cnn-multi"}, "crop: wanted a multiple of 16, at most 64 pixels, got 128"),
    ],
)
def test_crops_that_cannot_be(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build(**changes)


def test_measures_of_sequences() -> None:
    labels = torch.tensor([[1, 10, 10], [2, 3, 10], [4, 5, 10], [6, 7, 8]])
    read = torch.tensor([[1, 10, 10], [2, 3, 1], [4, 4, 10], [6, 0, 0]])
    assert mistaken(read, labels).tolist() == [False, True, True, True]
    assert sequence_measures(read, labels, none=10) == {
        "digit error": pytest.approx(100 * 3 / 8),  # 5, 7 and 8 of the eight digits
        "error of length 1": 0.0,
        "error of length 2": 100.0,
        "error of length 3": 100.0,
    }
