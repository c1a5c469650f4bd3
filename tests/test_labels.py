"""Label maps and other images of whole numbers: never rounded, whatever their dtype."""

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import draw, inner_points, thetas
from torch import Tensor
from torch.autograd import gradcheck

from torch_stn import Affine, label_probabilities, sample, sample_labels, warp
from torch_stn.sampling.padding import PADDINGS

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]
SIZES = {1: (9,), 2: (5, 6), 3: (3, 4, 5)}


def label_map(*shape: int, classes: int = 5, seed: int = 0) -> Tensor:
    return (draw(*shape, seed=seed) * classes).long()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=str)
def test_nearest_reading_of_every_dtype(dtype: torch.dtype, padding: str) -> None:
    """The same pixels as of a float image, in the image's dtype; the mask is a float."""
    image, points = label_map(2, 2, 4, 5, classes=2), inner_points(2, 30, 2, reach=1.6).float()
    points[0, 0] = math.nan
    how: dict[str, Any] = {"mode": "nearest", "padding_mode": padding, "fill": 1, "return_mask": True}
    values, mask = sample(image.to(dtype), points, **how)
    wanted, wanted_mask = sample(image.float(), points, **how)
    assert values.dtype == dtype
    assert torch.equal(values.float(), wanted)
    assert torch.equal(mask, wanted_mask)


def test_whole_numbers_beyond_every_float() -> None:
    image = torch.tensor([[[[2**53 + 1, -(2**62) - 1], [2**24 + 1, 7]]]])
    whole = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    values = sample(image, whole, mode="nearest", units="pixel", fill=2**60 + 1)
    assert values.tolist() == [[[2**53 + 1, -(2**62) - 1, 2**24 + 1, 2**60 + 1]]]
    assert sample_labels(image[:, 0], whole, units="pixel", fill=-3).tolist() == [[*image.flatten()[:3].tolist(), -3]]
    assert sample_labels(image, whole, units="pixel", soft=True).tolist() == [[[*image.flatten()[:3].tolist(), 0]]]
    assert warp(image, Affine()(torch.eye(2, 3)[None]), mode="nearest").tolist() == image.tolist()


@pytest.mark.parametrize("n", [(2, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_vote_is_the_largest_of_the_one_hot_images(d: int, padding: str, n: tuple[int, int]) -> None:
    labels, points = label_map(n[0], *SIZES[d]), inner_points(n[1], 200, d, reach=1.3)
    one_hot = F.one_hot(labels, 5).movedim(-1, 1).double()
    shares = sample(one_hot, points, padding_mode=padding, backend="reference")
    shares[:, 2] += 1 - shares.sum(dim=1)  # what falls outside votes for fill=2
    how: dict[str, Any] = {"padding_mode": padding, "fill": 2}
    got = label_probabilities(labels, points, 5, **how)
    torch.testing.assert_close(got, shares, rtol=0, atol=1e-12)
    voted = sample_labels(labels, points, soft=True, **how)
    assert voted.dtype == labels.dtype
    assert torch.equal(voted, got.argmax(dim=1))


def test_of_equals_the_lower_label_wins() -> None:
    half = torch.tensor([[[0.5, 0.5], [0.5, 0.0], [0.0, 0.5]]])
    for a, b in product((-4, 3, 9), repeat=2):
        labels = torch.tensor([[[a, b], [b, a]]])
        assert (sample_labels(labels, half, units="pixel", soft=True) == min(a, b)).all()
    # Four different labels with a quarter each; and one that two pixels share against a nearer single one.
    assert sample_labels(torch.tensor([[[4, 3], [2, 5]]]), half[:, :1], units="pixel", soft=True).item() == 2
    shared = torch.tensor([[[8, 1], [1, 1]]])
    assert sample_labels(shared, torch.tensor([[[0.4, 0.4]]]), units="pixel", soft=True).item() == 1


def test_channels_units_shapes_and_other_kernels() -> None:
    labels, points = label_map(2, 3, 5, 6), inner_points(2, 12, 2).reshape(2, 3, 4, 2)
    for soft in (False, True):
        whole = sample_labels(labels, points, soft=soft)
        assert whole.shape == (2, 3, 3, 4)
        for channel in range(3):
            assert torch.equal(whole[:, channel], sample_labels(labels[:, channel], points, soft=soft))
    still = torch.zeros(2, 5, 6, 2)
    for mode in ("bilinear", "bicubic", "area"):
        assert torch.equal(sample_labels(labels, still, units="displacement", soft=True, mode=mode), labels)
    for dtype in INTEGERS:
        voted = sample_labels(labels.to(dtype), points, soft=True)
        assert voted.dtype == dtype
        assert torch.equal(voted.long(), sample_labels(labels, points, soft=True))
    assert sample_labels(labels > 2, points, soft=True).dtype == torch.bool


def test_many_points_are_voted_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, points = label_map(2, 5, 6), inner_points(1, 50, 2)
    whole = sample_labels(labels, points, soft=True)
    monkeypatch.setattr("torch_stn.sampling.labels.CHUNK", 7)
    assert torch.equal(sample_labels(labels, points, soft=True), whole)


def test_shares_have_gradients() -> None:
    labels, points = label_map(1, 4, 5), inner_points(1, 6, 2).requires_grad_()
    assert gradcheck(lambda p: label_probabilities(labels, p, 5), (points,), fast_mode=True)


def test_lost_and_empty_points() -> None:
    labels = label_map(2, 4, 5)
    lost = torch.full((1, 3, 2), math.nan, requires_grad=True)
    for soft in (False, True):
        assert (sample_labels(labels, lost, fill=3, soft=soft) == 3).all()
        assert sample_labels(labels, lost[:, :0], soft=soft).shape == (2, 0)
        assert sample_labels(labels[:0], lost, soft=soft).shape == (0, 3)
    shares = label_probabilities(labels, lost, 5, fill=3, padding_mode="border")
    assert torch.equal(shares.argmax(dim=1), torch.full((2, 3), 3))
    assert not torch.autograd.grad(shares.square().sum(), lost)[0].any()
    assert label_probabilities(labels, lost[:, :0], 5).shape == (2, 5, 0)
    assert label_probabilities(labels[:0], lost, 5).shape == (0, 5, 3)


def test_warp_reads_whole_numbers_too() -> None:
    labels, theta = label_map(2, 1, 6, 6), thetas(Affine(), 2)
    map = Affine()(theta.float())
    assert torch.equal(
        warp(labels, map, (4, 4), mode="nearest"), warp(labels.float(), map, (4, 4), mode="nearest").long()
    )


def test_votes_shares_and_whole_images_compile_to_one_graph() -> None:
    labels, points = label_map(2, 5, 6), inner_points(2, 4, 2)

    def run(image: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        voted = sample_labels(image, p, soft=True)
        return voted, label_probabilities(image, p, 5), sample(image[:, None], p, mode="nearest")

    for got, wanted in zip(
        torch.compile(run, fullgraph=True, backend="aot_eager")(labels, points), run(labels, points), strict=True
    ):
        assert torch.equal(got, wanted)


def test_a_vmap_is_the_batch() -> None:
    labels, points = label_map(3, 4, 5), inner_points(3, 6, 2)
    wanted = label_probabilities(labels, points, 5)
    got = torch.func.vmap(lambda u, p: label_probabilities(u[None], p[None], 5)[0])(labels, points)
    torch.testing.assert_close(got, wanted)


def test_the_largest_labels_are_a_fill_too() -> None:
    most = 2**64 - 1
    labels = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint64)
    for soft in (False, True):
        voted = sample_labels(labels, torch.full((1, 1, 2), 5.0), fill=most, soft=soft)
        assert voted.dtype == torch.uint64
        assert voted.tolist() == [[most]]


BYTES = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
POINT = torch.zeros(1, 1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sample(BYTES, POINT),
            r'mode: wanted "nearest" for an image of whole numbers.*uint8, got \'bilinear\'',
        ),
        (lambda: sample(BYTES, POINT[:, :, None], mode="area"), r"mode: wanted .*, got 'area'"),
        (
            lambda: sample_labels(torch.zeros(1, 4, 4, dtype=torch.uint16), POINT, soft=True, fill=70000),
            r"fill: wanted a whole number that uint16 holds",
        ),
        (lambda: sample(BYTES, POINT, mode="nearest", fill=0.5), r"fill: wanted a whole number that uint8 holds.*0.5"),
        (lambda: sample(BYTES, POINT, mode="nearest", fill=256), r"fill: wanted a whole number that uint8 holds.*256"),
        (lambda: sample(BYTES, POINT, mode="nearest", fill=math.nan), r"fill: wanted a whole number"),
        (lambda: sample(BYTES.bool(), POINT, mode="nearest", fill=2), r"fill: wanted a whole number that bool holds"),
        (lambda: sample(BYTES, POINT, mode="nearest", backend="aten"), r"backend: 'aten' cannot.*floating-point"),
        (lambda: sample(BYTES + 0j, POINT, mode="nearest"), r"image: wanted a floating-point tensor.*complex64"),
        (lambda: sample_labels(BYTES.float(), POINT), r"labels: wanted whole numbers or bools.*float32"),
        (lambda: sample_labels(BYTES, POINT[..., :1]), r"labels: wanted \(N, \*in\) or \(N, C, \*in\) for points"),
        (lambda: sample_labels(BYTES, POINT, soft=True, mode="bspline3"), r"mode: wanted a kernel without prefilter"),
        (lambda: sample_labels(BYTES, POINT, soft=True, fill=-1), r"fill: wanted a whole number that uint8 holds"),
        (lambda: label_probabilities(BYTES, POINT, 0), r"num_classes: wanted a whole number >= 1, got 0"),
        (lambda: label_probabilities(BYTES + 3, POINT, 3), r"labels: wanted labels in .* = \[0, 3\), got 3 to 3"),
        (lambda: label_probabilities(BYTES.long() - 1, POINT, 3), r"labels: wanted labels in .*, got -1 to -1"),
        (lambda: label_probabilities(BYTES, POINT, 3, fill=3), r"fill: wanted a label in \[0, 3\), got 3"),
        (lambda: label_probabilities(BYTES.expand(1, 2, 4, 4), POINT, 3), r"labels: wanted .* one channel"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as error:
        call()
    assert "\n" not in str(error.value)
