"""The Triton kernels against the reference in float64: on a GPU (`pytest -m gpu`), or interpreted on the CPU.

TRITON_INTERPRET=1 must stand before triton is loaded and would turn the kernels on for every test of a process, so
test_triton_interpreted.py runs this file in a process of its own.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import MODES, PADDINGS, draw, pictures, points_off_kinks, thetas
from torch import Tensor

from torch_stn import Affine, Projective, ThinPlateSpline, Transform, sample, warp
from torch_stn.transforms.displacement import DisplacementField

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_DEVICE = pytest.mark.parametrize("device", ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)])
# Of float32 coordinates on axes of up to 80 pixels, and of the sums of gradients, beside the largest of each.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
FAMILIES = {
    "affine": Affine(),
    "projective": Projective(),
    "tps": ThinPlateSpline(3),
    "field": DisplacementField((3, 4)),
}
Reader = Callable[[Tensor, Tensor, str], Any]


@pytest.fixture(autouse=True)
def needs_the_device(request: pytest.FixtureRequest) -> None:
    wanted = getattr(request.node, "callspec", None)
    if wanted is not None and wanted.params.get("device") == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")


def outcome(read: Reader, image: Tensor, source: Tensor, backend: str) -> list[Tensor]:
    """Values, and the gradients of a fixed weighting of them to image and source."""
    u, s = image.detach().clone().requires_grad_(), source.detach().clone().requires_grad_()
    values = read(u, s, backend)
    values.backward(draw(*values.shape, seed=9).to(values))
    return [values.detach(), *(torch.zeros_like(t) if t.grad is None else t.grad for t in (u, s))]


def check(read: Reader, image: Tensor, source: Tensor, device: str, dtype: torch.dtype = torch.float32) -> None:
    """Forward and both gradients, of the numbers rounded to the dtype, against the reference in float64."""
    image, source = image.to(dtype), source.to(dtype)
    wanted = outcome(read, image.double(), source.double(), "reference")
    got = outcome(read, image.to(device), source.to(device), "triton")
    for name, ours, truth in zip(("values", "image", "source"), got, wanted, strict=True):
        scale = max(1.0, truth.abs().max().item())
        worst = (ours.cpu().double() - truth).abs().max().item() / scale
        print(f"{name}: {worst:.1e}")
        assert worst <= TOLERANCE[dtype], f"{name}: off by {worst} of {scale}"


def through(family: Transform, size: tuple[int, ...], **how: Any) -> Reader:
    return lambda image, theta, backend: warp(image, family.to(theta.device)(theta), size, backend=backend, **how)


def at(**how: Any) -> Reader:
    return lambda image, points, backend: sample(image, points, units="pixel", backend=backend, **how)


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


# No point of these falls on a pixel, where a rounded coordinate takes the slope of the other side.
EXTREME = {
    "all on one point": [[0, 0, 0.11], [0, 0, 0.23]],
    "all on a line": [[1, 0.5, 0], [2, 1, 0]],
    "nearly all on a line": [[1, 0.5, 0], [2, 1.000001, 0]],
    "a hundredfold zoom": [[0.01, 0, 0.1], [0, 0.01, 0.2]],
    "a fivefold zoom, turned": [[0.1513, 0.1037, 0.1171], [-0.1029, 0.1517, 0.2093]],
    "far away": [[1, 0, 50], [0, 1, 0.2]],
    "four times as much": [[4, 0.3, 0.1], [0, 4, 0.2]],
    "a quarter turn": [[0.001, -1, 0.03], [1, 0.001, 0.02]],
    "mirrored": [[-1.01, 0.02, 0.03], [0.01, 0.97, 0.02]],
}


@ON_DEVICE
@pytest.mark.parametrize("name", EXTREME)
def test_no_affine_map_is_too_wild(name: str, device: str) -> None:
    """The second sample is an ordinary one: each goes its own way, chosen on the device."""
    theta = torch.tensor([EXTREME[name], [[0.9, 0.2, 0.1], [-0.1, 1.1, 0.05]]], dtype=torch.float64)
    check(through(Affine(), (15, 18)), pictures(2, (12, 13), 2), theta, device)


# Rows of a homography; w is the last.
BENT = {
    "leaning": ([[1, 0.1, 0.05], [-0.1, 0.9, 0.02], [0.15, -0.2, 1]], False),
    "leaning far, but within sight": (
        [[0.8137, 0.3071, 0.1013], [-0.3113, 0.7973, 0.0537], [0.2939, 0.2571, 1]],
        False,
    ),
    "the other way, mirrored": ([[-1.103, 0.107, 0.053], [0.109, 0.911, 0.023], [-0.203, 0.107, 1.1]], False),
    "turned by a quarter": ([[0.02, -1, 0.05], [1, 0.01, 0.02], [0.1, 0.15, 1]], False),
    "the horizon in the picture": ([[1, 0.1, 0.05], [-0.1, 0.9, 0.02], [0.9, 0.7, 1]], True),
    "behind the camera": ([[1, 0.1, 0.05], [-0.1, 0.9, 0.02], [0.1, 0.2, -1]], True),
    "singular": ([[1.013, 0.507, 0.11], [2.026, 1.014, 0.22], [0.103, 0.207, 1]], True),
    "a hundredfold zoom": ([[0.01, 0, 0.1], [0, 0.01, 0.2], [0.01, 0.02, 1]], True),
}


@ON_DEVICE
@pytest.mark.parametrize("name", BENT)
def test_no_projective_map_is_too_wild(name: str, device: str) -> None:
    """Ordinary ones are gathered, the others left to the kernels that serve any map; beside an ordinary one each."""
    rows, wild = BENT[name]
    theta = torch.tensor([rows, [[0.9, 0.2, 0.1], [-0.1, 1.1, 0.05], [0.05, -0.1, 1]]], dtype=torch.float64)
    family = Projective()  # full matrices serve as well
    check(through(family, (15, 18)), pictures(2, (12, 13), 2), theta, device)
    check(through(family, (21, 80)), pictures(2, (19, 70), 1), theta, device)
    facts = importlib.import_module("torch_stn.sampling.backends.triton_facts")
    flags = torch.full((2,), 7, dtype=torch.int32, device=device)
    made = torch.empty(2, facts.NUMBERS.value, device=device)
    scales = (13 / 18, 12 / 15, 6.5, 6.0, 2 / 18, 2 / 15)
    facts.facts_kernel[(1,)](
        theta.float().to(device), made, flags, *scales, 2, 13, 12, 18, 15, BENT=True, BLOCK=128, num_warps=4
    )
    assert flags.tolist() == [int(wild), 0]


SPACE = {
    "turned": (
        [[0.9137, 0.2071, -0.1033, 0.05], [-0.2117, 0.8531, 0.1519, 0.02], [0.1013, -0.1307, 0.9541, 0.03]],
        False,
    ),
    "axes exchanged": ([[0.01, 0.02, 1.1, 0.05], [0.9, 0.015, 0.03, 0.02], [0.02, -1.05, 0.01, 0.03]], False),
    "four times as much": (
        [[3.9137, 0.3071, 0.1093, 0.1], [0.2039, 4.1117, 0.1071, 0.037], [0.1033, 0.2071, 3.7139, 0.0293]],
        False,
    ),
    "flat": ([[0.9137, 0.2071, 0.1033, 0.05], [0.2093, 0.8117, 0.3071, 0.02], [1.123, 1.0188, 0.4104, 0.03]], True),
    "all on one point": ([[0, 0, 0, 0.11], [0, 0, 0, 0.23], [0, 0, 0, 0.31]], True),
    "a hundredfold zoom": ([[0.01, 0, 0, 0.1], [0, 0.011, 0, 0.2], [0, 0, 0.012, 0.3]], True),
}


@ON_DEVICE
@pytest.mark.parametrize("name", SPACE)
def test_volumes_are_gathered_and_no_map_of_them_is_too_wild(name: str, device: str) -> None:
    rows, wild = SPACE[name]
    second = [[1.1, 0.05, 0.1, 0.02], [0.1, 0.9, 0.05, -0.1], [-0.05, 0.1, 1.05, 0.07]]
    theta = torch.tensor([rows, second], dtype=torch.float64)
    out = (5, 7, 6) if INTERPRETED else (11, 10, 12)
    check(through(Affine(3), out), pictures(2, (5, 7, 6), 3), theta, device)
    if not wild:
        check(through(Affine(3), (3, 5, 60)), pictures(2, (3, 5, 67), 1), theta, device)
    kernels = importlib.import_module("torch_stn.sampling.backends.triton_volume")
    flags, facts = torch.full((2,), 7, dtype=torch.int32, device=device), torch.empty(2, 32, device=device)
    scales = (6 / 12, 7 / 10, 5 / 11, 3.0, 3.5, 2.5, 2 / 12, 2 / 10, 2 / 11)
    kernels.volume_facts_kernel[(1,)](
        theta.float().to(device), facts, flags, *scales, 2, 6, 7, 5, 12, 10, 11, BLOCK=128, num_warps=4
    )
    assert flags.tolist() == [int(wild), 0]


@ON_DEVICE
@pytest.mark.parametrize("rows", [[[0.01, 0, 0.1], [0, 0.011, 0.2]], [[0.01, 1, 0.1], [-1, 0.011, 0.2]]])
def test_few_points_are_gathered_however_near_they_lie(rows: list[list[float]], device: str) -> None:
    """A zoom of an output so small that no map is flagged: all of its points may read one block."""
    check(through(Affine(), (12, 13)), pictures(1, (12, 13), 2), torch.tensor([rows], dtype=torch.float64), device)


@ON_DEVICE
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5), (1, 6)])
def test_points_of_many_channels_are_sorted(size: tuple[int, ...], padding: str, device: str) -> None:
    """Sorted by the cell that they read; some lie outside, some nowhere, and many on one another."""
    points = points_off_kinks(2, 40, size, beyond=3)
    points[0, :12] = points[0, 0]
    points[1, 3] = float("nan")
    points[1, 4] = float("inf")
    check(at(padding_mode=padding, fill=0.3), pictures(2, size, 16), points, device)
    check(at(padding_mode=padding), pictures(3, size, 16), points[:1], device, torch.float64)
    if len(size) == 2:
        image = pictures(2, size, 16).contiguous(memory_format=torch.channels_last)
        check(through(FAMILIES["tps"], (4, 70), padding_mode=padding), image, thetas(FAMILIES["tps"]), device)


@ON_DEVICE
def test_gathering_over_several_tiles_and_groups_of_channels(device: str) -> None:
    theta = thetas(Affine(), 1, spread=0.2)
    check(through(Affine(), (20, 90)), pictures(1, (36, 150), 1), theta, device)
    check(through(Affine(), (9, 8)), pictures(1, (8, 9), 20), theta, device)
    only = through(Affine(), (6, 7))
    image = pictures(2, (5, 7), dtype=torch.float32).to(device).requires_grad_()
    theta = thetas(Affine()).float().to(device)
    only(image, theta, "triton").sum().backward()
    alone, image.grad = image.grad, None
    only(image, theta.requires_grad_(), "triton").sum().backward()
    torch.testing.assert_close(alone, image.grad, rtol=0, atol=0)


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
    call = importlib.import_module("torch_stn.sampling.backends.triton_call")
    words = importlib.import_module("torch_stn.sampling.backends.triton_words")
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
