"""The Triton kernels against the reference in float64: on a GPU (`pytest -m gpu`), or interpreted on the CPU.

TRITON_INTERPRET=1 must stand before triton is loaded and would turn the kernels on for every test of a process, so
test_triton_interpreted.py runs this file and test_triton_gather.py in a process of their own.
"""

import importlib

import pytest
import torch
from cases import MODES, PADDINGS, draw, pictures, points_off_kinks, thetas
from torch import Tensor
from triton_checks import FAMILIES, INTERPRETED, ON_DEVICE, at, check, outcome, through

from torch_stn import Affine, Projective, Transform, warp


@ON_DEVICE
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("size", "out", "dtype"),
    [
        ((5, 7), (5, 7), torch.float32),
        ((5, 7), (5, 7), torch.float64),
        ((4, 70), (3, 66), torch.float32),  # so wide that it is cut into patches
        ((1, 6), (3, 6), torch.float32),
        ((6, 4), (1, 1), torch.float32),
    ],
)
def test_maps(size: tuple[int, ...], out: tuple[int, ...], name: str, dtype: torch.dtype, device: str) -> None:
    read = through(FAMILIES[name], out, align_corners=size == (5, 7), fill=0.3)
    check(read, pictures(2, size, 3), thetas(FAMILIES[name]), device, dtype)


@ON_DEVICE
@pytest.mark.parametrize("family", [Affine(3), Projective(3)], ids=["affine", "projective"])
def test_maps_in_space(family: Transform, device: str) -> None:
    check(through(family, (4, 3, 6)), pictures(2, (3, 5, 4), 2), thetas(family), device)


@ON_DEVICE
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5), (1, 6)])
def test_points(size: tuple[int, ...], mode: str, padding: str, device: str) -> None:
    if INTERPRETED and (len(size), mode) == (3, "bicubic") and padding != "zeros":
        size = (3, 4)  # 64 taps, one after the other, through every fold: 10 s of the interpreter, and no other code
    for align_corners in (False, True) if padding == "reflection" else (False,):
        read = at(mode=mode, padding_mode=padding, align_corners=align_corners, fill=0.3)
        check(read, pictures(2, size), points_off_kinks(2, 30, size), device)


@ON_DEVICE
@pytest.mark.parametrize("mode", MODES)
def test_points_in_float64(mode: str, device: str) -> None:
    size = (6, 5)
    read = at(mode=mode, padding_mode="reflection", align_corners=True)
    check(read, pictures(2, size), points_off_kinks(2, 30, size, beyond=9), device, torch.float64)


@ON_DEVICE
@pytest.mark.parametrize("name", FAMILIES)
def test_one_image_or_one_map_for_all(name: str, device: str) -> None:
    family = FAMILIES[name]
    check(through(family, (6, 5)), pictures(1, (5, 7), 2), thetas(family, 3), device)
    check(through(family, (6, 5)), pictures(3, (5, 7), 2), thetas(family, 1), device)


@ON_DEVICE
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_channels_last_comes_out_as_it_went_in(mode: str, device: str) -> None:
    image = pictures(2, (5, 7), 3).contiguous(memory_format=torch.channels_last)
    read = through(Affine(), (6, 70), mode=mode, fill=0.2)
    check(read, image, thetas(Affine()), device)
    got = read(image.float().to(device), thetas(Affine()).float().to(device), "triton")
    assert got.is_contiguous(memory_format=torch.channels_last)


@ON_DEVICE
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
def test_half_images_are_rounded_once_at_the_end(dtype: torch.dtype, rounding: float, device: str) -> None:
    """The kernels themselves, which read half precision as it lies; float32 coordinates and sums."""
    call = importlib.import_module("torch_stn.sampling.backends.triton_kernels.call")
    words = importlib.import_module("torch_stn.sampling.backends.triton_kernels.words")
    image, theta = pictures(2, (9, 70), 2, dtype=dtype), thetas(Affine()).float()
    how = words.How("affine", (9, 70), "bilinear", "zeros", 0.0, False, True)
    values = call.forward(image.to(device), theta.to(device), None, how)
    grad = draw(*values.shape, seed=9).to(values)
    got = [values, *call.backward(grad, image.to(device), theta.to(device), None, how, (True, True))]
    read = through(Affine(), (9, 70))
    u, t = image.double().requires_grad_(), theta.double().requires_grad_()
    wanted = read(u, t, "reference")
    wanted.backward(grad.cpu().double())
    assert [x.dtype for x in got] == [dtype, dtype, torch.float32]
    for ours, truth in zip(got, (wanted.detach(), u.grad, t.grad), strict=True):
        assert truth is not None
        error = (ours.cpu().double() - truth).norm() / truth.norm()
        assert error < rounding


@ON_DEVICE
def test_same_inputs_same_bits_and_atomics_only_on_request(device: str) -> None:
    for name, family in FAMILIES.items():
        image, theta = pictures(2, (9, 12), 3).float().to(device), thetas(family, 2, spread=0.3).float().to(device)
        out = (6, 8) if INTERPRETED else (200, 240)
        first = outcome(through(family, out), image, theta, "triton")
        for _ in range(1 if INTERPRETED else 19):
            again = outcome(through(family, out), image, theta, "triton")
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), name
        loose = outcome(through(family, out, deterministic=False), image, theta, "triton")
        for a, b in zip(first, loose, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * max(1.0, a.abs().max().item()))


@ON_DEVICE
def test_the_identity_is_exact(device: str) -> None:
    image = pictures(1, (37, 53), dtype=torch.float32).to(device)
    for align_corners in (False, True):
        theta = Affine().identity()[None].to(device)
        assert torch.equal(through(Affine(), (37, 53), align_corners=align_corners)(image, theta, "triton"), image)
        # Every point lies on a pixel: which slope theta gets there is a rule, not a matter of rounding.
        check(through(Affine(), (7, 9), align_corners=align_corners), pictures(1, (7, 9)), theta.cpu().double(), device)


@ON_DEVICE
@pytest.mark.parametrize("padding", PADDINGS)
def test_points_that_are_nowhere_read_the_fill_and_pull_at_nothing(padding: str, device: str) -> None:
    points = torch.tensor([[[float("nan"), 1], [float("inf"), 1], [1, -float("inf")], [3e38, 1], [1, 2]]])
    for mode in MODES:
        u, p = pictures(1, (4, 5), dtype=torch.float32).to(device).requires_grad_(), points.to(device).requires_grad_()
        values = at(mode=mode, padding_mode=padding, fill=7.0)(u, p, "triton")
        values.sum().backward()
        assert u.grad is not None
        assert (values[..., :3] == 7).all()
        assert torch.isfinite(values).all()
        assert p.grad is None or (p.grad[0, :3] == 0).all()
        torch.testing.assert_close(values[0, :, 4], u[0, :, 2, 1])
        assert torch.isfinite(u.grad).all()


@ON_DEVICE
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("name", ["projective", "affine"])
def test_a_gradient_that_is_no_number_is_seen_in_its_sample_alone(name: str, device: str) -> None:
    family = FAMILIES[name]
    image = pictures(2, (5, 6), dtype=torch.float32).to(device).requires_grad_()
    values = through(family, (5, 6))(image, thetas(family).float().to(device), "triton")
    pull = torch.ones_like(values)
    pull[0, 0, 2, 2] = float("inf")
    values.backward(pull)
    assert image.grad is not None
    assert not torch.isfinite(image.grad[0]).all()
    assert torch.isfinite(image.grad[1]).all()


@ON_DEVICE
def test_derivatives_of_other_kinds_take_the_plain_operators(device: str) -> None:
    family, image = Affine(), pictures(1, (4, 5)).to(device)
    theta = thetas(family, 1).to(device)

    def run(u: Tensor, t: Tensor) -> Tensor:
        return through(family, (3, 4))(u, t, "triton").pow(2).sum()

    u, t = image.clone().requires_grad_(), theta.clone().requires_grad_()
    (first,) = torch.autograd.grad(run(u, t), t, create_graph=True)
    second = torch.autograd.grad(first.sum(), (u, t))
    wanted = torch.func.grad(lambda t: torch.func.grad(run, argnums=1)(image, t).sum())(theta)
    torch.testing.assert_close(second[1], wanted)
    pushed = torch.func.jvp(lambda t: run(image, t), (theta,), (torch.ones_like(theta),))[1]
    torch.testing.assert_close(pushed, first.detach().sum())


@ON_DEVICE
@pytest.mark.filterwarnings("ignore:`torch.jit.script", "ignore:.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["affine", "tps"] if INTERPRETED else FAMILIES)
def test_a_compiled_graph_holds_the_operator(name: str, device: str) -> None:
    family = FAMILIES[name].to(device)

    def run(image: Tensor, theta: Tensor) -> Tensor:
        values = warp(image, family(theta), (4, 5), backend="triton")
        return values

    image, theta = pictures(2, (5, 6), dtype=torch.float32).to(device), thetas(family).float().to(device)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    results = [outcome(lambda u, t, _, f=f: f(u, t), image, theta, "") for f in (run, compiled)]
    for eager, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=0)


@ON_DEVICE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_images_reach_the_kernels_as_they_lie(dtype: torch.dtype, device: str) -> None:
    """No float32 copy on the way there: through a map, and at points; gradients come back in the image's dtype."""
    kernels = importlib.import_module("torch_stn.sampling.backends.triton")
    seen = []
    forward = kernels.forward
    kernels.forward = lambda image, *rest: (seen.append(image.dtype), forward(image, *rest))[1]
    try:
        for read, source in (
            (through(Affine(), (4, 5)), thetas(Affine())),
            (at(), points_off_kinks(2, 30, (5, 7))),
        ):
            image = pictures(2, (5, 7), dtype=dtype)
            got = outcome(read, image.to(device), source.float().to(device), "triton")
            wanted = outcome(read, image.double(), source.float().double(), "reference")
            assert [t.dtype for t in got] == [dtype, dtype, torch.float32]
            for ours, truth in zip(got, wanted, strict=True):
                torch.testing.assert_close(ours.cpu().double(), truth, rtol=2e-2, atol=2e-2)
    finally:
        kernels.forward = forward
    assert seen == [dtype, dtype]


@ON_DEVICE
def test_numbers_to_be_read_negated_are(device: str) -> None:
    image, theta = pictures(2, (5, 7), dtype=torch.float32).to(device), thetas(Affine()).float().to(device)
    read = through(Affine(), (4, 5))
    seen = torch._neg_view(image).requires_grad_()
    values = read(seen, theta, "triton")
    assert torch.equal(values, -read(image, theta, "triton"))
    values.backward(torch._neg_view(torch.ones_like(values)))
    assert seen.grad is not None
    assert (seen.grad <= 0).all()
    assert (seen.grad < 0).any()
