"""Every backend against the reference in float64; who serves what, and why not; compiled and exported graphs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import MODES, ON_CPU, PADDINGS, TOLERANCE, draw, pictures, points_off_kinks, thetas
from torch import Tensor, nn

from torch_stn import (
    Affine,
    LocalizationFC,
    Projective,
    SpatialTransformer,
    ThinPlateSpline,
    Transform,
    sample,
    warp,
)
from torch_stn.coordinates import to_normalized
from torch_stn.sampling.choose import BACKENDS, choose, reasons
from torch_stn.sampling.interpolation import Cubic, Linear
from torch_stn.sampling.problem import Problem

EVERY_BACKEND = pytest.mark.parametrize("backend", ON_CPU)
PLAIN = Problem(
    dims=2,
    interpolation="bilinear",
    padding=("zeros", "zeros"),
    fill=0.0,
    align_corners=False,
    units="normalized",
    in_size=(5, 7),
    dtype=torch.float32,
    device="cpu",
    image_grad=True,
    deterministic=True,
)


def values_and_gradients(image: Tensor, points: Tensor, **how: Any) -> list[Tensor]:
    """What a backend makes of one problem: values, and the gradients of a fixed weighting of them."""
    u, p = image.detach().clone().requires_grad_(), points.detach().clone().requires_grad_()
    values = sample(u, p, **how)
    values.backward(draw(*values.shape, seed=9).to(values.dtype))
    return [values.detach(), *(torch.zeros_like(v) if v.grad is None else v.grad for v in (u, p))]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("in_size", [(5, 7), (3, 4, 5), (1, 6)])
@EVERY_BACKEND
def test_parity_with_the_reference_in_float64(
    backend: str, in_size: tuple[int, ...], mode: str, padding: str, align_corners: bool, dtype: torch.dtype
) -> None:
    """Forward and all gradients, from the numbers that the backend was given, already rounded to the dtype."""
    d = len(in_size)
    how: dict[str, Any] = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
    image = pictures(2, in_size, dtype=dtype)
    pixels = points_off_kinks(2, 30, in_size).to(torch.float64 if dtype == torch.float64 else torch.float32)
    units = "pixel"
    if align_corners and 1 in in_size:  # pixel points off the centre of a one-pixel axis have no normalised name
        pixels[..., [i for i, n in enumerate(reversed(in_size)) if n == 1]] = 0
        pixels, units = to_normalized(pixels, in_size, align_corners=True), "normalized"
    problem = replace(
        PLAIN, dims=d, interpolation=mode, padding=(padding,) * d, units=units, in_size=in_size, dtype=dtype
    )
    reason = BACKENDS[backend].why_not(replace(problem, align_corners=align_corners))
    if reason is not None:
        with pytest.raises(ValueError, match=r"^backend: ") as refusal:
            values_and_gradients(image, pixels, units=units, backend=backend, **how)
        assert f"{backend!r}" in str(refusal.value)
        assert reason in str(refusal.value)
        return
    wanted = values_and_gradients(image.double(), pixels.double(), units=units, backend="reference", **how)
    got = values_and_gradients(image, pixels, units=units, backend=backend, **how)
    scales = [1.0, 8.0, 60.0]  # an image gradient sums over points; a normalised slope is one per half image
    for ours, truth, scale in zip(got, wanted, scales, strict=True):
        atol = TOLERANCE[dtype] * scale
        torch.testing.assert_close(ours.double(), truth, rtol=0, atol=atol)


@EVERY_BACKEND
@pytest.mark.parametrize(
    "family", [Affine(), ThinPlateSpline(), Projective(), Affine(3)], ids=["affine", "tps", "projective", "affine 3-D"]
)
def test_gradients_of_theta_through_warp(family: Transform, backend: str) -> None:
    size = (6, 5) if family.dims == 2 else (3, 4, 5)
    for padding in PADDINGS:
        results = []
        for name, dtype in (("reference", torch.float64), (backend, torch.float64), (backend, torch.float32)):
            image = pictures(2, size, dtype=dtype).requires_grad_()
            theta = thetas(family).to(dtype).requires_grad_()
            values = warp(image, family(theta), padding_mode=padding, backend=name)
            values.backward(draw(*values.shape, seed=1, dtype=dtype))
            assert image.grad is not None
            assert theta.grad is not None
            results.append((values.detach().double(), image.grad.double(), theta.grad.double()))
        for results_, atol in ((results[1], 1e-11), (results[2], 1e-4)):
            for ours, truth in zip(results_, results[0], strict=True):
                torch.testing.assert_close(ours, truth, rtol=0, atol=atol)


def test_the_reference_serves_everything() -> None:
    for mode in (*MODES, "custom"):
        for padding in PADDINGS:
            for fill in (0.0, 0.5):
                problem = replace(PLAIN, interpolation=mode, padding=(padding,) * 2, fill=fill, device="cuda")
                assert BACKENDS["reference"].why_not(problem) is None
                assert reasons(problem).keys() == BACKENDS.keys()
                assert reasons(problem)["reference"] is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"interpolation": "custom"}, "only nearest, bilinear and bicubic"),
        ({"interpolation": "bicubic", "dims": 3, "in_size": (3, 4, 5)}, "tricubic"),
        ({"fill": 0.5}, "fill"),
        ({"device": "cuda"}, "deterministic"),
        ({"units": "pixel", "align_corners": True, "in_size": (1, 5)}, "one pixel"),
    ],
)
def test_aten_says_why_not(change: dict[str, Any], word: str) -> None:
    problem = replace(PLAIN, **change)
    assert BACKENDS["aten"].why_not(PLAIN) is None
    reason = BACKENDS["aten"].why_not(problem)
    assert reason is not None
    assert word in reason
    assert reasons(problem)["aten"] == reason
    with pytest.raises(ValueError, match=rf"^backend: 'aten' cannot serve this call: .*{word}"):
        choose(problem, "aten")
    assert choose(problem) is not BACKENDS["aten"]


def test_cuda_image_gradients_are_aten_s_where_nobody_asks_for_determinism() -> None:
    for change in ({"deterministic": False}, {"image_grad": False}):
        assert BACKENDS["aten"].why_not(replace(PLAIN, device="cuda", **change)) is None  # type: ignore[arg-type]


def test_aten_steps_back_from_long_axes_but_serves_when_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKENDS["cpu"], "MISSING", "as on a machine without a compiler")
    long = replace(PLAIN, units="pixel", in_size=(4, 4097))
    assert BACKENDS["aten"].why_not(long) is None
    assert "4" in str(BACKENDS["aten"].not_by_default(long))
    assert choose(long) is BACKENDS["reference"]
    assert choose(long, "aten") is BACKENDS["aten"]
    halves = replace(PLAIN, units="pixel", interpolation="nearest")
    assert "halves" in str(BACKENDS["aten"].not_by_default(halves))
    assert choose(halves) is BACKENDS["reference"]
    for near in (
        replace(long, dtype=torch.float64),
        replace(long, in_size=(4, 2048)),
        replace(long, units="normalized"),
    ):
        assert BACKENDS["aten"].not_by_default(near) is None
        assert choose(near) is BACKENDS["aten"]


def test_a_named_backend_never_falls_back() -> None:
    image, points = torch.rand(1, 1, 4, 4), torch.zeros(1, 3, 2)
    with pytest.raises(ValueError, match=r"'aten' cannot serve this call: .*fill"):
        sample(image, points, fill=1.0, backend="aten")
    with pytest.raises(ValueError, match=r"'aten' cannot serve this call: .*bilinear"):
        sample(image, points, mode=Cubic(a=-0.5), backend="aten")
    with pytest.raises(ValueError, match=r"'aten' cannot serve this call: .*tricubic"):
        warp(image[None], Affine(3)(torch.eye(3, 4)[None]), mode="bicubic", backend="aten")


class SquaredTent(Linear):
    """Somebody's variation of a built-in kernel."""

    def weights(self, fraction: Tensor) -> Tensor:
        return super().weights(fraction).square()


class LearnedCubic(Cubic):
    """Keys' cubic with its `a` learned."""

    def __init__(self) -> None:
        super().__init__()
        del self.a
        self.a = nn.Parameter(torch.tensor(-0.75, dtype=torch.float64))  # type: ignore[assignment]


def test_a_variation_of_a_built_in_kernel_is_not_taken_for_the_built_in_one() -> None:
    image, points = pictures(1, (5, 6)), points_off_kinks(1, 20, (5, 6), beyond=0)
    got = sample(image, points, mode=SquaredTent(), units="pixel")
    wanted = sample(image, points, mode=SquaredTent(), units="pixel", backend="reference")
    torch.testing.assert_close(got, wanted)
    learned = LearnedCubic()
    values = sample(image, points, mode=learned, units="pixel")
    values.sum().backward()
    assert isinstance(learned.a, Tensor)
    assert learned.a.grad is not None
    changed = Cubic()
    changed.a = -0.5
    torch.testing.assert_close(
        sample(image, points, mode=changed, units="pixel"), sample(image, points, mode=Cubic(-0.5), units="pixel")
    )


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts torch's thread count back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@EVERY_BACKEND
@pytest.mark.parametrize("mode", MODES)
def test_same_inputs_same_bits_for_any_number_of_threads(mode: str, backend: str) -> None:
    image, points = pictures(3, (40, 50), channels=3, dtype=torch.float32), points_off_kinks(3, 5000, (40, 50)).float()
    first = values_and_gradients(image, points, units="pixel", mode=mode, backend=backend)
    for count in (1, 2, 3, 1):
        torch.set_num_threads(count)
        again = values_and_gradients(image, points, units="pixel", mode=mode, backend=backend)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


COMPILE_WARNINGS = pytest.mark.filterwarnings("ignore:`torch.jit.script", "ignore:.*is deprecated:DeprecationWarning")


@COMPILE_WARNINGS
@pytest.mark.parametrize(
    ("family", "backend"),
    [(Affine(), None), (Affine(), "reference"), (ThinPlateSpline(), None), (Projective(), None)],
    ids=["affine", "affine by the reference", "tps", "projective"],
)
def test_warp_compiles_to_one_graph(family: Transform, backend: str | None) -> None:
    def run(image: Tensor, theta: Tensor) -> Tensor:
        values = warp(image, family(theta), (4, 5), backend=backend)
        return values

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    results = []
    for f in (compiled, run):
        image, theta = (
            pictures(2, (6, 7), dtype=torch.float32).requires_grad_(),
            thetas(family).float().requires_grad_(),
        )
        values = f(image, theta)
        values.backward(draw(*values.shape, seed=1, dtype=torch.float32))
        results.append((values.detach(), image.grad, theta.grad))
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


@COMPILE_WARNINGS
@pytest.mark.parametrize("family", [Affine(), ThinPlateSpline(3)], ids=["affine", "tps"])
def test_a_transformer_can_be_exported(family: Transform) -> None:
    torch.manual_seed(0)
    stn = SpatialTransformer(LocalizationFC((1, 8, 8), (5,)), family, (6, 6)).eval()
    nn.init.normal_(stn.head.weight, std=0.1)
    x = torch.rand(3, 1, 8, 8)
    program = torch.export.export(stn, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=64)},))
    for batch in (x, torch.rand(5, 1, 8, 8)):
        torch.testing.assert_close(program.module()(batch), stn(batch), rtol=1e-4, atol=1e-5)
