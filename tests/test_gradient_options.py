"""spatial_gradient(), and coordinate_gradient: the same values and image gradients, slopes that see farther."""

import math
from typing import Any

import pytest
import torch
from cases import draw, inner_points, kink_points, pictures, points_off_kinks, thetas
from torch import Tensor
from torch.autograd import gradcheck

from torch_stn import (
    Affine,
    CoarseToFineGradient,
    CoordinateGradient,
    LinearizedGradient,
    sample,
    spatial_gradient,
    warp,
)
from torch_stn.coordinates import base_pixels, to_normalized
from torch_stn.sampling.gradients import GRADIENTS
from torch_stn.sampling.interpolation import INTERPOLATIONS

SIZES = {1: (7,), 2: (5, 4), 3: (3, 4, 2)}
OTHERS = [LinearizedGradient(8, 1.5), CoarseToFineGradient(1.5)]
OTHER = pytest.mark.parametrize("gradient", OTHERS, ids=["linearized", "coarse-to-fine"])


def pulled(image: Tensor, points: Tensor, **how: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Values, and the gradients of a fixed weighting of them to image and points."""
    u, p = image.clone().requires_grad_(), points.clone().requires_grad_()
    values = sample(u, p, **how)
    finite = torch.where(torch.isfinite(values), values, 0.0)
    to_u, to_p = torch.autograd.grad((finite * draw(*values.shape, seed=9)).sum(), (u, p), materialize_grads=True)
    return values.detach(), to_u, to_p


PROBLEMS = [
    *[(2, mode, "zeros", {"fill": 0.3}) for mode in INTERPOLATIONS if not mode.startswith("bspline")],
    *[(2, f"bspline{degree}", "zeros", {}) for degree in (0, 1, 2, 3, 5)],
    *[(2, "bilinear", padding, {}) for padding in ("border", "reflection", "mirror", "wrap")],
    (2, "bicubic", ("wrap", "border"), {}),
    (2, "bilinear", "zeros", {"edge": "extend", "fill": 0.3}),
    (2, "bicubic", "zeros", {"fill": math.inf}),
    (1, "bspline3", "mirror", {}),
    (1, "bilinear", "zeros", {}),
    (3, "bilinear", "border", {}),
    (3, "bicubic", "zeros", {}),
]


@pytest.mark.parametrize("units", ["normalized", "pixel"])
@pytest.mark.parametrize(("d", "mode", "padding", "how"), PROBLEMS)
def test_spatial_gradient_is_the_slope_of_sample(
    d: int, mode: str, padding: Any, how: dict[str, Any], units: str
) -> None:
    """Against what autograd says, on kinks and off them; and off them against central differences."""
    size = SIZES[d]
    off = points_off_kinks(1, 12, size, beyond=1.0)
    points = torch.cat([off, kink_points(size)[:, ::7]], dim=1)
    points = points if units == "pixel" else to_normalized(points, size)
    image = pictures(1, size)
    how = {"mode": mode, "padding_mode": padding, "units": units, **how}
    slopes = spatial_gradient(image, points, **how)
    assert slopes.shape == (1, 2, points.shape[1], d)
    for channel in range(2):
        p = points.clone().requires_grad_()
        read = sample(image[:, channel : channel + 1], p, backend="reference", **how)
        wanted = torch.zeros_like(p)
        if read.requires_grad:
            wanted = torch.autograd.grad(torch.where(torch.isfinite(read), read, 0.0).sum(), p)[0]
        torch.testing.assert_close(slopes[:, channel], wanted, rtol=0, atol=1e-12)
    if math.isfinite(how.get("fill", 0.0)) and "edge" not in how:
        step = 1e-6 * torch.eye(d, dtype=torch.float64)
        near = points[:, :12]
        ends = [
            torch.stack([sample(image, near + sign * s, backend="reference", **how) for s in step], -1)
            for sign in (1, -1)
        ]
        torch.testing.assert_close(slopes[:, :, :12], (ends[0] - ends[1]) / 2e-6, rtol=0, atol=1e-6)


def test_spatial_gradient_of_known_pictures() -> None:
    """Of x^2 + 3y under a B-spline of degree 2 and up: (2x, 3) exactly, far from the border."""
    y, x = torch.meshgrid(*[torch.arange(40, dtype=torch.float64)] * 2, indexing="ij")
    image, points = (x.square() + 3 * y)[None, None], 18 + 4 * draw(1, 9, 2)
    for mode in ("bspline2", "bspline3"):
        slopes = spatial_gradient(image, points, mode=mode, units="pixel", padding_mode="mirror")[:, 0]
        wanted = torch.stack([2 * points[..., 0], torch.full_like(points[..., 0], 3)], dim=-1)
        torch.testing.assert_close(slopes, wanted, rtol=0, atol=1e-8)


def test_spatial_gradient_has_derivatives_batches_and_lost_points() -> None:
    image, points = pictures(2, (4, 5), channels=1), points_off_kinks(1, 3, (4, 5))
    how: dict[str, Any] = {"mode": "bicubic", "units": "pixel"}
    inputs = (image.requires_grad_(), points.requires_grad_())
    assert gradcheck(lambda u, p: spatial_gradient(u, p, **how), inputs, fast_mode=True)
    two = spatial_gradient(image, points, **how)
    torch.testing.assert_close(two, spatial_gradient(image, points.expand(2, -1, -1), **how))
    for padding in ("zeros", "border"):
        lost = spatial_gradient(image, torch.full((2, 3, 2), math.nan), padding_mode=padding, fill=2.0)
        assert lost.shape == (2, 1, 3, 2)
        assert not lost.any()
    assert spatial_gradient(image[:0], points).shape == (0, 1, 3, 2)
    assert spatial_gradient(image.float(), points[:, :0], units="pixel").dtype == torch.float32
    each = torch.vmap(lambda u, p: spatial_gradient(u[None], p[None], **how)[0], in_dims=(0, None))(image, points[0])
    torch.testing.assert_close(each, two)
    with pytest.raises(TypeError, match="image: wanted a floating-point tensor"):
        spatial_gradient(image.long(), points)
    with pytest.raises(ValueError, match="units: wanted one of"):
        spatial_gradient(image, points, units="metres")


@OTHER
@pytest.mark.parametrize("fill", [0.0, 0.25, math.nan])
@pytest.mark.parametrize(
    ("d", "mode", "padding"),
    [(1, "bilinear", "zeros"), (2, "bilinear", "wrap"), (2, "bicubic", "zeros"), (3, "bilinear", "border")],
)
def test_values_and_image_gradients_are_the_exact_ones(
    d: int, mode: str, padding: str, fill: float, gradient: CoordinateGradient
) -> None:
    image, points = pictures(2, SIZES[d]), inner_points(2, 9, d, reach=1.5)
    points[0, 2] = math.nan
    how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "fill": fill}
    values, to_image, to_points = pulled(image, points, **how)
    got, got_image, got_points = pulled(image, points, coordinate_gradient=gradient, **how)
    torch.testing.assert_close(got, values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(got_image, to_image)
    assert torch.isfinite(got_points).all()
    assert not got_points[0, 2].any()
    assert not torch.allclose(got_points, to_points)


def test_values_are_the_exact_ones_under_a_prefilter_and_in_low_precision() -> None:
    image, points = pictures(1, (5, 6)), inner_points(1, 8, 2)
    for gradient in GRADIENTS:
        for how in ({"mode": "bspline3"}, {"edge": "extend"}, {"mode": "nearest"}):
            got, want = pulled(image, points, coordinate_gradient=gradient, **how), pulled(image, points, **how)
            assert torch.equal(got[0], want[0])
            assert torch.equal(got[1], want[1])
        low = image.bfloat16()
        p = points.float().requires_grad_()
        assert torch.equal(sample(low, p, coordinate_gradient=gradient), sample(low, points))


def test_autocast_does_not_touch_them() -> None:
    """Of a convolution it would make a bfloat16 image, with its own rounding."""
    image, points = pictures(1, (5, 6)).float(), inner_points(1, 8, 2).float()
    for gradient in GRADIENTS:
        want = pulled(image, points, coordinate_gradient=gradient)
        with torch.autocast("cpu", torch.bfloat16):
            got = pulled(image, points, coordinate_gradient=gradient)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_linearized_slope_is_that_of_the_best_plane(d: int) -> None:
    """Against a least-squares fit of numpy's kind, with the readings done one by one; a ramp gives its own slope."""
    image, points = pictures(1, SIZES[d], channels=1), points_off_kinks(1, 5, SIZES[d], beyond=0)
    gradient = LinearizedGradient(2 * d + 4, 1.7)
    p = points.clone().requires_grad_()
    how: dict[str, Any] = {"units": "pixel", "padding_mode": "border"}
    got = torch.autograd.grad(sample(image, p, coordinate_gradient=gradient, **how).sum(), p)[0]
    offsets = gradient.offsets(d)
    assert offsets.norm(dim=-1).max() < 1.7 + 1e-9
    for i in range(5):
        readings = sample(image, points[:, i] + offsets[None], **how)[0, 0]
        plane = torch.linalg.lstsq(torch.cat([offsets, torch.ones(len(offsets), 1).double()], 1), readings[:, None])
        torch.testing.assert_close(got[0, i], plane.solution[:d, 0])


def test_a_generator_draws_a_new_pattern_each_call_and_no_generator_never_does() -> None:
    image, points = pictures(1, (5, 6)), inner_points(1, 8, 2)
    drawn = [LinearizedGradient(generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    first, again, other = (pulled(image, points, coordinate_gradient=g)[2] for g in drawn)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, pulled(image, points, coordinate_gradient=drawn[0])[2])
    fixed = [pulled(image, points, coordinate_gradient="linearized")[2] for _ in range(2)]
    assert torch.equal(*fixed)


def test_the_coarse_slope_is_that_of_the_blurred_image() -> None:
    """The blur written down as a dense sum over a padded line."""
    image, points = pictures(1, (9,), channels=1), points_off_kinks(1, 7, (9,), beyond=1.5)
    sigma, reach = 1.2, 4
    distance = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-distance.square() / (2 * sigma**2))
    weights /= weights.sum()
    for padding, pad in (("zeros", "constant"), ("border", "replicate"), ("wrap", "circular"), ("mirror", "reflect")):
        wide = torch.nn.functional.pad(image, (2 * reach, 2 * reach), mode=pad)
        blurred = torch.stack([(wide[..., i : i + 2 * reach + 1] * weights).sum(-1) for i in range(9 + 2 * reach)], -1)
        p = points.clone().requires_grad_()
        how: dict[str, Any] = {"units": "pixel", "padding_mode": padding}
        coarse = sample(image, p, coordinate_gradient=CoarseToFineGradient(sigma), **how)
        got = torch.autograd.grad(coarse.sum(), p)[0]
        wanted = spatial_gradient(blurred, points + reach, units="pixel")[0]
        keep = (points > 0) & (points < 8) if padding != "zeros" else points == points
        torch.testing.assert_close(got[keep], wanted[keep])


@OTHER
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # what torch.func.jvp itself uses
def test_forward_mode_vmap_compile_and_warp(gradient: CoordinateGradient) -> None:
    image, points, push = pictures(2, (5, 6)), inner_points(2, 4, 2), inner_points(2, 4, 2, seed=3)
    how: dict[str, Any] = {"coordinate_gradient": gradient, "backend": "reference"}
    values, to_points = pulled(image, points, **how)[::2]
    _, forward = torch.func.jvp(lambda p: sample(image, p, **how), (points,), (push,))
    torch.testing.assert_close((forward * draw(*values.shape, seed=9)).sum(), (to_points * push).sum())

    def slope(u: Tensor, p: Tensor, weights: Tensor) -> Tensor:
        return torch.func.grad(lambda q: (sample(u[None], q[None], **how)[0] * weights).sum())(p)

    torch.testing.assert_close(torch.vmap(slope)(image, points, draw(*values.shape, seed=9)), to_points)
    theta = thetas(Affine(), 2)
    if isinstance(gradient, LinearizedGradient):
        gradient = LinearizedGradient(4)  # compiling takes a second per reading

    def run(u: Tensor, t: Tensor) -> Tensor:
        return warp(u, Affine()(t), coordinate_gradient=gradient)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for f in (run, compiled):
        t = theta.clone().requires_grad_()
        warped = f(image, t)
        torch.testing.assert_close(warped, warp(image, Affine()(theta)))
        slope_of_theta = torch.autograd.grad(warped.square().sum(), t)[0]
        grid = Affine()(t).grid((5, 6))
        wanted = torch.autograd.grad(sample(image, grid, coordinate_gradient=gradient).square().sum(), t)[0]
        torch.testing.assert_close(slope_of_theta, wanted)


def reaches(gradient: str | CoordinateGradient, distance: float) -> bool:
    """Whether gradient descent on a shift finds a blob of 1.5 pixels that many pixels away."""
    base = base_pixels((32, 32), (32, 32), align_corners=False, like=torch.zeros((), dtype=torch.float64))
    image = torch.exp(-(base - 15.5).square().sum(dim=-1) / (2 * 1.5**2))[None, None]
    away = torch.tensor([distance, 0.0], dtype=torch.float64)
    target = sample(image, (base + away)[None], units="pixel")
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        moved = sample(image, (base + shift)[None], units="pixel", coordinate_gradient=gradient)
        (moved - target).square().sum().backward()
        optimizer.step()
    return bool((shift.detach() - away).norm() < 0.5)


def test_they_widen_the_basin_of_attraction() -> None:
    assert reaches("exact", 3.0)
    assert not reaches("exact", 9.0)
    assert reaches(CoarseToFineGradient(4.0), 9.0)
    assert reaches(LinearizedGradient(16, 8.0), 9.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearizedGradient(samples=7), r"samples: wanted an even number, two a direction, got 7"),
        (lambda: LinearizedGradient(samples=True), r"samples: wanted an even number"),
        (lambda: LinearizedGradient(radius=0), r"radius: wanted a number of pixels over 0, got 0"),
        (lambda: LinearizedGradient(radius="far"), r"radius: wanted a number, got 'far'"),
        (lambda: CoarseToFineGradient(sigma=math.inf), r"sigma: wanted a number of pixels over 0, got inf"),
        (
            lambda: pulled(pictures(1, (4, 4)), inner_points(1, 2, 2), coordinate_gradient="rough"),
            r"coordinate_gradient: wanted one of 'exact', 'linearized', 'coarse-to-fine'",
        ),
        (
            lambda: pulled(pictures(1, (4, 4)), inner_points(1, 2, 2), coordinate_gradient=3),
            r"coordinate_gradient: wanted a name or a CoordinateGradient, got int",
        ),
        (
            lambda: pulled(pictures(1, (4, 4)), inner_points(1, 2, 2), coordinate_gradient=LinearizedGradient(2)),
            r"samples: wanted at least 4 in 2-D, got 2",
        ),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
