"""The kernels against people who did them before: scipy, OpenCV, Pillow, PyTorch, and integrals by hand."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import draw, inner_points, pictures, points_off_kinks
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_stn import Affine, Interpolation, sample, splat, warp
from torch_stn.sampling.interpolation import Area, BSpline, Cubic, Lanczos, Linear, name_of

SCIPY = {"mirror": "mirror", "symmetric": "reflect", "wrap": "grid-wrap"}


def close(ours: Tensor, wanted: Tensor | np.ndarray[Any, Any], atol: float) -> None:
    """Equal up to ``atol``, whatever the size of the numbers."""
    torch.testing.assert_close(ours, torch.as_tensor(wanted, dtype=ours.dtype), rtol=0, atol=atol)


# Not shorter: scipy starts its recursion for "reflect" with a sum that is exact only on long axes.
@pytest.mark.parametrize("in_size", [(50,), (45, 52), (28, 30, 29)])
@pytest.mark.parametrize("padding", SCIPY)
@pytest.mark.parametrize("degree", range(2, 6))
def test_b_splines_are_scipy_s(degree: int, padding: str, in_size: tuple[int, ...]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    image, points = pictures(1, in_size, channels=1), points_off_kinks(1, 40, in_size, beyond=2.0)
    wanted = ndimage.map_coordinates(
        image[0, 0].numpy(), points[0].flip(-1).T.numpy(), order=degree, mode=SCIPY[padding]
    )
    how: dict[str, Any] = {"mode": f"bspline{degree}", "padding_mode": padding, "units": "pixel"}
    close(sample(image, points, **how)[0, 0], wanted, 1e-8)
    close(sample(image.float(), points.float(), **how)[0, 0], wanted, 1e-5)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_b_splines_go_on_outside_as_their_padding_does(padding: str) -> None:
    """scipy pads by hand, so far out that the rest is rounding."""
    ndimage = pytest.importorskip("scipy.ndimage")
    image, points = pictures(1, (9, 12), channels=1), points_off_kinks(1, 60, (9, 12), beyond=3.0)
    room = 60
    wide = np.pad(image[0, 0].numpy(), room, mode="edge" if padding == "border" else "constant")
    at = points[0].flip(-1).T.numpy() + room
    for degree in (2, 3, 4, 5):
        wanted = ndimage.map_coordinates(wide, at, order=degree, mode="mirror")
        close(sample(image, points, mode=f"bspline{degree}", padding_mode=padding, units="pixel")[0, 0], wanted, 1e-9)
    shifted = sample(image - 0.3, points, mode="bspline3", units="pixel") + 0.3
    torch.testing.assert_close(sample(image, points, mode="bspline3", fill=0.3, units="pixel"), shifted)


@pytest.mark.parametrize("degree", range(2, 8))
@pytest.mark.parametrize("padding", ["mirror", "symmetric", "wrap"])
def test_b_splines_on_short_axes_against_a_dense_solve(degree: int, padding: str) -> None:
    """sum_k c_k beta(x - k), beta by scipy from its knots, c by solving for it."""
    interpolate = pytest.importorskip("scipy.interpolate")
    n, room = 9, 4
    image = pictures(1, (n,), channels=1)
    columns = np.pad(np.arange(n), room, mode={"mirror": "reflect", "symmetric": "symmetric", "wrap": "wrap"}[padding])

    element = interpolate.BSpline.basis_element(np.arange(degree + 2) - (degree + 1) / 2, extrapolate=False)

    def matrix(x: Tensor) -> Tensor:
        distances = x[:, None] - torch.arange(-room, n + room, dtype=torch.float64)
        weights = torch.from_numpy(np.nan_to_num(element(distances.numpy())))
        return torch.zeros(len(x), n, dtype=torch.float64).index_add(1, torch.from_numpy(columns), weights)

    coefficients = torch.linalg.solve(matrix(torch.arange(n, dtype=torch.float64)), image[0, 0])
    points = points_off_kinks(1, 40, (n,), beyond=0)
    got = sample(image, points, mode=f"bspline{degree}", padding_mode=padding, units="pixel")
    close(got[0, 0], matrix(points[0, :, 0]) @ coefficients, 1e-10)


@pytest.mark.parametrize("degree", range(2, 8))
def test_b_splines_pass_through_the_pixels(degree: int) -> None:
    for in_size in ((1, 5), (4, 130)):  # shorter than the prefilter's reach, and longer than its blocks
        image = pictures(2, in_size)
        identity = Affine()(torch.eye(2, 3)[None].double())
        for padding in ("zeros", "border", "reflection", "mirror", "wrap"):
            close(warp(image, identity, mode=BSpline(degree), padding_mode=padding), image, 1e-12)


def test_low_b_splines_are_nearest_and_linear() -> None:
    image, points = pictures(2, (5, 6)), points_off_kinks(2, 40, (5, 6))
    for degree, name in ((0, "nearest"), (1, "bilinear")):
        got, wanted = (sample(image, points, mode=mode, units="pixel") for mode in (f"bspline{degree}", name))
        torch.testing.assert_close(got, wanted)


def test_lanczos_is_opencv_s_and_pillow_s() -> None:
    """OpenCV has a = 4 and rounds points to 1/32 pixel; Pillow a = 3, enlarging to twice the size."""
    cv2 = pytest.importorskip("cv2")
    image = pictures(1, (20, 24), channels=1)
    points = torch.stack([6 + 10 * draw(200, seed=1), 6 + 8 * draw(200, seed=2)], dim=-1)
    points = (points * 32).round() / 32
    at = points.float().numpy()
    wanted = cv2.remap(image[0, 0].float().numpy(), at[None, :, 0], at[None, :, 1], cv2.INTER_LANCZOS4)[0]
    close(sample(image, points[None], mode=Lanczos(4), units="pixel")[0, 0], wanted, 2e-6)

    from PIL import Image

    picture = Image.fromarray(image[0, 0].float().numpy(), mode=None)
    doubled = np.array(picture.resize((48, 40), Image.Resampling.LANCZOS))
    ours = warp(image, Affine()(torch.eye(2, 3)[None].double()), (40, 48), mode="lanczos3")[0, 0]
    close(ours[6:-6, 6:-6], doubled[6:-6, 6:-6], 2e-6)


def test_cubic_is_pytorch_s_and_catmull_rom_opencv_s_rival() -> None:
    image = pictures(1, (7, 8), channels=1)
    identity = Affine()(torch.eye(2, 3)[None].double())
    ours = warp(image, identity, (14, 16), mode="cubic", padding_mode="border", backend="reference")
    close(ours, F.interpolate(image, scale_factor=2, mode="bicubic", align_corners=False), 1e-12)
    # Keys' a = -1/2 reproduces a parabola exactly, a = -3/4 does not.
    row = torch.arange(12, dtype=torch.float64) ** 2
    x = 3 + 5 * draw(1, 30, 1)
    close(sample(row[None, None], x, mode="catmull-rom", units="pixel")[0, 0], x[0, :, 0] ** 2, 1e-12)
    assert name_of(Cubic(-0.5)) == "catmull-rom"
    assert name_of(Cubic(-0.6)) == "custom"


@pytest.mark.parametrize("width", [0.5, 1.0, 1.7, 2.0, 3.0, 4.3])
def test_area_is_the_integral_over_a_box(width: float) -> None:
    """Of the picture made of unit squares: differences of its running sum."""
    row = draw(1, 1, 15, seed=3)
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), row[0, 0].cumsum(0)])

    def running(x: Tensor) -> Tensor:
        x = x + 0.5
        whole = x.floor().long()
        return edges[whole] + (x - whole) * row[0, 0][whole]

    x = 4 + 6 * draw(1, 50, 1)
    wanted = (running(x + width / 2) - running(x - width / 2))[0, :, 0] / width
    close(sample(row, x, mode=Area(width), units="pixel")[0, 0], wanted, 1e-12)
    plane = row[..., None, :] * row[..., :, None]
    pairs = torch.cat([x, x.flip(1)], dim=-1)
    second = (running(x.flip(1) + 0.6) - running(x.flip(1) - 0.6))[0, :, 0] / 1.2
    close(sample(plane, pairs, mode=Area((width, 1.2)), units="pixel")[0, 0], wanted * second, 1e-12)


def test_area_without_a_width_shrinks_as_pytorch_does() -> None:
    image = pictures(2, (12, 15))
    identity = Affine()(torch.eye(2, 3)[None].double())
    for size in ((4, 5), (12, 3), (6, 15)):
        close(warp(image, identity, size, mode="area"), F.interpolate(image, size, mode="area"), 1e-12)
    points = points_off_kinks(2, 30, (12, 15))
    torch.testing.assert_close(sample(image, points, mode="area", units="pixel"), sample(image, points, units="pixel"))


def test_area_slopes_are_right_hand_at_kinks() -> None:
    row = draw(1, 1, 9, seed=5)
    x = torch.tensor([[[3.0], [4.5]]], dtype=torch.float64, requires_grad=True)
    for width in (1.0, 2.0):
        (slope,) = torch.autograd.grad(sample(row, x, mode=Area(width), units="pixel").sum(), x)
        ahead = sample(row, x + 1e-6, mode=Area(width), units="pixel") - sample(row, x, mode=Area(width), units="pixel")
        close(slope[0, :, 0], ahead[0, 0].detach() / 1e-6, 1e-8)


@pytest.mark.parametrize("mode", ["lanczos3", "bspline2", "bspline5"])
def test_second_derivatives_close_to_whole_pixels(mode: str) -> None:
    """Where sinc is summed as a series, and where it is not; at the pixels themselves Lanczos' second has a jump."""
    image = pictures(1, (12,), channels=1)
    x = torch.tensor([[[4.001], [5.049], [5.951], [6.06]]], dtype=torch.float64).requires_grad_()

    def f(u: Tensor, p: Tensor) -> Tensor:
        values = sample(u, p, mode=mode, units="pixel")
        return values

    assert gradcheck(f, (image.requires_grad_(), x))
    assert gradgradcheck(f, (image.requires_grad_(), x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BSpline(8), r"^degree: wanted a whole number from 0 to 7, got 8"),
        (lambda: BSpline(True), r"^degree: wanted"),
        (lambda: Lanczos(0), r"^a: wanted a whole number >= 1, got 0"),
        (lambda: Area(0.0), r"^width: wanted numbers over 0 pixels, got 0.0"),
        (lambda: Area((1.0, float("inf"))), r"^width: wanted numbers over 0"),
        (lambda: Area([]), r"^width: wanted a number of pixels, or one for each axis, got \[\]"),
    ],
    ids=["degree", "bool", "a", "zero", "inf", "none"],
)
def test_bad_kernels_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class PerAxis(Interpolation):
    """A kernel for x, another for y."""

    def __init__(self, x: Interpolation, y: Interpolation) -> None:
        super().__init__()
        self.kernels = torch.nn.ModuleList([x, y])
        self.support = max(x.support, y.support)

    def along(self, axis: int) -> Interpolation:
        kernel = self.kernels[axis]
        assert isinstance(kernel, Interpolation)
        return kernel


@pytest.mark.parametrize("padding", ["zeros", "border", "mirror", "wrap"])
def test_each_axis_has_its_own_prefilter(padding: str) -> None:
    """A spline along y alone is a 1-D spline of each column, at whole x."""
    image, y = pictures(1, (7, 5), channels=1), torch.tensor([0.0, 1.3, 2.5, 6.2], dtype=torch.float64)
    points = torch.stack(torch.meshgrid(torch.arange(5.0, dtype=torch.float64), y, indexing="ij"), dim=-1)[None]
    how: dict[str, Any] = {"mode": PerAxis(Linear(), BSpline(3)), "padding_mode": padding, "units": "pixel"}
    columns = image[0, 0].T[:, None]
    lines = sample(columns, y[None, :, None], mode="bspline3", padding_mode=padding, units="pixel")
    torch.testing.assert_close(sample(image, points, **how)[0, 0], lines[:, 0], rtol=0, atol=1e-12)
    weights = pictures(1, (5, 4), channels=1)
    given = splat(weights, points, (7, 5), **how)
    torch.testing.assert_close((given * image).sum(), (sample(image, points, **how) * weights).sum())


def test_a_response_may_end_before_it_is_negligible() -> None:
    """A filter of two weights each side, and the same one with zeros behind."""
    short, long = BSpline(1), BSpline(1)
    short.response, long.response = [1.25, -0.125], [1.25, -0.125, 0.0, 0.0]
    image, points = pictures(1, (6, 7)), inner_points(1, 9, 2)
    for padding in ("zeros", "mirror"):
        got, wanted = (sample(image, points, mode=mode, padding_mode=padding) for mode in (short, long))
        assert torch.equal(got, wanted)
