"""MNIST addition, and networks with several channels, transformers side by side, behind a layer, theta fed forward."""

import pytest
import torch
from tiny_run import tiny_config, tiny_digits, tiny_train
from torch import nn

from torch_stn.lab import models
from torch_stn.lab.data.addition import draw_sums
from torch_stn.lab.data.distortions import distort
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate, mistaken
from torch_stn.lab.models import build, count_parameters, label
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.classifiers import CNN, FCN_BUDGET
from torch_stn.lab.report.page import build_report
from torch_stn.lab.report.runs import read_run
from torch_stn.lab.train import classification_loss

DIGITS = torch.from_numpy(tiny_digits().train_images)
LABELS = torch.from_numpy(tiny_digits().train_labels)


def test_a_sum_is_of_the_two_digits_that_are_seen() -> None:
    indices, samples = torch.arange(40), torch.arange(1000, 1040)
    images, sums = draw_sums(DIGITS, LABELS, indices, samples, 7)
    assert images.shape == (40, 2, 42, 42)
    first = distort("rts", DIGITS, indices, samples, 7).images
    assert images[:, :1].equal(first)
    # The second digit is known by its label: with all other classes black, it is seen where that class was drawn.
    for digit in range(10):
        only = DIGITS * (digit == LABELS)[:, None, None]
        seen = draw_sums(only, LABELS, indices, samples, 7)[0][:, 1].flatten(1).sum(dim=1) > 0
        assert seen.equal(sums - LABELS[indices] == digit)
    assert 0 <= int(sums.min()) <= int(sums.max()) <= 18


def test_both_digits_of_a_sum_are_posed_apart() -> None:
    count = 4000
    indices = torch.zeros(count, dtype=torch.int64)
    square = torch.full((1, 28, 28), 255, dtype=torch.uint8)  # one digit only: both channels show it
    images, _ = draw_sums(square, torch.zeros(1, dtype=torch.int64), indices, torch.arange(count), 0)
    mass = images.flatten(2).sum(dim=2)  # tells of the scale
    across = (images.sum(dim=2) * torch.arange(42)).sum(dim=2) / mass  # and of the place
    for values in (mass, across):
        correlation = torch.corrcoef(values.T)[0, 1]
        assert abs(float(correlation)) < 4 / count**0.5
    assert images[0, 0].sub(images[0, 1]).abs().max() > 0.5


def test_a_batch_of_sums_is_a_function_of_seed_and_step() -> None:
    a, b = (DigitSet(tiny_digits(), "addition", 3).training_batch(5, 8) for _ in range(2))
    other = DigitSet(tiny_digits(), "addition", 4).training_batch(5, 8)
    assert a.images.equal(b.images)
    assert a.labels.equal(b.labels)
    assert not a.images.equal(other.images)


@pytest.mark.parametrize("words", [["model=fcn"], ["model=st-fcn"], ["model=st-fcn", "count=2"], ["model=cnn"]])
def test_networks_for_sums(words: list[str]) -> None:
    net = build(tiny_config("data=addition", "width=0", *words))
    assert net(torch.rand(3, 2, 42, 42)).shape == (3, 19)
    assert count_parameters(net) <= FCN_BUDGET


def test_each_of_two_transformers_warps_both_channels() -> None:
    net = build(tiny_config("data=addition", "model=st-fcn", "count=2", "width=16"))
    assert isinstance(net, Aligned)
    assert label(tiny_config("data=addition", "model=st-fcn", "count=2")) == "2 x ST-FCN affine"
    assert net.classifier.fc1.in_features == 4 * 21 * 21  # two outputs of two channels, pooled
    with torch.no_grad():  # the second one reads one pixel further to the right
        net.transformer.head.bias[8] = 2 / 42
    x = torch.rand(1, 2, 42, 42)
    read = net.transformer.read(x, net.theta(x))
    torch.testing.assert_close(read[:, 0], x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read[:, 1, :, :, :-1], x[..., 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_a_transformer_behind_a_layer_starts_as_the_plain_network(layer: int, shared: bool) -> None:
    """At the identity it is the CNN of the same weights; theta comes from the image, or from that layer's maps."""
    words = [f"layer={layer}", f"shared={shared}"]
    net = build(tiny_config("model=st-cnn", "width=8", *words))
    assert isinstance(net, Aligned)
    assert net.stem is not None
    assert len(net.stem) == layer
    assert isinstance(net.classifier, CNN)
    plain = CNN(28, 8)
    for mine, theirs in zip(plain.layers, [*net.stem, *net.classifier.layers], strict=True):
        mine.load_state_dict(theirs.state_dict())
    plain.scores.load_state_dict(net.classifier.scores.state_dict())
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(net(x), plain(x), rtol=1e-3, atol=1e-4)

    nn.init.normal_(net.transformer.head.weight, std=0.05)
    maps = net.stem(x)
    assert net.theta(x).equal(net.transformer.theta(maps if shared else x))
    _, theta = net(x, return_theta=True)
    assert theta.equal(net.theta(x))
    assert label(tiny_config("model=st-cnn", *words)) == f"ST-CNN affine, layer {layer}{' shared' if shared else ''}"


def test_layers_that_a_network_does_not_have_are_refused() -> None:
    with pytest.raises(UserError, match="layer: wanted 0, or with a CNN at most 2, got 3"):
        build(tiny_config("model=st-cnn", "layer=3"))
    with pytest.raises(UserError, match="layer: wanted 0, or with a CNN at most 2, got 1"):
        build(tiny_config("model=st-fcn", "layer=1"))


@pytest.mark.parametrize("model", ["st-fcn", "st-cnn"])
def test_theta_fed_forward_reaches_the_scores(model: str) -> None:
    """Scores gain a linear term in theta, whose weights are the last columns of the last layer."""
    net = build(tiny_config(f"model={model}", "theta_forward=true", "width=8"))
    assert isinstance(net, Aligned)
    x = torch.rand(2, 1, 28, 28)
    aligned = net.transformer(x)
    theta = net.theta(x)
    base = net.classify(aligned, torch.zeros_like(theta))
    weight = net.classifier.scores.weight[:, -6:]
    torch.testing.assert_close(net.classify(aligned, theta) - base, theta @ weight.T, rtol=1e-4, atol=1e-5)


def test_several_heads_are_wrong_together_and_learn_together() -> None:
    labels = torch.tensor([[1, 2], [3, 4], [0, 0]])
    predicted = torch.tensor([[1, 2], [3, 0], [1, 1]])
    assert mistaken(predicted, labels).tolist() == [False, True, True]
    scores = torch.randn(3, 2, 5)
    by_hand = -scores.log_softmax(dim=-1).gather(-1, labels[..., None]).mean()
    torch.testing.assert_close(classification_loss(scores, labels, 0.0), by_hand)


@pytest.mark.parametrize("words", [["model=fcn"], ["model=st-fcn"], ["model=st-fcn", "count=2"]])
def test_a_run_of_sums_is_evaluated_and_reported(tmp_path, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    folder = tiny_train(tmp_path / "run", "data=addition", *words)
    record = evaluate(folder, source=tiny_digits())
    assert record["set"] == "addition"
    assert record["pose"] is None
    run = read_run(folder.path)
    assert run.arrays["inputs"].shape[1:] == (42, 84)  # both digits side by side
    assert run.arrays["confusion"].shape == (19, 19)
    if "count=2" in words:
        assert run.arrays["outputs"].shape[1:] == (42, 4 * 42)
        assert run.arrays["lines"].shape[1:3] == (4, 10)  # a frame for each transformer on each digit
        offset = run.arrays["lines"][:, 2:] - run.arrays["lines"][:, :2]
        assert abs(offset - [42, 0]).max() < 1e-4
    page = build_report([folder.path], tmp_path / "report.html")
    assert "addition" in page.read_text(encoding="utf-8")


def test_every_network_name_is_known() -> None:
    assert set(models.WITH_TRANSFORMER) < set(models._LABELS)
