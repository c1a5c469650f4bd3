"""sample(): exact answers, F.grid_sample on the kinks, and gradients of all kinds."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import (
    EXACT,
    MODES,
    ON_CPU,
    PADDINGS,
    TOLERANCE,
    ExactWarp,
    draw,
    inner_points,
    kink_points,
    pictures,
    points_off_kinks,
    ramp,
)
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_stn import Affine, sample, warp
from torch_stn.coordinates import to_normalized

CORNERS = pytest.mark.parametrize("align_corners", [False, True])
# On these axes pixel and normalised coordinates are exact in both directions, so that a point on a kink stays on it.
KINK_SIZES = {(2, False): (4, 8), (2, True): (5, 9), (3, False): (2, 4, 2), (3, True): (3, 3, 5)}


def torch_reads(image: Tensor, pixels: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """F.grid_sample at a list of pixel points."""
    d = pixels.shape[-1]
    grid = to_normalized(pixels, tuple(image.shape[2:]), align_corners=align_corners)
    grid = grid.reshape(len(grid), *[1] * (d - 1), -1, d)
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=align_corners).flatten(2)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "case", [(d, name) for d in EXACT for name in EXACT[d]], ids=lambda case: f"{case[1]}, {case[0]}-D"
)
def test_exact_answers(case: tuple[int, str], dtype: torch.dtype, backend: str) -> None:
    d, name = case
    exact: ExactWarp = EXACT[d][name]
    image = pictures(2, (8, 8) if d == 2 else (4, 4, 4), dtype=dtype)
    map = Affine(d)(torch.tensor([exact.theta], dtype=torch.float64))
    for mode in ("nearest", "bilinear") if d == 3 and backend == "aten" else MODES:
        for got in (
            warp(image, map, mode=mode, backend=backend),
            sample(image, map.grid(image.shape[2:]), mode=mode, backend=backend),
        ):
            torch.testing.assert_close(got, exact.expected(image), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("in_size", [(6, 9), (4, 5, 3)])
def test_bilinear_reads_a_ramp_exactly(in_size: tuple[int, ...], backend: str, padding: str) -> None:
    room = torch.tensor([n - 1.0 for n in reversed(in_size)], dtype=torch.float64)
    points = draw(2, 40, len(in_size)) * room
    got = sample(ramp(in_size), points, units="pixel", padding_mode=padding, backend=backend)
    torch.testing.assert_close(got, points.mT.contiguous(), rtol=0, atol=1e-12)


@CORNERS
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [2, 3])
def test_on_the_kinks_values_and_slopes_are_those_of_grid_sample(
    dims: int, mode: str, padding: str, align_corners: bool
) -> None:
    """Whole pixels, half pixels, the first and last centres, the outer edges, and one pixel beyond."""
    if dims == 3 and mode == "bicubic":
        pytest.skip("F.grid_sample has no tricubic")
    in_size = KINK_SIZES[dims, align_corners]
    image, points = pictures(1, in_size), kink_points(in_size)
    results = []
    for reader in ("torch", *ON_CPU, None):
        u, p = image.clone().requires_grad_(), points.clone().requires_grad_()
        if reader == "torch":
            values = torch_reads(u, p, mode, padding, align_corners)
        else:
            how: dict[str, Any] = {
                "mode": mode,
                "padding_mode": padding,
                "align_corners": align_corners,
                "backend": reader,
            }
            values = sample(u, p, units="pixel", **how)
        values.backward(draw(*values.shape, seed=3))
        slope = torch.zeros_like(p) if p.grad is None else p.grad
        results.append((values.detach(), u.grad, slope))
    for got in results[1:]:
        for ours, theirs in zip(got, results[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_of_the_reference(dims: int, mode: str, padding: str) -> None:
    in_size = (3, 4) if dims == 2 else (2, 3, 2)
    image = pictures(1, in_size, channels=1).requires_grad_()
    points = points_off_kinks(1, 3, in_size).requires_grad_()
    for align_corners in (False, True) if padding == "reflection" else (False,):  # in pixels nothing else depends on it

        def f(u: Tensor, p: Tensor, corners: bool = align_corners) -> Tensor:
            how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "align_corners": corners, "fill": 0.3}
            return sample(u, p, units="pixel", backend="reference", **how)

        assert gradcheck(f, (image, points), fast_mode=dims == 3 and mode == "bicubic")
        assert gradgradcheck(f, (image, points), fast_mode=True)


def test_second_derivatives_without_naming_a_backend() -> None:
    image = pictures(1, (3, 4), channels=1).requires_grad_()
    points = to_normalized(points_off_kinks(1, 3, (3, 4)), (3, 4)).requires_grad_()
    assert gradgradcheck(lambda u, p: sample(u, p), (image, points))
    assert gradgradcheck(lambda u, p: sample(u, p, mode="bicubic", padding_mode="reflection"), (image, points))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # what torch.func.jvp itself uses
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_forward_derivatives_are_the_transposed_backward_ones(mode: str, padding: str) -> None:
    image, points = pictures(2, (4, 5)), inner_points(2, 6, 2, reach=1.3)
    du, dp, dv = pictures(2, (4, 5), seed=1), inner_points(2, 6, 2, seed=2), draw(2, 2, 6, seed=3)

    def f(u: Tensor, p: Tensor) -> Tensor:
        return sample(u, p, mode=mode, padding_mode=padding, backend="reference")

    values, forward, *_ = torch.func.jvp(f, (image, points), (du, dp))
    torch.testing.assert_close(values, f(image, points))
    _, pull, *_ = torch.func.vjp(f, image, points)
    pulled_u, pulled_p = pull(dv)
    torch.testing.assert_close((forward * dv).sum(), (pulled_u * du).sum() + (pulled_p * dp).sum())


@pytest.mark.parametrize("backend", [*ON_CPU, None])
def test_vmap_is_the_batch(backend: str | None) -> None:
    image, points = pictures(3, (4, 5)), inner_points(3, 6, 2, reach=1.3)

    def one(u: Tensor, p: Tensor) -> Tensor:
        return sample(u[None], p[None], backend=backend)[0]

    torch.testing.assert_close(torch.vmap(one)(image, points), sample(image, points, backend=backend))
    torch.testing.assert_close(
        torch.vmap(one, in_dims=(None, 0))(image[0], points), sample(image[:1], points, backend=backend)
    )
    torch.testing.assert_close(
        torch.vmap(one, in_dims=(0, None))(image, points[0]), sample(image, points[:1], backend=backend)
    )
    each = torch.vmap(torch.func.grad(lambda p, u: one(u, p).sum()))(points, image)
    whole = torch.func.grad(lambda p: sample(image, p, backend=backend).sum())(points)
    torch.testing.assert_close(each, whole)


@pytest.mark.parametrize("fill", [-3.5, 1e30, float("inf"), float("nan")])
def test_a_point_well_inside_does_not_feel_the_fill(fill: float) -> None:
    image, points = pictures(1, (6, 6)), 1.5 + 2 * draw(1, 10, 2)
    for mode in MODES:
        wanted = sample(image, points, mode=mode, units="pixel")
        torch.testing.assert_close(sample(image, points, mode=mode, units="pixel", fill=fill), wanted)
        border = sample(image, points + 9, mode=mode, units="pixel", fill=fill, padding_mode="border")
        assert torch.isfinite(border).all(), "there is no outside to fill"
    outside = sample(image, points + 9, units="pixel", fill=fill)
    torch.testing.assert_close(outside, torch.full_like(outside, fill), equal_nan=True)


def test_a_fill_of_nan_marks_every_point_that_feels_the_outside() -> None:
    image, points = pictures(1, (4, 5)).requires_grad_(), points_off_kinks(1, 60, (4, 5)).requires_grad_()
    for mode in MODES:
        marked, mask = sample(image, points, mode=mode, units="pixel", fill=float("nan"), return_mask=True)
        lost = torch.isnan(marked[0, 0])
        assert lost.any()
        assert (
            torch.equal(lost, mask[0, 0] < 1 - 1e-9) or mode == "bicubic"
        )  # its negative weights may sum to 1 outside
        pulls = torch.autograd.grad(marked[..., ~lost].sum(), (image, points), materialize_grads=True)
        assert all(torch.isfinite(pull).all() for pull in pulls)
        assert not pulls[1][:, lost].any()
