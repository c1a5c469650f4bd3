"""warp(): against F.affine_grid + F.grid_sample, the exactness of the identity, homographies, masks, autocast."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import FAMILIES, ON_CPU, PADDINGS, SIZES, TOLERANCE, draw, pictures, thetas
from torch import Tensor

from torch_stn import Affine, Attention, Basis, Projective, Similarity, ThinPlateSpline, Transform, sample, warp

EVERY_BACKEND = pytest.mark.parametrize("backend", [*ON_CPU, None])
CORNERS = pytest.mark.parametrize("align_corners", [False, True])


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior has changed for unit-size grids")
@CORNERS
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sizes", [*SIZES[2], *SIZES[3]], ids=str)
def test_affine_warps_are_those_of_torch(
    sizes: tuple[tuple[int, ...], tuple[int, ...]], padding: str, align_corners: bool
) -> None:
    in_size, size = sizes
    if align_corners and any(i > 1 and o == 1 for i, o in zip(in_size, size, strict=True)):
        in_size = size  # where torch puts the one pixel of an output is the coordinate tests' affair
    d = len(in_size)
    family = Affine(d)
    modes = ("nearest", "bilinear", "bicubic") if d == 2 else ("nearest", "bilinear")
    for dtype in (torch.float64, torch.float32):
        image, theta = pictures(2, in_size, dtype=dtype), thetas(family, spread=0.3).to(dtype)
        grid = F.affine_grid(theta, [2, 1, *size], align_corners)
        for mode in modes:
            how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
            got, wanted = warp(image, family(theta), size, **how), F.grid_sample(image, grid, **how)
            torch.testing.assert_close(got, wanted, rtol=0, atol=20 * TOLERANCE[dtype])


@EVERY_BACKEND
@CORNERS
def test_gradients_of_an_affine_warp_are_those_of_torch(align_corners: bool, backend: str | None) -> None:
    family, results = Affine(), []
    for ours in (True, False):
        image, theta = pictures(2, (6, 9)).requires_grad_(), thetas(family).requires_grad_()
        if ours:
            values = warp(image, family(theta), (5, 7), align_corners=align_corners, backend=backend)
        else:
            grid = F.affine_grid(theta, [2, 1, 5, 7], align_corners)
            values = F.grid_sample(image, grid, align_corners=align_corners)
        values.backward(draw(*values.shape))
        results.append((values.detach(), image.grad, theta.grad))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)


@CORNERS
@pytest.mark.parametrize("size", [(5, 7), (5, 3000), (5, 4001), (4095, 3), (5, 4096), (3, 4097), (2, 3, 4097)], ids=str)
@pytest.mark.parametrize("family", [Affine, Projective, ThinPlateSpline, Attention, Similarity])
def test_the_identity_is_exact_on_long_axes(
    family: type[Transform], size: tuple[int, ...], align_corners: bool
) -> None:
    """Through a normalised float32 grid it would be off by up to 1.2e-4 pixel, and noise shows that."""
    if len(size) == 3 and family not in (Affine, Attention):
        return
    transform = family() if len(size) == 2 else family(3)  # type: ignore[call-arg]
    map = transform(transform.identity()[None])
    image = pictures(1, size, channels=1)
    torch.testing.assert_close(warp(image.float(), map, align_corners=align_corners), image.float(), rtol=0, atol=1e-6)
    for exact in (image, image.float()):
        assert torch.equal(warp(exact, map, align_corners=align_corners, backend="reference"), exact)


@CORNERS
@pytest.mark.parametrize("n", [7, 42, 333, 1023, 2047, 2048])
def test_the_identity_on_shorter_axes_is_within_one_rounding_of_a_float32_coordinate(
    n: int, align_corners: bool
) -> None:
    """Up to 2048 pixels the default may pass through [-1, 1]."""
    image = pictures(1, (5, n), channels=1, dtype=torch.float32)
    got = warp(image, Affine()(torch.eye(2, 3)[None]), align_corners=align_corners)
    torch.testing.assert_close(got, image, rtol=0, atol=6.2e-8 * n)
    exact = warp(image.double(), Affine()(torch.eye(2, 3)[None]), align_corners=align_corners)
    torch.testing.assert_close(exact, image.double(), rtol=0, atol=1e-12)


@CORNERS
def test_a_shift_by_whole_pixels_is_exact_on_long_axes(align_corners: bool) -> None:
    image = pictures(1, (3, 4097), channels=1)
    unit = 2 / 4096 if align_corners else 2 / 4097
    for dtype, atol in ((torch.float64, 1e-9), (torch.float32, 2e-3)):  # float32: theta itself is rounded
        theta = torch.tensor([[[1, 0, 1000 * unit], [0, 1, 0]]], dtype=dtype)
        got = warp(image.to(dtype), Affine()(theta), align_corners=align_corners)
        torch.testing.assert_close(got[..., :3096], image.to(dtype)[..., 1000:4096], rtol=0, atol=atol)


def test_size_is_the_images_where_none_is_given() -> None:
    theta = thetas(Affine())
    for in_size in ((6, 9), (1, 4)):
        assert warp(pictures(2, in_size), Affine()(theta)).shape == (2, 2, *in_size)
    assert warp(pictures(2, (6, 9)), Affine()(theta), (3, 4)).shape == (2, 2, 3, 4)
    assert warp(pictures(2, (6, 9)), Affine()(theta), torch.Size([3, 4])).shape == (2, 2, 3, 4)


@EVERY_BACKEND
@pytest.mark.parametrize("name", ["affine", "tps", "projective", "basis, learned", "affine 3-D"])
def test_a_batch_of_one_serves_any_batch(name: str, backend: str | None) -> None:
    family = FAMILIES[name]()
    size = (6, 5) if family.dims == 2 else (3, 4, 5)
    images, theta = pictures(3, size), thetas(family, 3)
    for u, t in ((images[:1], theta), (images, theta[:1])):
        results = []
        for expand in (False, True):
            v, s = u.clone().requires_grad_(), t.clone().requires_grad_()
            left, right = (x.expand(3, *x.shape[1:]) if expand else x for x in (v, s))
            values = warp(left, family(right), backend=backend)
            values.backward(draw(*values.shape))
            results.append((values.detach(), v.grad, s.grad))
        for got, wanted in zip(*results, strict=True):
            torch.testing.assert_close(got, wanted)
    assert warp(images[:0], family(theta[:0]), backend=backend).shape == (0, 2, *size)


@EVERY_BACKEND
@pytest.mark.parametrize("padding", PADDINGS)
def test_behind_the_camera_there_is_no_picture(padding: str, backend: str | None) -> None:
    theta = torch.tensor([[1.0, 0, 0, 0, 1, 0, -1.6, 0.4]], dtype=torch.float64, requires_grad=True)
    image = pictures(1, (6, 8)).requires_grad_()
    map, size = Projective()(theta), (7, 9)
    w = 1 - 1.6 * torch.linspace(-8, 8, 9) / 9 + 0.4 * torch.linspace(-6, 6, 7)[:, None] / 7
    behind = w <= 1e-6
    assert 5 < behind.sum() < 40
    fills = (0.0,) if backend == "aten" else (0.0, 0.5)
    for fill in fills:
        values, mask = warp(image, map, size, padding_mode=padding, fill=fill, return_mask=True, backend=backend)
        assert (values[..., behind] == fill).all()
        assert not mask[..., behind].any()
        assert mask[..., ~behind].any()
        pull_image, pull_theta = torch.autograd.grad(values[..., behind].sum(), (image, theta), retain_graph=True)
        assert not pull_image.any()
        assert not pull_theta.any()
        for pull in torch.autograd.grad(values.sum(), (image, theta)):
            assert torch.isfinite(pull).all()
            assert pull.any()


def test_the_mask_is_what_fell_inside() -> None:
    image = pictures(2, (6, 8))
    zoom_out = torch.tensor([[2.0, 0, 0], [1.0, 0.25, 0]], dtype=torch.float64)
    for padding in PADDINGS:
        _, mask = warp(image, Attention()(zoom_out), return_mask=True, padding_mode=padding)
        assert mask.shape == (2, 1, 6, 8)
        assert (mask[0, 0, 2:4, 2:6] > 1 - 1e-12).all()
        assert not mask[0, 0, 0].any()
        wanted = torch.tensor([1.0] * 7 + [0.0], dtype=torch.float64).expand(6, -1)
        torch.testing.assert_close(mask[1, 0], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_autocast_does_not_touch_coordinates(name: str) -> None:
    family = FAMILIES[name]()
    size = (6, 5) if family.dims == 2 else (3, 4, 5)
    theta, image = thetas(family).float(), pictures(2, size, dtype=torch.float32)
    fresh = FAMILIES[name]()  # nothing kept from the call outside

    def everything(family: Transform) -> list[Tensor]:
        map = family(theta)
        two = map.then(map)
        return [warp(image, map), warp(image, two), map.grid(size), two.grid(size), map.inverse().grid(size)]

    wanted = everything(family)
    with torch.autocast("cpu", torch.bfloat16):
        got = everything(fresh)
        assert warp(image, fresh(theta.bfloat16())).dtype == torch.float32
        assert warp(image.bfloat16(), fresh(theta.bfloat16())).dtype == torch.bfloat16
    for ours, outside in zip(got, wanted, strict=True):
        assert torch.equal(ours, outside)


def test_half_precision_images_are_read_at_float32_coordinates() -> None:
    """On an axis of 3840 pixels a bfloat16 coordinate would be off by up to 7 pixels."""
    image = torch.arange(3840.0).expand(1, 1, 2, -1) / 3840
    theta = torch.tensor([[[1.0, 0, 0.001], [0, 1, 0]]])
    wanted = warp(image, Affine()(theta))
    for dtype in (torch.bfloat16, torch.float16):
        got = warp(image.to(dtype), Affine()(theta))
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), wanted, rtol=0, atol=TOLERANCE[dtype])


def test_theta_and_image_may_differ_in_dtype() -> None:
    for theta_dtype in TOLERANCE:
        for image_dtype in TOLERANCE:
            image, theta = pictures(2, (5, 6), dtype=image_dtype), thetas(Affine()).to(theta_dtype).requires_grad_()
            values = warp(image, Affine()(theta))
            assert values.dtype == image_dtype
            values.float().sum().backward()
            assert theta.grad is not None
            assert theta.grad.dtype == theta_dtype
            exact = warp(image.double(), Affine()(theta.detach().double()))
            torch.testing.assert_close(values.double(), exact, rtol=0, atol=2 * TOLERANCE[image_dtype] + 1e-5)


def test_a_learned_basis_is_reached_by_gradients() -> None:
    family = FAMILIES["basis, learned"]()
    assert isinstance(family, Basis)
    warp(pictures(1, (6, 6), dtype=torch.float32), family(thetas(family, 1).float())).square().sum().backward()
    for name, parameter in family.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_warp_is_sample_at_the_grid_of_the_map() -> None:
    for name, make in FAMILIES.items():
        family = make()
        size = (6, 5) if family.dims == 2 else (3, 4, 5)
        image, map = pictures(2, size), family(thetas(family))
        for align_corners in (False, True):
            points = map.grid(size, align_corners=align_corners)
            wanted = sample(image, points, align_corners=align_corners)
            got = warp(image, map, align_corners=align_corners)
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11, msg=name)


IMAGE, MAP = torch.zeros(2, 3, 4, 5), Affine()(torch.eye(2, 3).expand(2, -1, -1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": IMAGE[0]}, ValueError, r"^map: wanted a 1-D map for image .*, got a 2-D one"),
        ({"image": "cat.png"}, TypeError, r"^image: wanted a torch.Tensor, got str"),
        ({"map": torch.eye(2, 3)[None]}, TypeError, r"^map: wanted a Map, .* got Tensor"),
        ({"map": Affine()}, TypeError, r"^map: wanted a Map, .* got Affine"),
        ({"map": Affine(3)(torch.eye(3, 4)[None])}, ValueError, r"^map: wanted a 2-D map .* got a 3-D one"),
        ({"image": torch.zeros(3, 1, 4, 5)}, ValueError, r"^map: wanted the batch size of image, 3, or 1, got 2"),
        ({"size": (4,)}, ValueError, r"^size: wanted \(h, w\).* got \(4,\)"),
        ({"size": 4}, ValueError, r"^size: wanted \(h, w\).* got 4"),
        ({"size": (4, 5, 6)}, ValueError, r"^size: wanted \(h, w\).* got \(4, 5, 6\)"),
        ({"size": (4, 0)}, ValueError, r"^size: .* at least 1, got \(4, 0\)"),
        ({"size": (4, -1)}, ValueError, r"^size: .* at least 1, got \(4, -1\)"),
        ({"size": (2.5, 3)}, ValueError, r"^size: wanted \(h, w\) of whole numbers, got \(2.5, 3\)"),
        ({"size": "28"}, ValueError, r"^size: wanted \(h, w\) of whole numbers, got '28'"),
        ({"antialias": 0}, ValueError, r"^antialias: wanted True, False or a number of probes >= 1, got 0"),
        ({"mode": "cubism"}, ValueError, r"^mode: wanted one of"),
        ({"padding_mode": "wrapped"}, ValueError, r"^padding_mode: wanted one of"),
        ({"backend": "cuda"}, ValueError, r"^backend: wanted one of"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"image": IMAGE, "map": MAP, **change}
    with pytest.raises(error, match=message):
        warp(**arguments)


def test_an_image_on_another_device_than_theta_is_named() -> None:
    for map in (MAP, ThinPlateSpline()(ThinPlateSpline().identity()[None]), MAP.then(MAP), MAP.inverse()):
        with pytest.raises(ValueError, match=r"^(map|theta): .*device.*meta"):
            warp(IMAGE.to("meta"), map)
