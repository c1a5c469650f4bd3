"""antialias=True: against the mean of thousands of samples per pixel, and exactly where it has nothing to do."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import FAMILIES, ON_CPU, draw, pictures, waves
from torch import Tensor

from torch_stn import Affine, Projective, Transform, sample, warp
from torch_stn.transforms.maps import Map

PADDINGS = ("zeros", "border", "reflection", "symmetric", "mirror", "wrap")
CORNERS = pytest.mark.parametrize("align_corners", [False, True])


def zone_plate(n: int) -> Tensor:
    """cos(radius^2), whose frequency is half a cycle per pixel at the middle of each border."""
    x = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    return (0.5 + 0.5 * torch.cos(math.pi * (x**2 + x[:, None] ** 2) / n))[None, None]


def mean_of_many(image: Tensor, map: Map, size: tuple[int, int], count: int, **how: Any) -> Tensor:
    """The mean of count x count bilinear samples in each output pixel, by F.grid_sample."""
    inner = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    y, x = (((2 * (torch.arange(m)[:, None] + inner) + 1) / m - 1) for m in size)
    total = torch.zeros(1, image.shape[1], *size, dtype=torch.float64)
    for line in y.unbind(dim=1):
        xy = torch.stack(torch.meshgrid(line, x.flatten(), indexing="ij")[::-1], dim=-1)[None]
        read = F.grid_sample(image, map.sources(xy), align_corners=False, **how)
        total += read.unflatten(-1, (size[1], count)).mean(dim=-1)
    return total / count


def psnr(values: Tensor, truth: Tensor) -> float:
    """Of pictures in [0, 1], in dB."""
    return -10 * math.log10(float((values.double() - truth).square().mean()) + 1e-30)


def turned(angle: float, wide: float = 1.0, high: float = 1.0) -> list[float]:
    """theta that turns, after the output was stretched by ``wide`` and ``high``."""
    c, s = math.cos(angle), math.sin(angle)
    return [c * wide, -s * high, 0, s * wide, c * high, 0]


# Family, theta, input pixels per output pixel along (height, width).
LINES: dict[str, tuple[type[Transform], list[float], tuple[float, float]]] = {
    "1/2": (Affine, turned(0), (2, 2)),
    "1/3.3": (Affine, turned(0), (3.3, 3.3)),
    "1/4": (Affine, turned(0), (4, 4)),
    "1/8": (Affine, turned(0), (8, 8)),
    "1/16": (Affine, turned(0), (16, 16)),
    "1/2, rotated": (Affine, turned(0.5), (2, 2)),
    "1/3.3, rotated": (Affine, turned(0.5), (3.3, 3.3)),
    "1/8, rotated": (Affine, turned(0.5), (8, 8)),
    "1/8 x 1/1.5": (Affine, turned(0), (1.5, 8)),
    "1/8 x 1/1.5, rotated": (Affine, turned(0.5), (1.5, 8)),
    "receding plane": (Projective, [1.0, 0, 0, 0, 1, 0, 0, 0.8], (2, 2)),
    "receding plane, turned": (Projective, [2.0, 0, 0, 0, 1.6, 0.6, 0.2, -0.7], (4, 4)),
}


def quality(name: str, n: int, count: int) -> tuple[float, float]:
    """PSNR of plain and of antialiased reading."""
    make, theta, scales = LINES[name]
    map = make()(torch.tensor([theta], dtype=torch.float64))
    size = (round(n / scales[0]), round(n / scales[1]))
    image = zone_plate(n)
    truth = mean_of_many(image, map, size, count)
    return psnr(warp(image, map, size), truth), psnr(warp(image.float(), map, size, antialias=True), truth)


@pytest.mark.parametrize("name", LINES)
def test_a_zone_plate_is_within_28_db_of_the_mean_of_many_samples(name: str) -> None:
    plain, antialiased = quality(name, 128, 16)
    assert antialiased >= 28
    assert antialiased > plain + 5


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_a_large_zone_plate_against_64_by_64_samples_a_pixel(name: str) -> None:
    plain, antialiased = quality(name, 256, 64)
    assert antialiased >= 28
    assert antialiased > plain + 5


@CORNERS
@pytest.mark.parametrize("backend", [*ON_CPU, None])
def test_what_is_not_shrunk_is_read_plainly_bit_by_bit(backend: str | None, align_corners: bool) -> None:
    how: dict[str, Any] = {"backend": backend, "align_corners": align_corners, "return_mask": True}
    for name in ("affine", "projective", "tps", "affine 3-D"):
        family = FAMILIES[name]()
        size = (6, 9) if family.dims == 2 else (3, 4, 5)
        image, map = pictures(2, size), family(family.identity()[None].double())
        for got, wanted in zip(warp(image, map, antialias=True, **how), warp(image, map, **how), strict=True):
            assert torch.equal(got, wanted), name
    for theta in (turned(0.3, 0.5, 0.5), turned(-2.0, 0.9, 0.1), [0.0] * 6):
        map, image = Affine()(torch.tensor([theta], dtype=torch.float64)), pictures(1, (8, 8))
        for got, wanted in zip(warp(image, map, antialias=True, **how), warp(image, map, **how), strict=True):
            assert torch.equal(got, wanted)


@CORNERS
@pytest.mark.parametrize("padding", PADDINGS[1:])
def test_a_constant_image_stays_constant(padding: str, align_corners: bool) -> None:
    for size, out in (
        ((37, 53), (5, 9)),
        ((64, 64), (4, 4)),
        ((1, 40), (1, 7)),
        ((23,), (4,)),
        ((9, 11, 13), (3, 2, 2)),
    ):
        d = len(size)
        image = torch.full((1, 2, *size), 0.3, dtype=torch.float64)
        theta = (torch.eye(d, d + 1, dtype=torch.float64) * 1.7 + 0.1)[None]
        points = Affine(d)(theta).grid(out) if d > 1 else torch.linspace(-2, 2, 4, dtype=torch.float64)[None, :, None]
        got = sample(image, points, padding_mode=padding, align_corners=align_corners, antialias=True)
        torch.testing.assert_close(got, torch.full_like(got, 0.3), rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [1.6, 3.0, 6.0, 9.0])
@pytest.mark.parametrize("size", [(37, 53), (64, 48)], ids=str)
def test_pixels_that_the_border_cuts_hold_the_share_of_fill_that_is_due(size: tuple[int, int], scale: float) -> None:
    """The picture ends in the middle of the output: mask and fill against many samples of a picture of ones."""
    map = Affine()(torch.tensor([turned(0.3, 1.7, 1.5)], dtype=torch.float64))
    out = (round(size[0] * 1.5 / scale), round(size[1] * 1.7 / scale))
    image = waves(size) + 0.5
    share, values = (mean_of_many(picture, map, out, 24) for picture in (torch.ones_like(image), image))
    got, mask = warp(image, map, out, antialias=True, return_mask=True, fill=2.0)
    torch.testing.assert_close(mask, share, rtol=0, atol=0.09)
    torch.testing.assert_close(got, values + 2 * (1 - share), rtol=0, atol=0.15)
    assert mask.min() == 0
    assert mask.max() == 1
    marked = warp(image, map, out, antialias=True, fill=float("nan")).isnan()
    assert marked[mask < 0.99].all()
    assert not marked[mask == 1].any()


def test_under_extend_the_border_does_not_fade() -> None:
    image = torch.full((1, 1, 48, 48), 0.7, dtype=torch.float64)
    for scale in (3.0, 7.0):
        map, out = Affine()(torch.tensor([turned(0.0, 2.0, 2.0)], dtype=torch.float64)), (round(96 / scale),) * 2
        got, mask = warp(image, map, out, antialias=True, edge="extend", return_mask=True, fill=0.2)
        torch.testing.assert_close(got, 0.7 * mask + 0.2 * (1 - mask), rtol=0, atol=1e-12)
        assert mask.min() == 0
        assert mask.max() == 1
        # Nothing blends in, so the shares sum to the image's area; two or three probes are in or out one by one.
        pixel = 2 * 48 / out[0]
        assert float(mask.sum()) * pixel**2 == pytest.approx(48**2, abs=4 * 48 * pixel / 5)


@pytest.mark.parametrize("scale", [1.5, 3.0, 5.0, 8.0])
def test_beyond_the_border_every_rule_reads_the_picture_it_draws(scale: float) -> None:
    """A picture that holds its own surroundings says the same."""
    image = 0.9 * waves((32, 32)) + 0.1 * pictures(1, (32, 32), channels=1)
    row = torch.cat([image, image.flip(-1)] * 2 + [image], dim=-1)
    around = {
        "border": F.pad(image, [64] * 4, mode="replicate"),
        "symmetric": torch.cat([row, row.flip(-2)] * 2 + [row], dim=-2),
        "wrap": image.repeat(1, 1, 5, 5),
    }
    axis = torch.arange(-30, 62, scale, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis + 0.3, indexing="ij")[::-1], dim=-1)[None]
    for padding, picture in around.items():
        got = sample(image, points, units="pixel", padding_mode=padding, antialias=True)
        wanted = sample(picture, points + 64, units="pixel", antialias=True)
        # On coarse levels the border repeats its last cell, not its last pixel.
        torch.testing.assert_close(got, wanted, rtol=0, atol=0.06 if padding == "border" and scale > 4 else 1e-12)


@pytest.mark.parametrize("scale", [1.3, 2.6, 5.3, 9.1])
@pytest.mark.parametrize("padding", ["zeros", "border", "wrap"])
def test_gradients(padding: str, scale: float) -> None:
    image = pictures(1, (13, 11)).requires_grad_()
    theta = torch.tensor([turned(0.3, 0.9, 1.1)], dtype=torch.float64, requires_grad=True)
    out = (max(2, round(13 / scale)), max(2, round(11 / scale)))

    def read(image: Tensor, theta: Tensor) -> Tensor:
        return warp(image, Affine()(theta), out, padding_mode=padding, antialias=True, fill=0.3)

    assert torch.autograd.gradcheck(read, (image, theta), fast_mode=True)
    plane = torch.tensor([[0.9, 0.1, 0.02, -0.1, 0.8, 0.03, 0.1, 0.4]], dtype=torch.float64, requires_grad=True)

    def look(image: Tensor, theta: Tensor) -> Tensor:
        return warp(image, Projective()(theta), out, padding_mode=padding, antialias=True)

    assert torch.autograd.gradcheck(look, (image, plane), fast_mode=True)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_gradients_reach_points_in_every_dimension(d: int) -> None:
    image = pictures(2, (23, 9, 7)[:d]).requires_grad_()
    points = (3.1 * draw(2, *(3, 2, 2)[:d], d) + 0.03).requires_grad_()
    for factor in (1.0, 4.0):

        def read(image: Tensor, points: Tensor, factor: float = factor) -> tuple[Tensor, Tensor]:
            return sample(image, points * factor, units="pixel", antialias=2, return_mask=True)

        assert torch.autograd.gradcheck(read, (image, points), fast_mode=True)


def test_second_derivatives_on_the_reference() -> None:
    image = pictures(1, (13, 11), channels=1).requires_grad_()
    theta = torch.tensor([turned(0.3, 0.9, 1.1)], dtype=torch.float64, requires_grad=True)
    for out in ((5, 4), (2, 2)):
        assert torch.autograd.gradgradcheck(
            lambda image, theta, out=out: warp(image, Affine()(theta), out, antialias=True, backend="reference"),
            (image, theta),
            fast_mode=True,
        )


def test_volumes_and_rows() -> None:
    """A ramp stays a ramp, wherever no footprint leaves the picture."""
    for d, n in ((1, 96), (3, 40)):
        axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64)] * d, indexing="ij")
        image = sum((i + 1.0) * axis for i, axis in enumerate(axes))[None, None]
        for scale in (1.5, 3.0, 6.0):
            axis = torch.arange(2 * scale, n - 2 * scale, scale, dtype=torch.float64)
            points = torch.stack(torch.meshgrid(*[axis] * d, indexing="ij")[::-1], dim=-1)[None]
            got = sample(image, points, units="pixel", antialias=True)
            wanted = sum((i + 1.0) * points[0, ..., d - 1 - i] for i in range(d))
            torch.testing.assert_close(got[0, 0], wanted, rtol=0, atol=1e-9)
