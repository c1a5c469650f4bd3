"""The distorted sets: golden pictures and statistics, independence of the batch.

`python tests/test_distortions.py` draws the golden pictures anew and prints the statistics.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from distorted_digits import CORNERS, SEED, digits, drawn
from PIL import Image

from torch_stn.lab.data.distortions import DISTORTIONS, distort
from torch_stn.lab.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
COLUMNS, ROWS = 8, 3


def sheet(kind) -> np.ndarray:
    """24 distorted digits as one 8-bit picture."""
    images = drawn(kind, COLUMNS * ROWS).images[:, 0]
    size = images.shape[-1]
    tiles = images.view(ROWS, COLUMNS, size, size).transpose(1, 2).reshape(ROWS * size, COLUMNS * size)
    return (tiles * 255).round().to(torch.uint8).numpy()


def statistics(kind) -> tuple[float, float, float]:
    """Mean and deviation of the pixels of 4,000 digits, and the percentage of their ink that left the canvas."""
    images, map = drawn(kind, 4000)
    # Each output pixel stands for as much of the digit as its footprint there: the determinant of the map's slopes.
    size = images.shape[-1]
    grid = map.grid((size, size)).double() * 14
    dx = (grid[:, 1:-1, 2:] - grid[:, 1:-1, :-2]) / 2
    dy = (grid[:, 2:, 1:-1] - grid[:, :-2, 1:-1]) / 2
    footprint = (dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]).nan_to_num(0, 0, 0)
    seen = images[:, 0, 1:-1, 1:-1].double() * footprint
    ink = digits()[:4000].double().sum() / 255
    return images.mean().item(), images.std().item(), 100 * (1 - seen.sum() / ink).item()


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_the_golden_pictures(kind):
    golden = np.asarray(Image.open(GOLDEN / f"{kind}.png"))
    now = sheet(kind)
    assert now.shape == golden.shape
    # Rounding differs between processors by some 1e-5 pixel, so a grey level may flip; a wrong sign moves hundreds.
    difference = np.abs(now.astype(int) - golden.astype(int))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01


STATISTICS = {
    # mean, standard deviation, percentage of the ink that left the canvas
    "plain": (0.13188, 0.30922, 0.02395),  # what lies in the outermost pixels, which `statistics` leaves out
    "r": (0.13185, 0.29089, 0.10840),
    "rts": (0.05427, 0.19710, 0.00058),
    "p": (0.08945, 0.24660, 1.66263),
    "e": (0.10098, 0.26002, 0.04124),
    "tc": (0.03971, 0.18045, 0.0),
}


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_the_golden_statistics(kind):
    mean, deviation, lost = statistics(kind)
    golden = STATISTICS[kind]
    assert mean == pytest.approx(golden[0], abs=2e-5)
    assert deviation == pytest.approx(golden[1], abs=2e-5)
    if kind != "tc":  # its clutter counts as ink
        assert lost == pytest.approx(golden[2], abs=0.02)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_shapes_and_ranges(kind):
    images, map = drawn(kind, 300)
    size = DISTORTIONS[kind].size
    assert images.shape == (300, 1, size, size)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert 0.9 < images.max() <= 1
    assert map.batch == 300
    assert map.grid((size, size)).shape == (300, size, size, 2)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_a_digit_is_distorted_alike_in_any_batch(kind):
    whole = drawn(kind, 100).images
    again = drawn(kind, 100).images
    assert torch.equal(whole, again)
    order = torch.randperm(100)
    shuffled = distort(kind, digits(), order, order, SEED).images
    torch.testing.assert_close(shuffled, whole[order], atol=2e-5, rtol=0)
    sliced = torch.cat([drawn(kind, 10, first).images for first in range(0, 100, 10)])
    torch.testing.assert_close(sliced, whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in DISTORTIONS if kind != "plain"])
def test_another_sample_number_or_seed_is_another_distortion(kind):
    still = torch.zeros(6, dtype=torch.int64)
    images = distort(kind, digits(), still, torch.arange(6), SEED).images
    other = distort(kind, digits(), still, torch.arange(6), SEED + 1).images
    pictures = torch.cat([images, other]).flatten(1)
    apart = torch.pdist(pictures)
    assert apart.min() > 1e-3  # two angles of R may come close, no two are equal
    assert apart.median() > 3


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_floats_are_taken_as_they_are(kind):
    samples = torch.arange(20)
    floats = distort(kind, digits().float() / 255, samples, samples, SEED)
    torch.testing.assert_close(floats.images, drawn(kind, 20).images, atol=1e-6, rtol=0)


def test_plain_is_the_digit_to_the_bit():
    images, map = drawn("plain", 50)
    assert torch.equal(images[:, 0], digits()[:50].float() / 255)
    assert torch.equal(map.sources(CORNERS[None]), CORNERS.expand(50, -1, -1))


@pytest.mark.parametrize("kind", ["r", "rts", "p", "e"])
def test_the_picture_is_the_digit_read_where_the_map_says(kind):
    images, map = drawn(kind, 5)
    size = images.shape[-1]
    pixels = (map.grid((size, size)).double().numpy() * 28 + 27) / 2
    whole = np.arange(28)
    for n in range(5):
        # The paper's sum over all pixels of the input, as it stands.
        x, y = (np.maximum(0, 1 - np.abs(pixels[n, ..., axis, None] - whole)) for axis in (0, 1))
        read = np.einsum("abi,abj,ij->ab", y, x, digits()[n].numpy() / 255)
        np.testing.assert_allclose(images[n, 0].numpy(), read, atol=2e-5)


def test_the_ink_of_rts_stays_in_the_canvas():
    assert abs(statistics("rts")[2]) < 0.1


def test_what_is_asked_wrongly():
    samples = torch.arange(4)
    with pytest.raises(UserError, match="data: 'rst' came, wanted one of plain, r, rts, p, e, tc"):
        distort("rst", digits(), samples, samples, 0)
    with pytest.raises(ValueError, match=r"indices \(4,\) and samples \(3,\) came"):
        distort("r", digits(), samples, samples[:3], 0)
    with pytest.raises(ValueError, match=r"digits: shape \(4000, 784\) came"):
        distort("r", digits().flatten(1), samples, samples, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_the_same_on_a_gpu(kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    samples = torch.arange(200)
    there = distort(kind, digits().cuda(), samples, samples, SEED)
    assert there.images.is_cuda
    again = distort(kind, digits().cuda(), samples, samples, SEED)
    assert torch.equal(there.images, again.images)
    torch.testing.assert_close(there.images.cpu(), drawn(kind, 200).images, atol=1e-3, rtol=0)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in DISTORTIONS:
        Image.fromarray(sheet(name)).save(GOLDEN / f"{name}.png", optimize=True)
        print(f'    "{name}": ({", ".join(f"{figure:.5f}" for figure in statistics(name))}),')
