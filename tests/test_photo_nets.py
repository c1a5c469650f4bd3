"""Networks for images beyond one transformer: several in a row, a backbone for each crop, another localisation net;
and perturbed images.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from torch_stn import Attention, warp
from torch_stn.lab import models
from torch_stn.lab.config import Config, override
from torch_stn.lab.data.augment import augment, perturbation, poses
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.experiments import birds, signs
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.dropout import set_samples
from torch_stn.lab.models.lin_lucey import SMALLEST, LinLucey
from torch_stn.lab.models.residual import Descriptors, Standardize
from torch_stn.transforms import Affine

FACTS = Facts(3, 32, 32, tuple("abcde"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
BASE = Config(source="folder", data="x", model="resnet", width=8)


def net(**words: object) -> torch.nn.Module:
    return models.build(replace(BASE, **words), FACTS).eval()  # type: ignore[arg-type]


def pictures(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("series", "halve"), [(2, True), (3, False), (4, True)])
def test_transformers_in_a_row_start_as_the_net_without_them(series: int, halve: bool) -> None:
    row, plain = net(series=series, halve=halve), net(transform="none", halve=halve)
    missing = plain.load_state_dict({
        key.removeprefix("classifier."): value
        for key, value in row.state_dict().items()
        if key.startswith("classifier.") and ".transformers." not in key
    })  # fmt: skip
    assert not missing.missing_keys
    x = pictures()
    torch.testing.assert_close(row(x), plain(x), rtol=0, atol=2e-5)
    row.train()(x).square().sum().backward()
    heads = [head for name, head in row.named_parameters() if name.endswith("head.weight")]
    assert len(heads) == series
    assert all(head.grad is not None and head.grad.abs().max() > 0 for head in heads)


def test_each_crop_has_its_backbone() -> None:
    """The scores are the sum of what each backbone gives its own window, and nothing of the others'."""
    model = net(transform="attention-half", count=2, backbones=2, crop=16)
    assert isinstance(model, Aligned)
    assert models.label(replace(BASE, transform="attention-half", count=2)) == "2 x ST-ResNet attention-half"
    x = pictures()
    expected = model.classifier.scores.bias
    for k, start in enumerate(([-0.5, 0.0], [0.5, 0.0])):
        window = warp(x, Attention(scale=0.5)(torch.tensor([start])), (16, 16), padding_mode="border", antialias=True)
        found = model.classifier.backbone[k](model.classifier.normalize(window))
        expected = expected + found @ model.classifier.scores.weight[:, 32 * k : 32 * k + 32].T
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_localisation_by_a_residual_block() -> None:
    x = pictures()
    plain, other = net(), net(looking="resnet")
    assert models.count_parameters(other) > models.count_parameters(plain)
    torch.testing.assert_close(other.map(x).sources(x.new_zeros(1, 1, 2)), torch.zeros(1, 1, 2).expand(4, 1, 2))
    large = Facts(3, 160, 128, FACTS.classes, FACTS.mean, FACTS.deviation)
    wide = models.build(replace(BASE, looking="resnet", crop=64), large)
    assert wide(torch.rand(2, 3, 160, 128)).shape == (2, 5)


@pytest.mark.parametrize(("halve", "features"), [(True, 32 * 16), (False, 32 * 64)])
def test_places_of_the_last_maps_may_be_kept(halve: bool, features: int) -> None:
    """Features in a row are the maps whose mean is otherwise taken."""
    kept, mean = net(average=False, halve=halve, transform="none"), net(halve=halve, transform="none")
    assert isinstance(kept, Descriptors)
    assert isinstance(mean, Descriptors)
    assert kept.scores.in_features == kept.backbone.out_features == features
    kept.backbone.load_state_dict(mean.backbone.state_dict())
    x = pictures()
    found = kept.backbone(kept.normalize(x)).unflatten(1, (32, -1)).mean(dim=2)
    torch.testing.assert_close(found, mean.backbone(mean.normalize(x)))
    odd = models.build(replace(BASE, average=False, halve=halve), replace(FACTS, height=45, width=37))
    assert odd(torch.rand(2, 3, 45, 37)).shape == (2, 5)


def test_dropout_before_the_scores_is_a_function_of_the_sample() -> None:
    model = net(dropout=0.5, transform="none").train()
    x = pictures()
    set_samples(model, 3, torch.arange(4))
    first = model(x)
    assert torch.equal(model(x), first)
    set_samples(model, 3, torch.arange(4) + 4)
    assert not torch.equal(model(x), first)
    assert torch.equal(model.eval()(x), net(transform="none")(x))


def test_the_small_networks_of_lin_and_lucey() -> None:
    """Layers as in the paper; behind a transformer they start as without it."""
    words = {"backbone": "lin-lucey", "transform": "projective", "looking": "lin-lucey", "iterations": 4}
    ours, alone = net(**words), net(backbone="lin-lucey-cnn", transform="none")
    small = net(backbone="lin-lucey", transform="none")
    convs = [
        [m.out_channels for m in each.modules() if isinstance(m, torch.nn.Conv2d)] for each in (ours, alone, small)
    ]
    assert sorted(convs[0]) == sorted([6, 24, 6, 12])
    assert convs[1:] == [[6, 12, 24], [6, 12]]
    assert [m.out_features for m in alone.modules() if isinstance(m, torch.nn.Linear)] == [200, 5]
    assert isinstance(ours, Aligned)
    small.load_state_dict(ours.classifier.state_dict())
    x = pictures()
    torch.testing.assert_close(ours(x), small(x), rtol=0, atol=1e-5)
    assert models.label(replace(BASE, **words)) == "ST-lin-lucey projective x 4"  # type: ignore[arg-type]
    for name, least in SMALLEST.items():
        LinLucey(name, (3, least, least))
        with pytest.raises(UserError, match=f"too small .*=lin-lucey.*, got {least - 1} x {least} .* least {least}"):
            LinLucey(name, (3, least - 1, least))
    with pytest.raises(UserError, match="weights: wanted backbone=timm:NAME"):
        override(BASE, ["backbone=lin-lucey", "width=0", "weights=x.safetensors"])


def test_standardized_pictures_do_not_tell_the_light() -> None:
    x = pictures()
    for transform in ("none", "affine"):
        model = net(standardize=True, transform=transform)
        torch.testing.assert_close(model(0.4 * x + 0.3), model(x), rtol=0, atol=2e-2)
        assert not torch.allclose(model(x), model(x.flip(0)), atol=0.05)
    dark = Standardize()(torch.full((1, 3, 4, 4), 0.2))
    assert dark.abs().max() < 1e-5
    found = Standardize()(x)
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.square().mean(dim=(1, 2, 3)), torch.ones(4), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"backbones": 2}, "backbones: wanted 1, or 1 as count, got 2"),
        ({"count": 2, "series": 2}, "series: wanted 1 with count=2, got 2"),
        ({"series": 5}, "series: wanted at most 4, got 5"),
        ({"transform": "none", "series": 2}, "transform=none: wanted no count, iterations, series or crop beside it"),
    ],
)
def test_what_does_not_go_together_is_refused(words: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        net(**words)


def test_a_perturbed_picture_is_read_once_through_both_maps() -> None:
    x, samples = pictures(6), torch.arange(6) + 100
    found = augment(x, samples, 3, jitter=0.2, corners=0.25)
    both = perturbation(samples, 3, 0.25).then(Affine()(poses(samples, 3, 0.2, flip=False)))
    torch.testing.assert_close(found, warp(x, both, padding_mode="border").clamp(0, 1))
    assert not torch.equal(found, augment(x, samples, 3, jitter=0.2))
    assert torch.equal(found[4:], augment(x[4:], samples[4:], 3, jitter=0.2, corners=0.25))


def test_the_perturbation_has_the_spread_of_its_source() -> None:
    """Each corner moves by its own N(0, a) and a common one: 2 a^2 in all; the common part is a^2 of it."""
    corners = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]]).double()
    moved = perturbation(torch.arange(20_000), 0, 0.1).sources(corners.float()).double() - corners
    assert moved.var(dim=0).flatten().sub(0.02).abs().max() < 0.001
    first, third = moved[:, 0, 0], moved[:, 2, 0]
    assert abs(float((first * third).mean()) - 0.01) < 0.0006


def test_tables_compare_nets_of_equal_size() -> None:
    for table in (signs.TABLE, birds.TABLE):
        cells = {cell.name: cell for cell in table.cells}
        for cell in table.cells:
            if cell.against:
                side = cell.config.size
                facts = replace(FACTS, height=side, width=side, classes=tuple(map(str, range(43))))
                ours, twin = (
                    models.count_parameters(models.build(each.config, facts)) for each in (cell, cells[cell.against])
                )
                assert ours <= twin <= 1.06 * ours
                assert cells[cell.against].column == cell.column
                for key in (
                    *("epochs", "seconds", "batch_size", "learning_rate", "jitter", "colour_jitter", "perturb"),
                    *("weight_decay", "dropout", "average", "standardize", "norm", "size"),
                ):
                    assert getattr(cell.config, key) == getattr(cells[cell.against].config, key)


def test_a_perturbation_has_a_limit() -> None:
    assert override(BASE, ["perturb=0.25"]).perturb == 0.25
    with pytest.raises(UserError, match=r"perturb: wanted a number of at most 0\.9, got 1\.0"):
        override(BASE, ["perturb=1"])
