"""antialias=True: points that are no numbers, degenerate maps, batches, vmap and compiled graphs, bad arguments."""

import math
from typing import Any

import pytest
import torch
from cases import FAMILIES, pictures, thetas
from torch import Tensor

from torch_stn import Affine, sample, warp


def turned(angle: float, wide: float = 1.0, high: float = 1.0) -> list[float]:
    """theta that turns, after the output was stretched by ``wide`` and ``high``."""
    c, s = math.cos(angle), math.sin(angle)
    return [c * wide, -s * high, 0, s * wide, c * high, 0]


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_points_that_are_not_finite_read_the_fill(padding: str) -> None:
    image = pictures(1, (40, 40)).requires_grad_()
    for scale in (2.0, 7.0):
        axis = torch.arange(0, 40, scale, dtype=torch.float64)
        points = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1)[None]
        points[0, 1, 1, 0], points[0, 3, 2, 1], points[0, 0, 0] = float("nan"), float("inf"), -float("inf")
        points.requires_grad_()
        values, mask = sample(
            image, points, units="pixel", padding_mode=padding, fill=0.6, antialias=True, return_mask=True
        )
        bad = ~points.detach().isfinite().all(dim=-1)
        assert (values.detach()[:, :, bad[0]] == 0.6).all()
        assert not mask[:, :, bad[0]].any()
        assert mask[:, :, ~bad[0]].all()
        for pull in torch.autograd.grad(values.sum(), (image, points)):
            assert pull.isfinite().all()
        assert torch.isfinite(values).all()
    for theta in (turned(0, float("nan"), 1), [1.0, 0, float("inf"), 0, 1, 0]):
        map = Affine()(torch.tensor([theta], dtype=torch.float64))
        assert (warp(image, map, (4, 4), padding_mode=padding, fill=0.6, antialias=True) == 0.6).all()


@pytest.mark.parametrize(
    "theta", [[0.0] * 6, [1, 1, 0, 1, 1, 0], [9, 0, 0, 0, 0, 0], [1e30, 0, 0, 0, 1, 0], [1, -1, 0, 1e-9, 1e-9, 0]]
)
def test_degenerate_jacobians_give_numbers(theta: list[float]) -> None:
    for dtype in (torch.float32, torch.float64):
        image = pictures(1, (20, 30), dtype=dtype).requires_grad_()
        given = torch.tensor([theta], dtype=dtype, requires_grad=True)
        for out in ((4, 6), (1, 1), (20, 30)):
            values, mask = warp(image, Affine()(given), out, antialias=True, return_mask=True)
            for tensor in (values, mask, *torch.autograd.grad(values.sum(), (image, given))):
                assert tensor.isfinite().all()
            assert values.min() >= 0
            assert values.max() <= 1 + 1e-6


def test_batches_of_one_and_mixed_scales() -> None:
    """One image, many thetas that ask for different levels: each as if alone."""
    images = pictures(4, (48, 40), dtype=torch.float32)
    theta = torch.tensor([turned(0.2, s, s) for s in (0.5, 1.0, 2.1, 6.0)])
    for image in (images, images[:1]):
        together, mask = warp(image, Affine()(theta), (12, 10), antialias=True, return_mask=True)
        for i in range(4):
            alone, lone = warp(
                image[i % len(image)][None], Affine()(theta[i : i + 1]), (12, 10), antialias=True, return_mask=True
            )
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-4)
            torch.testing.assert_close(mask[i : i + 1], lone, rtol=0, atol=1e-4)
    for i in range(4):
        alone = warp(images[i : i + 1], Affine()(theta[2:3]), (12, 10), antialias=True)
        shared = warp(images, Affine()(theta[2:3]), (12, 10), antialias=True)
        torch.testing.assert_close(shared[i : i + 1], alone, rtol=0, atol=1e-5)
    assert warp(images[:0], Affine()(theta[:0]), (3, 3), antialias=True).shape == (0, 2, 3, 3)
    half = warp(images.bfloat16(), Affine()(theta), (12, 10), antialias=True)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), warp(images, Affine()(theta), (12, 10), antialias=True), rtol=0, atol=8e-3)


MIXED = torch.tensor([turned(0.2, s, s) for s in (0.5, 2.1, 6.0)])


def read_mixed(image: Tensor, theta: Tensor) -> Tensor:
    return warp(image, Affine()(theta), (9, 8), antialias=3, padding_mode="border")


def test_under_vmap_every_probe_of_every_level_is_read_to_the_same_end() -> None:
    images, theta = pictures(3, (40, 37), channels=1, dtype=torch.float32), MIXED
    mapped = torch.vmap(lambda image, theta: read_mixed(image[None], theta[None])[0])(images, theta)
    torch.testing.assert_close(mapped, read_mixed(images, theta), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_graph_says_the_same() -> None:
    images, theta = pictures(3, (40, 37), channels=1, dtype=torch.float32), MIXED
    compiled = torch.compile(read_mixed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, theta), read_mixed(images, theta), rtol=0, atol=1e-4)


def test_points_and_maps_agree() -> None:
    image = pictures(2, (50, 70))
    for name in ("affine", "projective", "tps"):
        family = FAMILIES[name]()
        map = family(thetas(family))
        for out in ((20, 30), (7, 9)):
            wanted = warp(image, map, out, antialias=True)
            got = sample(image, map.grid(out), antialias=True)
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("scale", [3.0, 7.0])
def test_a_fill_of_infinity_reaches_only_what_feels_it(scale: float) -> None:
    """Pixels with few probes beside pixels with many: what the few do not count must not be multiplied by 0."""
    image = pictures(1, (40, 40))
    axis = torch.cat([torch.arange(-4.0, 9), 9 + scale * torch.arange(12.0)]).double()
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1)[None]
    how: dict[str, Any] = {"units": "pixel", "antialias": True}
    for fill in (math.inf, math.nan):
        values = sample(image, points, fill=fill, **how)
        low, high = (sample(image, points, fill=number, **how) for number in (0.0, 1.0))
        felt = (high - low).abs() > 1e-6
        assert torch.equal(values[felt], torch.full_like(values[felt], fill)) or math.isnan(fill)
        assert torch.equal(torch.isfinite(values), ~felt)
        assert felt[..., 0, 0].all()
        assert not felt[..., 8:10, 8:10].any()


def test_whole_numbers_are_refused() -> None:
    for image in (torch.ones(1, 1, 8, 8, dtype=torch.uint8), torch.ones(1, 1, 8, 8, dtype=torch.bool)):
        for reach in (0.5, 9.0):
            with pytest.raises(TypeError, match=r"^image: wanted a floating-point tensor"):
                sample(image, reach * SPREAD, antialias=True)


def test_the_mask_where_no_rule_is_zeros_is_that_of_reading() -> None:
    """edge="extend" says something about "zeros" alone: under "border" the mask is the share of the kernel."""
    image, points = pictures(1, (8, 8)), 0.2 * torch.randn(1, 4, 4, 2, generator=torch.Generator().manual_seed(0)) + 0.9
    for how in ({}, {"antialias": True}):
        given = points if not how else torch.cat([points, points * 0.1], dim=1)
        masks = [
            sample(image, given.double(), padding_mode="border", edge=edge, return_mask=True, **how)[1]
            for edge in ("blend", "extend")
        ]
        assert torch.equal(*masks)
        assert ((masks[0] > 0) & (masks[0] < 1)).any()


IMAGE, POINTS = torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 4, 2)
SPREAD = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 4)] * 2, indexing="ij")[::-1], dim=-1)[None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"antialias": 0}, r"^antialias: wanted True, False or a number of probes >= 1, got 0"),
        ({"antialias": -2}, r"^antialias: wanted .* got -2"),
        ({"antialias": 2.5}, r"^antialias: wanted .* got 2.5"),
        ({"antialias": "yes"}, r"^antialias: wanted .* got 'yes'"),
        ({"mode": "nearest"}, r"^antialias: wanted mode 'bilinear', .* got 'nearest'"),
        ({"mode": "bicubic"}, r"^antialias: wanted mode 'bilinear', .* got 'bicubic'"),
        ({"points": POINTS[:, 0]}, r"^antialias: wanted points \(N, \*out, 2\)"),
        ({"points": POINTS[:, None]}, r"^antialias: wanted points \(N, \*out, 2\)"),
        ({"padding_mode": "reflect"}, r"^padding_mode: wanted one of"),
        ({"edge": "soft"}, r"^edge: wanted one of"),
        ({"backend": "cuda"}, r"^backend: wanted one of"),
        ({"backend": "aten", "fill": 0.5}, r"^backend: 'aten' cannot serve this call: .*fill"),
        ({"backend": "aten", "fill": 0.5, "points": POINTS + 9 * SPREAD}, r"^backend: 'aten' cannot serve .*fill"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"image": IMAGE, "points": POINTS, "antialias": True, **change}
    with pytest.raises(ValueError, match=message):
        sample(arguments.pop("image"), arguments.pop("points"), **arguments)
