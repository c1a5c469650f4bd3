"""Dropout whose masks are a function of (seed, sample, layer)."""

import itertools

import pytest
import torch
from tiny_run import tiny_config

from torch_stn.lab.models import build
from torch_stn.lab.models.dropout import SampleDropout, has_dropout, set_samples


def dropped(
    layer: int = 0, seed: int = 0, samples: torch.Tensor | None = None, *, channels: bool = False
) -> torch.Tensor:
    """What dropout makes of ones: (samples, 20, 3, 3)."""
    samples = torch.arange(50) if samples is None else samples
    dropout = SampleDropout(channels=channels, layer=layer)
    set_samples(dropout, seed, samples)
    return dropout(torch.ones(len(samples), 20, 3, 3))


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_is_a_function_of_seed_sample_and_layer(channels: bool) -> None:
    whole = dropped(channels=channels)
    assert dropped(channels=channels).equal(whole)
    order = torch.randperm(50)
    assert dropped(samples=order, channels=channels).equal(whole[order])
    parts = [dropped(samples=part, channels=channels) for part in torch.arange(50).split(7)]
    assert torch.cat(parts).equal(whole)
    variants = [whole, *(dropped(layer, seed, channels=channels) for layer, seed in ((1, 0), (0, 1), (1, 1)))]
    variants.append(dropped(samples=torch.arange(50, 100), channels=channels))
    for a, b in itertools.combinations(variants, 2):
        assert 0.4 < (a == b).float().mean() < 0.6  # independent: equal as often as not


def test_dropout_does_not_depend_on_the_global_generator() -> None:
    torch.manual_seed(1)
    first = dropped()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert dropped().equal(first)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    dropout = SampleDropout(p)
    set_samples(dropout, 0, torch.arange(1000))
    x = torch.ones(1000, 100)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert y.mean().item() == pytest.approx(1, abs=0.02)


def test_dropout_of_channels_drops_whole_ones() -> None:
    y = dropped(channels=True).flatten(2)
    assert y.amin(dim=2).equal(y.amax(dim=2))
    assert 0.45 < (y[..., 0] == 0).float().mean() < 0.55


def test_dropout_at_rest() -> None:
    x = torch.rand(4, 3)
    assert SampleDropout().eval()(x) is x
    assert SampleDropout(0.0)(x) is x
    with pytest.raises(RuntimeError, match="set_samples"):
        SampleDropout()(x)
    dropout = SampleDropout()
    set_samples(dropout, 0, torch.arange(3))
    with pytest.raises(RuntimeError, match="set_samples"):
        dropout(x)


def test_the_layers_of_the_tutorial_network_drop_apart() -> None:
    net = build(tiny_config("model=tutorial", "data=plain"))
    assert has_dropout(net)
    assert not has_dropout(build(tiny_config("model=st-cnn")))
    layers = [module.layer for module in net.modules() if isinstance(module, SampleDropout)]
    assert len(layers) == len(set(layers)) == 2


def test_a_training_pass_of_a_slice_is_the_slice_of_the_pass() -> None:
    net = build(tiny_config("model=tutorial", "data=plain")).train()
    x, samples = torch.rand(8, 1, 28, 28), torch.arange(100, 108)
    set_samples(net, 5, samples)
    whole = net(x)
    set_samples(net, 5, samples[3:6])
    torch.testing.assert_close(net(x[3:6]), whole[3:6])
