"""The C++ kernels: that they are there, what the loops of test_backends.py leave open, and what goes on around them."""

import math
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import MODES, PADDINGS, draw, pictures, points_off_kinks, thetas
from test_backends import PLAIN
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from torch_stn import Affine, Projective, ThinPlateSpline, Transform, sample, warp
from torch_stn.sampling.backends import cpu, cpu_library


class Ripple(Transform):
    """A family of which the kernels know nothing: it comes to them as a field."""

    theta_shape = (2,)

    def identity(self) -> Tensor:
        return torch.zeros(2)

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        return theta[:, None] * torch.sin(3 * xy.flip(-1))


COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
needs_kernels = pytest.mark.skipif(
    cpu_library.missing() is not None and COMPILER is None, reason="no C++ compiler here, so no kernels"
)
pytestmark = needs_kernels


def test_where_a_compiler_is_the_kernels_load() -> None:
    assert cpu_library.missing() is None
    assert cpu.why_not(PLAIN) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"device": "cuda"}, "CPU tensors"),
        ({"dims": 1, "in_size": (5,), "padding": ("zeros",)}, "1-D"),
        ({"interpolation": "lanczos3"}, "nearest, bilinear, bicubic"),
        ({"padding": ("zeros", "border")}, "all axes alike"),
        ({"padding": ("wrap", "wrap")}, "zeros, border, reflection"),
        ({"fill": math.nan}, "finite fill"),
        ({"dtype": torch.int64}, "floating-point"),
        ({"in_size": (2**16, 2**15)}, "32 bits"),
    ],
)
def test_what_the_kernels_decline(change: dict[str, Any], word: str) -> None:
    assert word in str(cpu.why_not(replace(PLAIN, **change)))


def everything(run: Any, image: Tensor, *sources: Tensor) -> list[Tensor]:
    """Values of run(image, *sources) and the gradients of a fixed weighting of them."""
    inputs = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in (image, *sources)]
    values = run(*inputs)
    weights = draw(*values.shape, seed=3, dtype=values.dtype)
    grads = torch.autograd.grad(values, inputs, weights, allow_unused=True)
    return [values.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True))]


# Small planes, packs of channels, planes that are read where they lie, for their size or because few of their pixels are
# read; one column, and two; whole vectors and rests of them.
SHAPES = [
    (2, 3, (7, 9), (5, 6)),
    (3, 1, (28, 28), (28, 28)),
    (2, 19, (9, 11), (13, 17)),
    (1, 2, (171, 163), (150, 149)),
    (2, 1, (61, 83), (9, 12)),
    (1, 2, (100, 1), (5, 3)),
    (1, 2, (100, 2), (5, 3)),
    (2, 9, (5, 7, 6), (4, 9, 5)),
    (1, 2, (31, 29, 33), (20, 30, 35)),
]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n", "channels", "in_size", "size"), SHAPES, ids=str)
def test_every_way_to_hold_an_image_is_the_reference_s(
    n: int, channels: int, in_size: tuple[int, ...], size: tuple[int, ...], mode: str, padding: str
) -> None:
    family = Affine(len(in_size))
    image, theta = pictures(n, in_size, channels), thetas(family, n, spread=0.3)
    results = []
    for backend in ("cpu", "reference"):
        how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "backend": backend}
        results.append(everything(lambda u, t, how=how: warp(u, family(t), size, **how), image, theta))
    for ours, truth in zip(*results, strict=True):
        scale = 1 + truth.abs().max().item()
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("family", [Projective(), ThinPlateSpline(), Ripple()], ids=["projective", "tps", "field"])
@pytest.mark.parametrize("batches", [(3, 3), (1, 3), (3, 1)], ids=str)
def test_the_other_forms_and_shared_sides(family: Transform, batches: tuple[int, int]) -> None:
    image, theta = pictures(batches[0], (7, 9), 3), thetas(family, batches[1])
    results = [
        everything(lambda u, t, b=b: warp(u, family(t), (6, 5), backend=b), image, theta) for b in ("cpu", "reference")
    ]
    for ours, truth in zip(*results, strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize("channels", [3, 20])
def test_channels_last_and_other_strides(channels: int) -> None:
    image, theta = pictures(2, (9, 8), channels), thetas(Affine())

    def run(u: Tensor, t: Tensor) -> Tensor:
        values = warp(u, Affine()(t), (7, 6), backend="cpu")
        return values

    wanted = everything(run, image, theta)
    last = everything(run, image.to(memory_format=torch.channels_last), theta)
    strided = everything(run, image.mT.contiguous().mT, theta)
    for ours in (last, strided):
        for got, truth in zip(ours, wanted, strict=True):
            torch.testing.assert_close(got, truth, rtol=0, atol=1e-12)
    assert last[0].is_contiguous(memory_format=torch.channels_last)
    assert last[1].is_contiguous(memory_format=torch.channels_last)
    assert strided[0].is_contiguous()
    for held in (image, image.to(memory_format=torch.channels_last)):
        with torch.device("meta"):  # where new tensors lie by default; results lie with the image
            values = run(held, theta)
        torch.testing.assert_close(values, wanted[0], rtol=0, atol=1e-12)


def test_derivatives_of_all_orders_and_kinds() -> None:
    image, theta = pictures(1, (5, 6), 1).requires_grad_(), (thetas(Affine(), 1) + 0.013).requires_grad_()

    def run(u: Tensor, t: Tensor) -> Tensor:
        values = warp(u, Affine()(t), (3, 4), mode="bicubic", backend="cpu")
        return values

    assert gradcheck(run, (image, theta), check_forward_ad=True)
    assert gradgradcheck(run, (image, theta))
    assert gradgradcheck(lambda u: run(u, theta + 0.01 * u.mean()), (image,))
    each = torch.func.vmap(run, in_dims=(None, 0))(image, theta.detach()[None].expand(3, -1, -1, -1))
    torch.testing.assert_close(each[2], run(image, theta).detach())
    _, slope = torch.func.jvp(lambda t: run(image, t).sum(), (theta.detach(),), (torch.ones_like(theta),))
    torch.testing.assert_close(slope, torch.autograd.grad(run(image, theta).sum(), theta)[0].sum())


def test_the_operator_of_compiled_graphs_passes_opcheck() -> None:
    image = pictures(2, (5, 6), dtype=torch.float32).requires_grad_()
    theta = thetas(Affine()).float().requires_grad_()
    rest = ([4, 3], "bilinear", "zeros", 0.0, False)
    torch.library.opcheck(torch.ops.torch_stn.cpu_warp, (image, theta, None, "affine", *rest))
    points = points_off_kinks(2, 7, (5, 6)).float().requires_grad_()
    torch.library.opcheck(torch.ops.torch_stn.cpu_warp, (image, points, None, "points", [1, 7], *rest[1:]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, 1e38])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("channels", [1, 17])
@pytest.mark.parametrize("in_size", [(6, 7), (190, 180), (4, 5, 6), (1, 1)], ids=str)
def test_a_theta_that_is_nowhere_reads_nothing_beyond_the_image(
    in_size: tuple[int, ...], channels: int, padding: str, value: float
) -> None:
    """Values stay in the image's range or are the fill value, and every gradient is finite."""
    d = len(in_size)
    image = pictures(1, in_size, channels, dtype=torch.float32).requires_grad_()
    for mode in MODES:
        for entry in ((0, 0), (1, d), (0, d)):
            theta = torch.eye(d, d + 1)[None].clone()
            theta[0][entry] = value
            theta.requires_grad_()
            values = warp(image, Affine(d)(theta), mode=mode, padding_mode=padding, backend="cpu")
            assert torch.isfinite(values).all()
            assert (values.abs() < 3).all()
            for grad in torch.autograd.grad(values.sum(), (image, theta)):
                assert not torch.isnan(grad).any()


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts torch's thread count back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("n", "channels", "in_size"),
    [
        (1, 1, (300, 280)),
        (2, 3, (180, 170)),
        (7, 2, (180, 170)),
        (9, 3, (33, 31)),
        (4, 40, (14, 15)),
        (1, 1, (40, 41, 42)),
    ],
    ids=str,
)
def test_gradients_have_the_same_bits_in_twenty_runs_and_for_any_threads(
    n: int, channels: int, in_size: tuple[int, ...]
) -> None:
    family = Affine(len(in_size))
    image, theta = pictures(n, in_size, channels, dtype=torch.float32), thetas(family, n, spread=0.2).float()
    first = everything(lambda u, t: warp(u, family(t), backend="cpu"), image, theta)
    for run in range(20):
        torch.set_num_threads(run % 3 + 1)
        again = everything(lambda u, t: warp(u, family(t), backend="cpu"), image, theta)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def _in_a_child(queue: Any, count: int, image: Tensor, theta: Tensor) -> None:
    torch.set_num_threads(count)
    queue.put(warp(image, Affine()(theta), backend="cpu").double().sum().item())


@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("count", [1, 2])
def test_a_forked_child_does_not_wait_for_its_parent_s_threads(count: int) -> None:
    torch.set_num_threads(2)
    image, theta = pictures(8, (64, 64), 3, dtype=torch.float32), thetas(Affine(), 8).float()
    wanted = warp(image, Affine()(theta), backend="cpu").double().sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue, count, image[:1], theta[:1]))
    child.start()
    try:
        got = queue.get(timeout=60)
        child.join(60)
    finally:
        child.kill()
    assert got == warp(image[:1], Affine()(theta[:1]), backend="cpu").double().sum().item()
    assert wanted > got


@pytest.mark.usefixtures("threads")
def test_python_threads_at_once() -> None:
    torch.set_num_threads(2)
    image, theta = pictures(6, (50, 60), 9, dtype=torch.float32), thetas(Affine(), 6).float()
    start = threading.Barrier(4)
    wanted = everything(lambda u, t: warp(u, Affine()(t), backend="cpu"), image, theta)

    def run(_: int) -> list[list[Tensor]]:
        start.wait()
        return [everything(lambda u, t: warp(u, Affine()(t), backend="cpu"), image, theta) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(run, range(4)):
            assert all(torch.equal(a, b) for result in results for a, b in zip(result, wanted, strict=True))


@pytest.mark.parametrize("size", [(64, 64), (511, 300), (40, 1921)], ids=str)
def test_float32_is_within_one_rounding_of_its_coordinates(size: tuple[int, int]) -> None:
    image, theta = pictures(1, size, dtype=torch.float32), thetas(Affine(), 1, spread=0.1).float()
    exact = F.grid_sample(
        image.double(), F.affine_grid(theta.double(), [1, 1, *size], align_corners=False), align_corners=False
    )
    got = warp(image, Affine()(theta), backend="cpu").double()
    assert (got - exact).norm() <= 6e-8 * max(size) * exact.norm()


@pytest.mark.parametrize("planar", [False, True])
def test_points_are_taken_in_the_units_in_which_they_came(planar: bool) -> None:
    image, points = pictures(2, (7, 9)).requires_grad_(), 2.4 * draw(2, 5, 6, 2) - 1.2
    points = (points.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0) if planar else points).requires_grad_()
    grads = []
    for backend in ("cpu", "reference"):
        values = sample(image, points, backend=backend)
        grads.append((values, *torch.autograd.grad(values.square().sum(), (image, points))))
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


class Small(nn.Module):
    """A net around the sampler."""

    def forward(self, image: Tensor, theta: Tensor) -> Tensor:
        values = warp(image, Affine()(theta), (4, 4))
        return values


def test_exported_graphs_hold_plain_operators_only() -> None:
    example = (torch.rand(2, 1, 5, 5), thetas(Affine()).float())
    program = torch.export.export(Small(), example)
    assert not any("torch_stn" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*example), Small()(*example), rtol=1e-4, atol=1e-5)
