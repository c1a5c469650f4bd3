"""splat() and count(): the exact adjoint of sample(), its derivatives, and what may come in."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from cases import draw, inner_points, pictures, points_off_kinks
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_stn import Interpolation, count, sample, splat
from torch_stn.coordinates import base_grid, to_normalized
from torch_stn.sampling.interpolation import INTERPOLATIONS
from torch_stn.sampling.padding import PADDINGS

SIZES = {1: (7,), 2: (5, 4), 3: (3, 4, 2)}
MANY_TAPS = ("bspline4", "bspline5", "bspline6", "bspline7", "lanczos3")  # a volume of 125 to 512 taps a point
FEW_TAPS = [name for name in INTERPOLATIONS if name not in MANY_TAPS]
EVERYWHERE = [(d, mode) for d, modes in ((1, INTERPOLATIONS), (2, INTERPOLATIONS), (3, FEW_TAPS)) for mode in modes]


def adjoint_gap(image: Tensor, points: Tensor, values: Tensor, **how: Any) -> float:
    """|<sample(U), V> - <U, splat(V)>|; the splat of a shared image's readings is summed over the batch."""
    read = sample(image, points, **how)
    given = splat(values, points, image.shape[2:], **how)
    return ((read * values).sum() - (image * given).sum()).abs().item()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("d", "mode"), EVERYWHERE)
def test_it_is_the_adjoint_of_sample(d: int, mode: str, padding: str) -> None:
    """Far outside, on kinks and on points that are nowhere, too."""
    size = SIZES[d]
    image, points = pictures(2, size) - 0.5, inner_points(2, 8, d, reach=2.0)
    points[0, 0], points[1, 2, 0], points[0, 3] = math.nan, math.inf, 0.5
    values = draw(2, 2, 8, seed=3) - 0.5
    for align_corners in (False, True):
        how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
        assert adjoint_gap(image, points, values, **how) < 1e-12


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MANY_TAPS)
def test_it_is_the_adjoint_of_sample_in_a_small_volume(mode: str, padding: str) -> None:
    image, points = pictures(1, (3, 3, 3), channels=1) - 0.5, inner_points(1, 2, 3, reach=2.0)
    points[0, 0] = 0.5
    values = draw(1, 1, 2, seed=3) - 0.5
    rules: list[Any] = [padding]
    if padding in ("zeros", "border"):
        # There a prefilter adds up to 128 pixels on either side: along one axis at a time, or the volume is a big one.
        rules = [[padding if axis == which else "mirror" for axis in range(3)] for which in range(3)]
    for rule in rules:
        for align_corners in (False, True):
            how: dict[str, Any] = {"mode": mode, "padding_mode": rule, "align_corners": align_corners}
            assert adjoint_gap(image, points, values, **how) < 1e-12


@pytest.mark.parametrize("backend", ["aten", "reference"])
@pytest.mark.parametrize("units", ["normalized", "pixel", "displacement"])
def test_units_batches_edges_and_backends(units: str, backend: str) -> None:
    image, points = pictures(3, (5, 4)) - 0.5, 4 * inner_points(3, 6, 2, reach=1.0).reshape(3, 2, 3, 2)
    values = draw(3, 2, 2, 3, seed=3) - 0.5
    how: dict[str, Any] = {"units": units, "backend": backend}
    for n, m in ((3, 3), (1, 3), (3, 1)):
        assert adjoint_gap(image[:n], points[:m], values, **how) < 1e-12
    for padding in (("border", "zeros"), "zeros") if backend == "reference" else ("zeros",):
        assert adjoint_gap(image, points, values, edge="extend", padding_mode=padding, **how) < 1e-12
    torch.testing.assert_close(
        splat(values[:1], points, (5, 4), **how), splat(values[:1].expand(3, -1, -1, -1), points, (5, 4), **how)
    )


class Tent(Interpolation):
    """A kernel of the user, with a parameter."""

    support = 3

    def __init__(self) -> None:
        super().__init__()
        self.width = torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def kernel(self, distance: Tensor) -> Tensor:
        return torch.exp(-(distance / self.width).square())


def test_a_kernel_of_ones_own() -> None:
    kernel = Tent()
    values, points = draw(1, 2, 4), points_off_kinks(1, 4, (4, 5))
    assert adjoint_gap(pictures(1, (4, 5)), points, values, mode=kernel, units="pixel") < 1e-12

    def f(v: Tensor, p: Tensor, _: Tensor) -> Tensor:
        return splat(v, p, (4, 5), mode=kernel, units="pixel")

    assert gradcheck(f, (values.requires_grad_(), points.requires_grad_(), kernel.width), fast_mode=True)


def test_by_hand() -> None:
    """A loop over the points and the pixels, with the tent written down."""
    points, values = points_off_kinks(2, 9, (4, 5)), draw(2, 3, 9)
    wanted = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    for n, i, y, x in product(range(2), range(9), range(4), range(5)):
        px, py = points[n, i].tolist()
        wanted[n, :, y, x] += values[n, :, i] * max(0, 1 - abs(px - x)) * max(0, 1 - abs(py - y))
    for backend in (None, "reference"):
        got = splat(values, points, (4, 5), units="pixel", backend=backend)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13)
    total = count(points, (4, 5), units="pixel")
    torch.testing.assert_close(total, splat(torch.ones_like(values[:, :1]), points, (4, 5), units="pixel"))
    inside = sample(torch.ones(1, 1, 4, 5, dtype=torch.float64), points, units="pixel")
    torch.testing.assert_close(total.sum(), inside.sum())
    averaged = splat(values, points, (4, 5), units="pixel", normalize=True)
    torch.testing.assert_close(averaged, torch.where(total > 1e-6, wanted / total, 0.0), equal_nan=False)


def test_identity_counts_every_pixel_once_and_a_shift_moves_the_picture_forward() -> None:
    image = pictures(1, (4, 6))
    grid = base_grid((4, 6), dtype=torch.float64)[None]
    torch.testing.assert_close(count(grid, (4, 6)), torch.ones(1, 1, 4, 6, dtype=torch.float64))
    right = splat(image, torch.ones_like(grid) * torch.tensor([1.0, 0.0]), (4, 6), units="displacement")
    torch.testing.assert_close(right[..., 1:], image[..., :-1])
    assert not right[..., 0].any()
    half = splat(image, grid * 0.5, (4, 6), normalize=True)  # drawn together: the averages stay in range
    assert half.max() <= image.max()
    assert not half[..., 0].any()


DERIVED = [(1, "bilinear", "wrap"), (2, "bilinear", "zeros"), (2, "bicubic", "reflection"), (3, "bilinear", "border")]


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(("d", "mode", "padding"), [*DERIVED, (2, "bspline3", "zeros"), (2, "nearest", "border")])
def test_derivatives_of_both_orders(d: int, mode: str, padding: str, backend: str | None) -> None:
    size = SIZES[d]
    points = to_normalized(points_off_kinks(1, 3, size), size).requires_grad_()
    values = draw(1, 2, 3).requires_grad_()

    def f(v: Tensor, p: Tensor) -> Tensor:
        return splat(v, p, size, mode=mode, padding_mode=padding, backend=backend)

    assert gradcheck(f, (values, points), fast_mode=True)
    assert gradgradcheck(f, (values, points), fast_mode=True)
    assert gradcheck(
        lambda p: splat(values.detach(), p, size, mode="bilinear", normalize=True), (points,), fast_mode=True
    )


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # what torch.func.jvp itself uses
@pytest.mark.parametrize(("d", "mode", "padding"), [*DERIVED, (2, "bspline2", "mirror")])
def test_forward_derivatives_are_the_transposed_backward_ones(d: int, mode: str, padding: str) -> None:
    size = SIZES[d]
    values, points = draw(2, 2, 6), inner_points(2, 6, d, reach=1.2)
    dv, dp, du = draw(2, 2, 6, seed=1), inner_points(2, 6, d, seed=2), pictures(2, size, seed=3)

    def f(v: Tensor, p: Tensor) -> Tensor:
        return splat(v, p, size, mode=mode, padding_mode=padding)

    _, forward = torch.func.jvp(f, (values, points), (dv, dp))
    pulled_v, pulled_p = torch.func.vjp(f, values, points)[1](du)
    torch.testing.assert_close((forward * du).sum(), (pulled_v * dv).sum() + (pulled_p * dp).sum())


@pytest.mark.parametrize("mode", ["bilinear", "bspline3"])
@pytest.mark.parametrize("backend", [None, "reference"])
def test_vmap_is_the_batch(mode: str, backend: str | None) -> None:
    values, points = draw(3, 2, 6), inner_points(3, 6, 2, reach=1.3)

    def one(v: Tensor, p: Tensor) -> Tensor:
        return splat(v[None], p[None], (5, 4), mode=mode, backend=backend)[0]

    whole = splat(values, points, (5, 4), mode=mode, backend=backend)
    if mode == "bilinear" or backend is None:
        torch.testing.assert_close(torch.vmap(one)(values, points), whole)
        each = torch.vmap(torch.func.grad(lambda p, v: one(v, p).square().sum()))(points, values)
        wanted = torch.func.grad(lambda p: splat(values, p, (5, 4), mode=mode, backend=backend).square().sum())(points)
        torch.testing.assert_close(each, wanted)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_it_compiles_to_one_graph(backend: str | None) -> None:
    def run(v: Tensor, p: Tensor) -> Tensor:
        return splat(v, p, (5, 4), normalize=True, backend=backend)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    values, points = draw(2, 2, 6).requires_grad_(), inner_points(2, 6, 2).requires_grad_()
    got, wanted = compiled(values, points), run(values, points)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), (values, points)),
        torch.autograd.grad(wanted.square().sum(), (values, points)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_same_bits_and_dtypes() -> None:
    values, points = draw(2, 3, 5000, dtype=torch.float32), inner_points(2, 5000, 2).float()
    for backend in (None, "reference"):
        first = splat(values, points, (8, 8), backend=backend)
        assert torch.equal(first, splat(values, points, (8, 8), backend=backend))
        for dtype in (torch.float16, torch.bfloat16):
            low = splat(values.to(dtype), points, (8, 8), backend=backend)
            assert low.dtype == dtype  # summed in float32: hundreds of values a pixel, rounded once
            torch.testing.assert_close(low.float(), first, rtol=0.01, atol=0.5)
    assert count(points.double(), (8, 8)).dtype == torch.float64


def test_empty_and_lost_points() -> None:
    values, points = draw(2, 3, 0).requires_grad_(), inner_points(2, 0, 2).requires_grad_()
    nothing = splat(values, points, (4, 5))
    assert nothing.shape == (2, 3, 4, 5)
    assert not nothing.any()
    nothing.sum().backward()
    assert splat(draw(0, 3, 4), inner_points(0, 4, 2), (4, 5), mode="bspline3").shape == (0, 3, 4, 5)
    assert splat(draw(1, 3), inner_points(1, 1, 2)[:, 0], (4, 5)).shape == (1, 3, 4, 5)
    lost, values = torch.full((1, 2, 2), math.nan, dtype=torch.float64), torch.tensor([[[math.inf, 1.0]]]).double()
    for padding in PADDINGS:
        lost.requires_grad_()
        image = splat(values, lost, (3, 3), padding_mode=padding)
        assert not image.any()
        assert not torch.autograd.grad(image.sum(), lost)[0].any()


@pytest.mark.parametrize(
    ("values", "points", "size", "how", "message"),
    [
        ([1], draw(1, 2, 2), (3, 3), {}, r"values: wanted a torch.Tensor, got list"),
        (draw(1, 1, 2), draw(1, 2, 4), (3, 3), {}, r"points: wanted \(N, ..., d\) with last axis"),
        (draw(1, 1, 3), draw(1, 2, 2), (3, 3), {}, r"values: wanted \(N, C, 2\), one for each point, got \(1, 1, 3\)"),
        (draw(1, 1, 2).long(), draw(1, 2, 2), (3, 3), {}, r"values: wanted a floating-point tensor"),
        (draw(2, 1, 2), draw(3, 2, 2), (3, 3), {}, r"points: wanted the batch size of values, 2, or 1, got 3"),
        (draw(1, 1, 2), draw(1, 2, 2), (3, 3, 3), {}, r"size: wanted \(h, w\)"),
        (draw(1, 1, 2), draw(1, 2, 2), (0, 3), {}, r"size: every entry"),
        (draw(1, 1, 2), draw(1, 2, 2), (3, 3), {"mode": "cubical"}, r"mode: wanted one of"),
        (draw(1, 1, 2), draw(1, 2, 2), (3, 3), {"units": "metres"}, r"units: wanted one of"),
        (draw(1, 1, 2), draw(1, 2, 2), (3, 3), {"units": "displacement"}, r"points: displacements are"),
        (draw(1, 1, 2), draw(1, 2, 2), (3, 3), {"backend": "aten", "mode": "lanczos3"}, r"backend: 'aten' cannot"),
    ],
)
def test_bad_input(values: Any, points: Tensor, size: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as error:
        splat(values, points, size, **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("units", ["normalized", "pixel"])
@pytest.mark.parametrize("in_size", [(7, 11), (37, 53)])
def test_nearest_gives_to_the_pixel_that_is_read_at_halves_too(in_size: tuple[int, ...], units: str) -> None:
    """In float32, where a backend's own way to a pixel coordinate decides on which side of a half it falls."""
    axes = [torch.arange(n) + 0.5 for n in in_size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)[None]
    if units == "normalized":
        points = to_normalized(points, in_size)
    image = torch.arange(1.0, 1 + math.prod(in_size)).reshape(1, 1, *in_size)
    how: dict[str, Any] = {"mode": "nearest", "units": units}
    read = sample(image, points, **how)
    for i in range(0, points.shape[1], 3):  # the pixel that a point reads is the one that it gives to
        one = points[:, i : i + 1]
        given = splat(torch.ones(1, 1, 1, in_size[1]), one, in_size, **how)
        counted = torch.bincount(read[0, 0, i].long(), minlength=1 + math.prod(in_size))[1:]
        assert torch.equal(given.flatten().long(), counted)
    if units == "pixel":
        by_hand = [[2 * round((x + 0.5) / 2) for x in range(n)] for n in in_size]
        inside = [[p if p < n else None for p in row] for row, n in zip(by_hand, in_size, strict=True)]
        wanted = [[0.0 if None in (r, c) else float(image[0, 0, r, c]) for c in inside[1]] for r in inside[0]]
        assert read[0, 0].tolist() == wanted
