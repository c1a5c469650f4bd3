"""The coordinate convention against F.affine_grid, F.interpolate's pixel centres and plain arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from cases import SIZES, inner_points
from torch.autograd import gradcheck

from torch_stn.coordinates import (
    base_axis,
    base_grid,
    base_pixel_axis,
    base_pixels,
    half_extents,
    to_normalized,
    to_pixel,
)

CORNERS = pytest.mark.parametrize("align_corners", [False, True])
ALL_SIZES = [size for dims in SIZES for size, _ in SIZES[dims]]


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior has changed for unit-size grids")
@CORNERS
@pytest.mark.parametrize("size", ALL_SIZES)
def test_the_base_grid_is_that_of_affine_grid(size: tuple[int, ...], align_corners: bool) -> None:
    d = len(size)
    wanted = F.affine_grid(torch.eye(d, d + 1, dtype=torch.float64)[None], [1, 1, *size], align_corners)[0]
    got = base_grid(size, align_corners=align_corners, dtype=torch.float64)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-15)
    assert base_grid(size, align_corners=align_corners).dtype == torch.float32


def test_what_minus_one_and_one_mean() -> None:
    ends = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    assert to_pixel(ends, (4, 6), align_corners=False).tolist() == [[-0.5, -0.5], [5.5, 3.5]]
    assert to_pixel(ends, (4, 6), align_corners=True).tolist() == [[0.0, 0.0], [5.0, 3.0]]
    assert to_pixel(torch.tensor([[-1.0, 0.0, 1.0]]), (2, 4, 6)).tolist() == [[-0.5, 1.5, 1.5]]  # x along W, z along D
    assert half_extents((4, 6), False) == [3.0, 2.0]
    assert half_extents((2, 4, 6), True) == [2.5, 1.5, 0.5]


@CORNERS
@pytest.mark.parametrize("size", ALL_SIZES)
def test_pixels_and_back(size: tuple[int, ...], align_corners: bool) -> None:
    d = len(size)
    grid = base_grid(size, align_corners=align_corners, dtype=torch.float64)
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in size], indexing="ij")[::-1], dim=-1).double()
    torch.testing.assert_close(to_pixel(grid, size, align_corners=align_corners), index, rtol=0, atol=1e-13)
    torch.testing.assert_close(to_normalized(index, size, align_corners=align_corners), grid, rtol=0, atol=1e-13)
    if align_corners and 1 in size:
        return  # every normalised point is the one pixel: there is no way back
    points = inner_points(2, 7, d, reach=3.0)
    back = to_normalized(to_pixel(points, size, align_corners=align_corners), size, align_corners=align_corners)
    torch.testing.assert_close(back, points, rtol=0, atol=1e-13)


def test_all_of_one_pixel_is_that_pixel_with_aligned_corners() -> None:
    u = torch.tensor([[-3.0, 0.4], [0.0, 0.0], [1.0, -0.4]])
    assert to_pixel(u, (5, 1), align_corners=True)[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(to_normalized(u, (5, 1), align_corners=True)).all()


@CORNERS
def test_the_identity_reads_whole_pixels_exactly(align_corners: bool) -> None:
    for dtype in (torch.float32, torch.float64):
        for n in [*range(1, 70), 333, 3000, 4001, 4095, 4096, 4097, 10007]:
            got = base_pixel_axis(n, n, align_corners=align_corners, dtype=dtype)
            assert torch.equal(got, torch.arange(n, dtype=dtype)), n


@CORNERS
@pytest.mark.parametrize("n_out", [1, 2, 5, 8, 33])
@pytest.mark.parametrize("n_in", [1, 2, 5, 8, 33])
def test_base_pixels_are_the_base_axis_in_pixels(n_out: int, n_in: int, align_corners: bool) -> None:
    got = base_pixel_axis(n_out, n_in, align_corners=align_corners, dtype=torch.float64)
    u = base_axis(n_out, align_corners=align_corners, dtype=torch.float64)
    wanted = to_pixel(torch.stack([u, u], dim=-1), (n_in, n_in), align_corners=align_corners)[:, 0]
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13)


@CORNERS
def test_base_pixels_stand_x_first(align_corners: bool) -> None:
    like = torch.zeros((), dtype=torch.float64)
    got = base_pixels((2, 3, 4), (5, 6, 7), align_corners=align_corners, like=like)
    assert got.shape == (2, 3, 4, 3)
    assert got.dtype == torch.float64
    for axis, (n_out, n_in) in enumerate([(4, 7), (3, 6), (2, 5)]):
        wanted = base_pixel_axis(n_out, n_in, align_corners=align_corners, dtype=torch.float64)
        assert torch.equal(got[..., axis].movedim(2 - axis, -1)[0, 0], wanted)


@CORNERS
def test_gradients_pass_through_the_units(align_corners: bool) -> None:
    points = inner_points(1, 3, 2).requires_grad_()
    assert gradcheck(lambda p: to_pixel(p, (4, 7), align_corners=align_corners), points)
    assert gradcheck(lambda p: to_normalized(p, (4, 7), align_corners=align_corners), points)
