"""What every kernel can do, shown by doing it: the columns of docs/support.md.

A column is a function of a kernel's name. It returns None after its assertions held, a tick, or, after it saw the
refusal happen, the reason.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import ON_CPU, draw, pictures, points_off_kinks
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jvp, vmap

from torch_stn import Affine, Interpolation, sample, warp
from torch_stn.sampling.interpolation import INTERPOLATIONS

SIZES = {1: (6,), 2: (5, 6), 3: (3, 4, 3)}
NUMPY = {"zeros": "constant", "border": "edge", "symmetric": "symmetric", "mirror": "reflect", "wrap": "wrap"}


class Bell(Interpolation):
    """Somebody's own kernel, with a Phi to learn."""

    support = 4

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def kernel(self, distance: Tensor) -> Tensor:
        return torch.exp(-self.rate * distance.square())


ROWS: dict[str, Callable[[], str | Interpolation]] = {
    **{name: (lambda name=name: name) for name in INTERPOLATIONS},  # type: ignore[misc]
    "one's own k(x; Phi)": Bell,
}


def problem(dims: int) -> tuple[Tensor, Tensor]:
    """A small picture, and pixel points some of which lie outside."""
    return pictures(2, SIZES[dims], channels=2), points_off_kinks(2, 7, SIZES[dims], beyond=1.0)


def read(image: Tensor, points: Tensor, row: str, padding_mode: str = "mirror", **how: Any) -> Tensor:
    """sample() in pixels by the kernel of a row; mirrored, for there a prefilter adds no pixels."""
    values = sample(image, points, mode=ROWS[row](), units="pixel", padding_mode=padding_mode, **how)
    return values


def in_dims(dims: int) -> Callable[[str], None]:
    """A constant picture stays one, if the kernel's weights sum to 1, and every axis is read alike."""

    def check(row: str) -> None:
        image, points = problem(dims)
        constant = read(torch.full_like(image, 0.7), points, row)
        gain = read(torch.ones_like(image), points, row)
        torch.testing.assert_close(constant, 0.7 * gain)
        if row in INTERPOLATIONS:
            torch.testing.assert_close(gain, torch.ones_like(gain))
        for axis in range(dims):  # the same picture with its axes exchanged, read at exchanged points
            swapped = read(image.transpose(2, 2 + axis), _exchanged(points, axis), row)
            torch.testing.assert_close(swapped, read(image, points, row))

    return check


def _exchanged(points: Tensor, axis: int) -> Tensor:
    """Points after the first space axis and ``axis`` of the picture changed places; the last coordinate is the first
    axis."""
    order = list(range(points.shape[-1]))
    first, other = points.shape[-1] - 1, points.shape[-1] - 1 - axis
    order[first], order[other] = order[other], order[first]
    return points[..., order]


def padded(rule: str) -> Callable[[str], None]:
    """Reading beyond the border is reading from a padded picture."""

    def check(row: str) -> None:
        image, points = problem(2)
        room = 60  # beyond what any prefilter reaches
        kind = NUMPY["symmetric" if rule == "reflection" else rule]
        wide = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), (room, room), (room, room)], mode=kind))  # type: ignore[call-overload]
        torch.testing.assert_close(read(image, points, row, rule), read(wide, points + room, row))

    return check


def gradients(row: str) -> None:
    image, points = (t.requires_grad_() for t in problem(2))
    assert gradcheck(lambda u, p: read(u, p, row), (image, points), fast_mode=True)


def double_backward(row: str) -> None:
    image, points = (t.requires_grad_() for t in problem(2))
    assert gradgradcheck(lambda u, p: read(u, p, row), (image, points), fast_mode=True)


def forward_mode(row: str) -> None:
    """jvp against central differences."""
    image, points = problem(2)
    along = draw(*image.shape, seed=3), 0.1 * draw(*points.shape, seed=4)
    _, slope = jvp(lambda u, p: read(u, p, row), (image, points), along)
    step = 1e-6
    ahead, behind = (read(image + s * along[0], points + s * along[1], row) for s in (step, -step))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=0, atol=1e-8)


def batched(row: str) -> None:
    """vmap, and vmap of a gradient, against the batch itself."""
    image, points = problem(2)

    def one(u: Tensor, p: Tensor) -> Tensor:
        return read(u[None], p[None], row)[0]

    torch.testing.assert_close(vmap(one)(image, points), read(image, points, row))
    gradient = vmap(torch.func.grad(lambda u, p: one(u, p).square().sum()))(image, points)
    u = image.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(read(u, points, row).square().sum(), u)
    torch.testing.assert_close(gradient, wanted)


class Warp(nn.Module):
    """warp by an affine theta, as a user's model would have it."""

    def __init__(self, row: str, dims: int = 2) -> None:
        super().__init__()
        self.mode, self.family = ROWS[row](), Affine(dims)
        if isinstance(self.mode, Interpolation):
            self.mode = self.mode.float()

    def forward(self, image: Tensor, theta: Tensor) -> Tensor:
        values = warp(image, self.family(theta), mode=self.mode, padding_mode="border")
        return values


def inputs(batch: int, dims: int = 2) -> tuple[Tensor, Tensor]:
    """An image batch and affine thetas near the identity, float32."""
    theta = torch.eye(dims, dims + 1) + 0.2 * (draw(batch, dims, dims + 1, seed=batch).float() - 0.5)
    return pictures(batch, SIZES[dims], dtype=torch.float32), theta


def traced(check: Callable[[str, int], None]) -> Callable[[str], None]:
    """In 2-D, and in 3-D the kernels whose graphs of 3-D taps do not take minutes."""

    def run(row: str) -> None:
        for dims in (2, 3) if row in ("nearest", "bilinear") else (2,):
            check(row, dims)

    return run


def compiled(row: str, dims: int) -> None:
    """One graph for every batch size."""
    torch.compiler.reset()
    model = Warp(row, dims)
    graphs = []

    def backend(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    quick = torch.compile(model, fullgraph=True, backend=backend, dynamic=True)
    for batch in (11, 3, 13):  # the first unlike every other size: torch takes equal sizes for one
        given = inputs(batch, dims)
        torch.testing.assert_close(quick(*given), model(*given), rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1, f"{len(graphs)} graphs for three batch sizes"


def exported(row: str, dims: int) -> None:
    model, given = Warp(row, dims), inputs(5, dims)
    n = torch.export.Dim("n", min=2, max=64)
    program = torch.export.export(model, inputs(3, dims), dynamic_shapes=({0: n}, {0: n}))
    torch.testing.assert_close(program.module()(*given), model(*given), rtol=1e-4, atol=1e-5)


def in_onnx(row: str, dims: int) -> None:
    """Opset 20, any batch size, the numbers of onnxruntime."""
    import onnxruntime

    model = Warp(row, dims)
    n = torch.export.Dim("n", min=2, max=64)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "warp.onnx")
        shapes = {"image": {0: n}, "theta": {0: n}}
        program = torch.onnx.export(
            model, inputs(3, dims), dynamo=True, opset_version=20, dynamic_shapes=shapes, verbose=False
        )
        assert program is not None
        program.save(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        fed = {given.name: t.numpy() for given, t in zip(session.get_inputs(), inputs(5, dims), strict=True)}
        (values,) = session.run(None, fed)
    torch.testing.assert_close(torch.from_numpy(values), model(*inputs(5, dims)).detach(), rtol=1e-4, atol=1e-5)


def by_backend(name: str) -> Callable[[str], str | None]:
    """In 1-D, 2-D and 3-D by this backend, as by the reference; else its own reason."""

    def check(row: str) -> str | None:
        refused = {}
        for dims in SIZES:
            image, points = problem(dims)
            try:
                values = read(image, points, row, "zeros", backend=name)
            except ValueError as error:
                refused[dims] = str(error).partition("serve this call: ")[2]
                continue
            torch.testing.assert_close(values, read(image, points, row, "zeros", backend="reference"))
        if len(refused) == len(SIZES):
            return refused[2]
        return "; ".join(f"{dims}-D: {reason}" for dims, reason in refused.items()) or None

    return check


QUICK: dict[str, Callable[[str], str | None]] = {
    "1-D": in_dims(1),
    "2-D": in_dims(2),
    "3-D": in_dims(3),
    **{rule: padded(rule) for rule in ("zeros", "border", "reflection", "symmetric", "mirror", "wrap")},
    "gradients": gradients,
    "double backward": double_backward,
    "jvp": forward_mode,
    "vmap": batched,
    **{f"backend {name}": by_backend(name) for name in ON_CPU},
}
SLOW: dict[str, Callable[[str], str | None]] = {
    "compile": traced(compiled),
    "export": traced(exported),
    "ONNX": traced(in_onnx),
}
