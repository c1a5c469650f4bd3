"""antialias=True under affine maps, where probes are moved maps: as the general way, which makes a list of points."""

from typing import Any

import pytest
import torch
from cases import draw, pictures
from torch import Tensor

from torch_stn import Affine, warp
from torch_stn.sampling import footprints
from torch_stn.sampling.antialias import FEW, footprint

SIZES = {2: (37, 48), 3: (17, 24, 19)}


def thetas(scales: list[float], d: int) -> Tensor:
    """Maps that shrink by about ``scales``, turn and shift a little: (N, d, d + 1)."""
    near = torch.eye(d, d + 1, dtype=torch.float64) + 0.3 * (draw(len(scales), d, d + 1, seed=2) - 0.5)
    return near * torch.tensor(scales, dtype=torch.float64)[:, None, None]


def both_ways(monkeypatch: pytest.MonkeyPatch, read: Any) -> tuple[Any, Any]:
    """What `read` gives by moved maps, and by points."""
    quick = read()
    with monkeypatch.context() as patch:
        patch.setattr(footprints, "groups_of", lambda foot: None)
        return quick, read()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "wrap", ("zeros", "border", "zeros")], ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.5, 7.0])
@pytest.mark.parametrize("d", [2, 3])
def test_moved_maps_read_what_points_read(
    monkeypatch: pytest.MonkeyPatch, d: int, scale: float, padding: Any, align_corners: bool
) -> None:
    """Values, mask and gradients: one image for all maps, one map for all images, one map each."""
    padding = padding if isinstance(padding, str) else padding[:d]
    out, scales = tuple(n // 3 for n in SIZES[d]), [scale, scale, 1.4 * scale]
    for n, m in ((3, 3), (1, 3), (3, 1)):
        image, theta = pictures(3, SIZES[d])[:n].requires_grad_(), thetas(scales, d)[:m].requires_grad_()

        def read(image: Tensor = image, theta: Tensor = theta) -> tuple[Tensor, ...]:
            how: dict[str, Any] = {"padding_mode": padding, "align_corners": align_corners, "fill": 0.3}
            values, mask = warp(image, Affine(d)(theta), out, antialias=True, return_mask=True, **how)
            pulls = torch.autograd.grad((values * draw(*values.shape, seed=5)).sum(), (image, theta))
            return values, mask, *pulls

        for got, wanted in zip(*both_ways(monkeypatch, read), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("backend", ["cpu", "aten", "reference"])
def test_every_backend_reads_the_moved_maps(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    image, map = pictures(2, (64, 64)), Affine()(thetas([2.0, 8.0], 2))
    try:
        quick, general = both_ways(monkeypatch, lambda: warp(image, map, (11, 9), antialias=True, backend=backend))
    except ValueError as error:
        pytest.skip(str(error))  # no kernels here
    torch.testing.assert_close(quick, general, rtol=0, atol=1e-12)


def test_a_batch_of_many_scales_is_read_scale_by_scale() -> None:
    """Each sample as if alone, bit by bit, also those that are not shrunk and are read plainly."""
    images, theta = pictures(5, (48, 40), dtype=torch.float32), thetas([0.1, 2.1, 6.0, 0.2, 6.0], 2).float()
    together, mask = warp(images, Affine()(theta), (12, 10), antialias=True, return_mask=True)
    for i in range(5):
        alone = warp(images[i : i + 1], Affine()(theta[i : i + 1]), (12, 10), antialias=True, return_mask=True)
        torch.testing.assert_close(together[i : i + 1], alone[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(mask[i : i + 1], alone[1], rtol=0, atol=1e-6)
    plain = warp(images, Affine()(theta), (12, 10))
    assert torch.equal(together[[0, 3]], plain[[0, 3]])


def test_few_numbers_by_numpy_are_what_torch_finds() -> None:
    """The same footprints, with and without somebody who asks for a derivative."""
    for d in (1, 2, 3):
        for dtype in (torch.float32, torch.float64):
            spanned = (8 * (draw(60, d, d, seed=d) - 0.5)).to(dtype)
            spanned[0], spanned[1, 0, 0] = 0.0, float("nan")
            assert spanned.numel() <= FEW
            quick = footprint(spanned, (64,) * d, 4)
            slow = footprint(spanned.clone().requires_grad_(), (64,) * d, 4)
            for got, wanted in zip(vars(quick).values(), vars(slow).values(), strict=True):
                assert got.dtype == wanted.dtype == dtype
                torch.testing.assert_close(got, wanted.detach())
