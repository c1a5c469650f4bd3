"""What every sampling kernel must do, whoever wrote it. A test class inherits this and gives the fixture `kernel`."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from cases import PADDINGS, draw, inner_points, pictures, points_off_kinks, thetas
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_stn import Affine, Interpolation, sample, warp


def padded(image: Tensor, room: int, padding: str, align_corners: bool) -> Tensor:
    """The image with `room` more pixels on every side, as drawn in torch_stn.sampling.padding."""
    kind = {"zeros": "constant", "border": "edge", "reflection": "reflect" if align_corners else "symmetric"}[padding]
    widths = [(0, 0), (0, 0), *[(room, room)] * (image.dim() - 2)]
    return torch.from_numpy(np.pad(image.numpy(), widths, mode=kind))  # type: ignore[call-overload]


def read(image: Tensor, points: Tensor, **how: Any) -> Tensor:
    """sample() at pixel points, without a mask."""
    values = sample(image, points, units="pixel", **how)
    return values


ROW_PLANE_VOLUME = pytest.mark.parametrize("in_size", [(6,), (4, 5), (3, 4, 3)])
MOST_TAPS = 64  # of a kernel in a volume; more of them show nothing that the plane does not


def skip_large(kernel: Interpolation, in_size: tuple[int, ...]) -> None:
    """A kernel of 8 taps has 512 in a volume, each a step of the reference."""
    if kernel.support ** len(in_size) > MOST_TAPS:
        pytest.skip(f"{kernel.support} taps along each of {len(in_size)} axes")


def reach(kernel: Interpolation) -> int:
    """Pixels after which what lies outside is not felt any more."""
    return kernel.support + (80 if kernel.response is not None else 4)


def along_each_axis(kernel: Interpolation, points: Tensor, sizes: list[int]) -> list[Tensor]:
    """The weights of every point along x, y[, z], written into rows of all pixels: (M, n) each."""
    rows = []
    for axis, pixels in enumerate(sizes):
        x = points[0, :, axis]
        centre = x.floor() if kernel.support % 2 == 0 else x.round()
        weights = kernel.weights(x - centre)
        row = torch.zeros(len(x), pixels + 48, dtype=torch.float64)  # room for taps outside
        taps = (centre + kernel.first_tap()).long()[:, None] + torch.arange(kernel.support)
        rows.append(row.scatter(1, taps + 24, weights.detach())[:, 24:-24])
    return rows


class InterpolationContract:
    """The shared tests; `kernel` is a fresh Interpolation in float64."""

    @ROW_PLANE_VOLUME
    def test_it_is_the_sum_of_its_weights(self, kernel: Interpolation, in_size: tuple[int, ...]) -> None:
        """V = sum U_nm k(x - m) k(y - n), with the weights along each axis written into a row of all pixels."""
        skip_large(kernel, in_size)
        image, points = pictures(1, in_size), points_off_kinks(1, 30, in_size, beyond=1.5)
        kernel.response = None  # the kernel itself; what its prefilter does is tested where it is made
        wanted = image[0][:, None].expand(-1, 30, *in_size)
        for row in along_each_axis(kernel, points, list(reversed(in_size))):  # x is the last axis, and leaves first
            wanted = torch.einsum("cm...x,mx->cm...", wanted, row)
        torch.testing.assert_close(read(image, points, mode=kernel)[0].detach(), wanted)

    @ROW_PLANE_VOLUME
    @pytest.mark.parametrize("align_corners", [False, True])
    @pytest.mark.parametrize("padding", PADDINGS)
    def test_padding_is_reading_from_a_padded_image(
        self, kernel: Interpolation, in_size: tuple[int, ...], padding: str, align_corners: bool
    ) -> None:
        skip_large(kernel, in_size)
        if len(in_size) == 3 and kernel.response is not None:
            pytest.skip("a volume padded by what a prefilter reaches has millions of pixels")
        image, points = pictures(1, in_size), points_off_kinks(1, 40, in_size, beyond=2.5)
        room = reach(kernel)
        wanted = read(padded(image, room, padding, align_corners), points + room, mode=kernel)
        for backend in (None, "reference"):
            how: dict[str, Any] = {"mode": kernel, "padding_mode": padding, "align_corners": align_corners}
            torch.testing.assert_close(read(image, points, backend=backend, **how), wanted)

    @ROW_PLANE_VOLUME
    def test_fill_and_mask(self, kernel: Interpolation, in_size: tuple[int, ...]) -> None:
        skip_large(kernel, in_size)
        image, points = pictures(1, in_size), points_off_kinks(1, 40, in_size, beyond=2.5)
        values, mask = sample(image, points, mode=kernel, units="pixel", fill=0.5, return_mask=True)
        inside, everything = (
            read(torch.ones_like(image[:, :1]), points, mode=kernel, padding_mode=padding)
            for padding in ("zeros", "border")
        )
        torch.testing.assert_close(values, read(image, points, mode=kernel) + 0.5 * (everything - inside))
        if kernel.response is None:
            torch.testing.assert_close(mask, inside.clamp(0, 1))
        for padding in ("border", "reflection"):
            padded_values, same = sample(
                image, points, mode=kernel, units="pixel", fill=0.5, return_mask=True, padding_mode=padding
            )
            torch.testing.assert_close(same, mask)
            torch.testing.assert_close(padded_values, read(image, points, mode=kernel, padding_mode=padding))
        far = sample(image, torch.full_like(points, 1e5), mode=kernel, units="pixel", fill=0.5, return_mask=True)
        assert not far[1].any()

    @pytest.mark.parametrize(
        ("in_size", "padding"), [*[((4, 5), padding) for padding in PADDINGS], ((3, 4, 3), "zeros")]
    )
    def test_gradients(self, kernel: Interpolation, in_size: tuple[int, ...], padding: str) -> None:
        skip_large(kernel, in_size)
        if len(in_size) == 3 and kernel.response is not None:
            padding = "mirror"  # adds no pixels to the volume
        image = pictures(1, in_size, channels=1).requires_grad_()
        points = points_off_kinks(1, 3, in_size).requires_grad_()

        def f(u: Tensor, p: Tensor, *_: Tensor) -> Tensor:
            return read(u, p, mode=kernel, padding_mode=padding)

        inputs = (image, points, *kernel.parameters())
        assert gradcheck(f, inputs, fast_mode=True)
        assert gradgradcheck(f, inputs, fast_mode=True)

    @ROW_PLANE_VOLUME
    def test_it_serves_warp_batches_and_other_dtypes(self, kernel: Interpolation, in_size: tuple[int, ...]) -> None:
        skip_large(kernel, in_size)
        d = len(in_size)
        if d == 1:
            pytest.skip("no matrix family is 1-D")
        map = Affine(d)(thetas(Affine(d), 3))
        image = pictures(1, in_size)
        values, mask = warp(image, map, mode=kernel, return_mask=True)
        assert values.shape == (3, 2, *in_size)
        assert mask.shape == (3, 1, *in_size)
        torch.testing.assert_close(values, sample(image, map.grid(in_size), mode=kernel))
        for dtype in (torch.float32, torch.bfloat16):
            single = warp(image.to(dtype), map, mode=kernel.float())
            assert single.dtype == dtype
            torch.testing.assert_close(single.double(), values, rtol=0, atol=0.03 if dtype == torch.bfloat16 else 1e-4)

    def test_copies(self, kernel: Interpolation) -> None:
        image, points = pictures(1, (4, 5)), inner_points(1, 10, 2)
        wanted = read(image, points, mode=kernel)
        for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
            assert torch.equal(read(image, points, mode=other), wanted)

    def test_its_parameters_learn(self, kernel: Interpolation) -> None:
        """From blurred values back to the Phi that made them, if it has any."""
        parameters = list(kernel.parameters())
        if not parameters:
            return
        image, points = pictures(4, (4, 5)), 3 * draw(4, 40, 2)
        target = read(image, points, mode=kernel).detach()
        truth = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(0.8).add_(0.05)
        start = sum((p - t).abs().sum().item() for p, t in zip(parameters, truth, strict=True))
        optimizer = torch.optim.Adam(parameters, lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            (read(image, points, mode=kernel) - target).square().mean().backward()
            optimizer.step()
        end = sum((p - t).abs().sum().item() for p, t in zip(parameters, truth, strict=True))
        assert end < 0.2 * start, (start, end)
