"""sample(): what may come in: any shape, batch, dtype, point; and what may not, with the message that says so."""

import math
from typing import Any

import pytest
import torch
from cases import MODES, ON_CPU, PADDINGS, TOLERANCE, draw, inner_points, pictures, points_off_kinks
from torch import Tensor

from torch_stn import sample, splat
from torch_stn.coordinates import base_pixels, to_normalized
from torch_stn.sampling.choose import BACKENDS
from torch_stn.sampling.interpolation import Cubic, Linear, Nearest

EVERY_BACKEND = pytest.mark.parametrize("backend", [*ON_CPU, None])
EVERY_PADDING = pytest.mark.parametrize("padding", PADDINGS)
BEYOND_FLOAT = [math.nan, math.inf, -math.inf]


def slopes(image: Tensor, points: Tensor, **how: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The values, and the gradients of a fixed weighting of them to image and points."""
    u, p = image.detach().clone().requires_grad_(), points.detach().clone().requires_grad_()
    values = sample(u, p, **how)
    values.backward(draw(*values.shape, seed=9, dtype=values.dtype))
    return (
        values.detach(),
        torch.zeros_like(u) if u.grad is None else u.grad,
        torch.zeros_like(p) if p.grad is None else p.grad,
    )


def served(backend: str | None, dims: int, mode: str, fill: float = 0.0) -> bool:
    """Whether a backend named in a test can serve it; what it refuses is tested in test_backends.py."""
    return backend != "aten" or not ((dims == 3 and mode == "bicubic") or fill)


@EVERY_BACKEND
@EVERY_PADDING
@pytest.mark.parametrize("dims", [2, 3])
def test_points_that_are_nowhere(dims: int, padding: str, backend: str | None) -> None:
    """NaN and infinite points read the fill value, have no gradient and are not covered; their neighbours are."""
    in_size = (4, 5) if dims == 2 else (3, 4, 3)
    image, points = pictures(1, in_size), points_off_kinks(1, 12, in_size, beyond=0)
    bad = points.clone()
    for i, value in enumerate(BEYOND_FLOAT * 2):
        bad[0, 2 * i, i % dims] = value
    lost = ~torch.isfinite(bad).all(dim=-1)[0]
    assert lost.sum() == 6
    for mode in MODES:
        for fill in (0.0, 0.25):
            if not served(backend, dims, mode, fill):
                continue
            how: dict[str, Any] = {
                "mode": mode,
                "padding_mode": padding,
                "units": "pixel",
                "fill": fill,
                "backend": backend,
            }
            values, mask = sample(image, bad, return_mask=True, **how)
            wanted = slopes(image, points, **how)
            assert (values[..., lost] == fill).all()
            torch.testing.assert_close(values[..., ~lost], wanted[0][..., ~lost])
            assert not mask[..., lost].any()
            assert (mask[..., ~lost] > 0.9).all()
            _, pull_image, pull_points = slopes(image, bad, **how)
            assert torch.isfinite(pull_image).all()
            assert not pull_points[:, lost].any()
            torch.testing.assert_close(pull_points[:, ~lost], wanted[2][:, ~lost])


@EVERY_BACKEND
@EVERY_PADDING
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_points_that_are_very_far_away(mode: str, dtype: torch.dtype, padding: str, backend: str | None) -> None:
    image = pictures(1, (4, 5), dtype=dtype)
    far = torch.tensor([[[1e30, 0.0], [-1e30, -1e30], [0.1, 1e12], [-1e7, 3e9], [1e30, -1e30]]], dtype=dtype)
    for units in ("normalized", "pixel"):
        how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "units": units, "backend": backend}
        values, mask = sample(image, far, return_mask=True, **how)
        assert not mask.any()
        _, pull_image, pull_points = slopes(image, far, **how)
        assert torch.isfinite(pull_image).all()
        if padding == "zeros":
            assert not values.any()
            assert not pull_image.any()
        elif padding == "border":
            corners = image[0, :, [3, 0, 3, 3, 0], [4, 0, 2, 0, 4]]
            torch.testing.assert_close(values[0, :, [1, 3, 4]], corners[:, [1, 3, 4]])
        else:  # only -1e7 could still be found in the mirrors, and 3e9 beside it cannot
            assert not values.any()
            assert not pull_image.any()
        assert not pull_points[far.abs() > 1e6].any()
        assert torch.isfinite(pull_points).all()


@EVERY_BACKEND
@pytest.mark.parametrize("padding", ["reflection", "symmetric", "mirror", "wrap"])
def test_mirrors_are_looked_into_as_far_as_coordinates_tell(padding: str, backend: str | None) -> None:
    if backend in ("cpu", "aten") and padding != "reflection":
        pytest.skip(f"{backend} has no {padding} padding")
    image = pictures(1, (4, 8), dtype=torch.float64)
    far = [[3.0, 2.0], [3.0 + 16 * 2**20, 2.0 - 8 * 2**20], [3.0, 2.0**31]]
    fill = 0.0 if backend == "aten" else 7.0  # the only one that it has
    points = torch.tensor([far], dtype=torch.float64)
    values = sample(image, points, padding_mode=padding, units="pixel", fill=fill, backend=backend)
    torch.testing.assert_close(values[..., :1], image[:, :, 2, 3, None])
    if padding != "mirror":  # whose period is 2 (n - 1)
        torch.testing.assert_close(values[..., 1], values[..., 0])
    assert (values[..., 2] == fill).all()


@EVERY_BACKEND
@pytest.mark.parametrize("special", BEYOND_FLOAT)
def test_a_pixel_that_is_no_number_reaches_only_the_points_that_read_it(special: float, backend: str | None) -> None:
    image = pictures(1, (5, 6))
    image[..., 4, 5] = image[..., 0, 0] = special
    points = torch.tensor([[[1.5, 1.5], [2.5, 2.2], [7.0, 9.0], [-3.0, -2.5], [8.5, 1.0], [5.5, -4]]]).double()
    for mode in ("nearest", "bilinear"):
        values = sample(image, points, mode=mode, units="pixel", backend=backend)
        assert torch.isfinite(values).all()
        assert not values[..., 2:].any()


@EVERY_BACKEND
def test_units_say_the_same_in_three_ways(backend: str | None) -> None:
    in_size, size = (4, 6), (3, 5)
    image, moved = pictures(2, in_size), 3 * inner_points(2, 15, 2).reshape(2, *size, 2)
    for align_corners in (False, True):
        pixels = moved + base_pixels(size, in_size, align_corners=align_corners, like=moved)
        how: dict[str, Any] = {"align_corners": align_corners, "backend": backend}
        wanted = sample(image, pixels, units="pixel", **how)
        assert wanted.shape == (2, 2, *size)
        torch.testing.assert_close(sample(image, moved, units="displacement", **how), wanted)
        grid = to_normalized(pixels, in_size, align_corners=align_corners)
        torch.testing.assert_close(sample(image, grid, units="normalized", **how), wanted)


def test_no_displacement_is_the_image() -> None:
    for size in ((5, 7), (3, 4, 5), (2, 4097)):
        image = pictures(2, size, dtype=torch.float32)
        stay = torch.zeros(1, *size, len(size))
        torch.testing.assert_close(sample(image, stay, units="displacement"), image, rtol=0, atol=1e-6)
        assert torch.equal(sample(image, stay, units="displacement", backend="reference"), image)
        if BACKENDS["cpu"].MISSING is None:
            assert torch.equal(sample(image, stay, units="displacement"), image)


@EVERY_BACKEND
@pytest.mark.parametrize("shape", [(), (24,), (2, 12), (2, 3, 4), (2, 3, 2, 2), (0,), (3, 0)])
@pytest.mark.parametrize("in_size", [(4, 5), (2, 3, 4)])
def test_points_of_any_shape(in_size: tuple[int, ...], shape: tuple[int, ...], backend: str | None) -> None:
    d = len(in_size)
    image, points = pictures(2, in_size, channels=3), inner_points(2, math.prod(shape), d, reach=1.3)
    values, mask = sample(image, points.reshape(2, *shape, d), return_mask=True, backend=backend)
    assert values.shape == (2, 3, *shape)
    assert mask.shape == (2, 1, *shape)
    assert torch.equal(values.reshape(2, 3, -1), sample(image, points, backend=backend))


@EVERY_BACKEND
@EVERY_PADDING
@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_of_one_serves_any_batch(dims: int, padding: str, backend: str | None) -> None:
    in_size = (4, 5) if dims == 2 else (3, 4, 3)
    images, points = pictures(3, in_size), inner_points(3, 10, dims, reach=1.3).reshape(3, 2, 5, dims)
    points[1, 0, 0] = math.nan
    how: dict[str, Any] = {"padding_mode": padding, "backend": backend}
    for u, p in ((images[:1], points), (images, points[:1]), (images[:1], points[:1])):
        got_mask = sample(u, p, return_mask=True, **how)[1]
        assert got_mask.shape == (max(len(u), len(p)), 1, 2, 5)
        got = slopes(u, p, **how)
        n = max(len(u), len(p))
        wanted = slopes(u.expand(n, *u.shape[1:]), p.expand(n, *p.shape[1:]), **how)
        torch.testing.assert_close(got[0], wanted[0])
        for i, variable in ((1, u), (2, p)):
            summed = wanted[i].sum(dim=0, keepdim=True) if len(variable) < n else wanted[i]
            torch.testing.assert_close(got[i], summed)


@EVERY_BACKEND
@pytest.mark.parametrize("points_dtype", TOLERANCE)
@pytest.mark.parametrize("image_dtype", TOLERANCE)
def test_image_and_points_of_different_dtypes(
    image_dtype: torch.dtype, points_dtype: torch.dtype, backend: str | None
) -> None:
    image = pictures(2, (4, 5), dtype=image_dtype)
    points = to_normalized(points_off_kinks(2, 20, (4, 5)), (4, 5)).to(points_dtype)
    got = slopes(image, points, backend=backend)
    assert [tensor.dtype for tensor in got] == [image_dtype, image_dtype, points_dtype]
    compute = torch.float64 if image_dtype == torch.float64 else torch.float32
    wanted = sample(image.to(compute), points.to(compute), backend=backend)
    assert torch.equal(got[0], wanted.to(image_dtype)), "coordinates or sums were rounded below float32"
    exact = slopes(image.double(), points.double(), backend="reference")
    bound = max(TOLERANCE[image_dtype], TOLERANCE[points_dtype]) * 20
    for ours, theirs in zip(got, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=bound)
    mask = sample(image, points, return_mask=True)[1]
    assert mask.dtype == image_dtype


@EVERY_BACKEND
@EVERY_PADDING
def test_axes_of_one_pixel(padding: str, backend: str | None) -> None:
    for in_size in ((1, 4), (4, 1), (1, 1), (1, 3, 1)):
        image = pictures(1, in_size)
        points = inner_points(1, 20, len(in_size), reach=1.4)
        for align_corners in (False, True):
            how: dict[str, Any] = {"padding_mode": padding, "align_corners": align_corners}
            got = slopes(image, points, backend=backend, **how)
            for ours, theirs in zip(got, slopes(image, points, backend="reference", **how), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
            if padding != "zeros" and in_size == (1, 1):
                torch.testing.assert_close(got[0], image.flatten(2).expand(1, 2, 20))


@EVERY_BACKEND
@pytest.mark.parametrize(
    ("image_shape", "points_shape", "wanted"),
    [
        ((0, 2, 4, 5), (0, 3, 2), (0, 2, 3)),
        ((1, 2, 4, 5), (0, 3, 2), (0, 2, 3)),
        ((0, 2, 4, 5), (1, 3, 2), (0, 2, 3)),
        ((2, 0, 4, 5), (2, 3, 2), (2, 0, 3)),
        ((2, 0, 4, 5), (1, 3, 2), (2, 0, 3)),
        ((2, 3, 4, 5), (2, 0, 2), (2, 3, 0)),
        ((1, 3, 4, 5), (4, 2, 0, 2), (4, 3, 2, 0)),
        ((0, 0, 2, 2, 2), (0, 0, 3), (0, 0, 0)),
    ],
)
def test_nothing_to_read(
    image_shape: tuple[int, ...], points_shape: tuple[int, ...], wanted: tuple[int, ...], backend: str | None
) -> None:
    image, points = torch.rand(image_shape, requires_grad=True), torch.rand(points_shape, requires_grad=True)
    for mode in ("nearest", "bilinear", "bicubic"):
        if not served(backend, image.dim() - 2, mode):
            continue
        values, mask = sample(image, points, mode=mode, backend=backend, return_mask=True)
        assert values.shape == wanted
        assert mask.shape == (wanted[0], 1, *wanted[2:])
        values.sum().backward()
        assert image.grad is not None
        assert image.grad.shape == image_shape
        assert not image.grad.any()


def test_tensors_of_any_layout() -> None:
    image, points = pictures(4, (6, 8), channels=3), inner_points(4, 12, 2)
    wanted = sample(image, points)
    assert torch.equal(sample(image.to(memory_format=torch.channels_last), points), wanted)
    assert torch.equal(sample(image.mT.contiguous().mT, points.mT.contiguous().mT), wanted)
    assert torch.equal(
        sample(pictures(4, (6, 16), 3)[..., ::2], points), sample(pictures(4, (6, 16), 3)[..., ::2] + 0, points)
    )
    stretched = image[:1, :1].expand(4, 3, -1, -1)
    assert torch.equal(sample(stretched, points), sample(stretched.contiguous(), points))
    with torch.inference_mode():
        assert torch.equal(sample(image.clone(), points.clone()), wanted)


def test_modes_may_be_objects() -> None:
    image, points = pictures(1, (5, 6)), inner_points(1, 20, 2, reach=1.2)
    for name, built_in in (("nearest", Nearest()), ("bilinear", Linear()), ("bicubic", Cubic())):
        torch.testing.assert_close(sample(image, points, mode=built_in), sample(image, points, mode=name))


@EVERY_BACKEND
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection", "symmetric", "mirror", "wrap"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_coordinate_that_overflows_in_pixels_counts_as_infinite(dims: int, padding: str, backend: str | None) -> None:
    """3e38 is a finite number, 28 / 2 times as much is none; the third point lies in the middle of the image."""
    points = torch.zeros(1, 3, dims)
    points[0, 0, 0], points[0, 1, -1] = 3e38, -3e38
    for mode in ("nearest", "bilinear"):
        how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "backend": backend}
        try:
            values = sample(torch.ones(1, 1, *[28] * dims), points, **how)
        except ValueError:
            assert backend in ("aten", "cpu")
            continue
        assert values.flatten().tolist() == [0, 0, 1]
        if backend != "cpu":  # which has no splat
            assert splat(torch.ones(1, 1, 3), points, (28,) * dims, **how).sum() == 1
