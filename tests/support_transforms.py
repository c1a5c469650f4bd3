"""What every family can do, shown by doing it: the columns of the second table of docs/support.md.

As in tests/support.py: None after the assertions held, a tick; or, after the refusal was seen, its reason.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cases import ON_CPU, LearnedBasis, draw, inner_points, pictures, thetas
from torch import Tensor, nn
from torch.autograd import gradgradcheck
from torch.func import jvp, vmap

from torch_stn import (
    CPAB,
    Affine,
    Attention,
    Basis,
    BoundedAffine,
    DisplacementField,
    ExponentialAffine,
    FreeFormDeformation,
    LandmarkSpline,
    LogPolar,
    Map,
    Polar,
    PolyharmonicSpline,
    Projective,
    Rigid,
    Sequence,
    Similarity,
    ThinPlateSpline,
    Transform,
    Translation,
    VelocityField,
    warp,
)
from torch_stn.transforms.velocity import VelocityMap

Make = Callable[[int], Transform]
SIZES = {2: (6, 7), 3: (4, 5, 4)}


def learned(dims: int) -> Transform:
    """A learned B; the module of cases.py is 2-D."""
    return Basis(LearnedBasis(), torch.eye(5, 2))


ROWS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "translation": (Translation, (2, 3)),
    "attention": (Attention, (2, 3)),
    "rigid": (Rigid, (2, 3)),
    "rigid, quaternion": (lambda dims: Rigid(dims, rotation="quaternion"), (3,)),
    "similarity": (Similarity, (2, 3)),
    "affine": (Affine, (2, 3)),
    "affine, bounded": (BoundedAffine, (2, 3)),
    "affine, exponential": (ExponentialAffine, (2, 3)),
    "projective": (Projective, (2, 3)),
    "polar": (lambda dims: Polar(), (2,)),
    "log-polar": (lambda dims: LogPolar(), (2,)),
    "thin-plate spline": (lambda dims: ThinPlateSpline(3, dims=dims), (2, 3)),
    "polyharmonic spline": (lambda dims: PolyharmonicSpline(3, dims=dims, order=2), (2, 3)),
    "spline of landmarks": (lambda dims: LandmarkSpline((2, 3, 2)[:dims]), (2, 3)),
    "free-form deformation": (lambda dims: FreeFormDeformation((4, 5, 4)[:dims], levels=2), (2, 3)),
    "displacement field": (lambda dims: DisplacementField((4, 5, 4)[:dims]), (2, 3)),
    "velocity field": (lambda dims: VelocityField((4, 5, 4)[:dims]), (2, 3)),
    "CPAB": (lambda dims: CPAB((2, 1, 1)[:dims], steps=2), (2, 3)),
    "basis, learned": (learned, (2,)),
    "sequence": (lambda dims: Sequence(Affine(dims), ThinPlateSpline(2, dims=dims)), (2, 3)),
}


def map_of(row: str, dims: int, n: int = 2) -> tuple[Transform, Tensor, Map]:
    """A family, gentle thetas, and their map, float64."""
    transform = ROWS[row][0](dims).double()
    theta = thetas(transform, n)
    return transform, theta, transform(theta)


def everywhere(check: Callable[[str, int], None]) -> Callable[[str], str | None]:
    """A check in every dimension that the row has."""

    def run(row: str) -> None:
        for dims in ROWS[row][1]:
            check(row, dims)

    return run


def in_dims(dims: int) -> Callable[[str], str | None]:
    """The identity reads every pixel exactly; what has none maps points of its own."""

    def check(row: str) -> str | None:
        if dims not in ROWS[row][1]:
            return f"{'3' if dims == 2 else '2'}-D only"
        transform, _, map = map_of(row, dims)
        if not transform.has_identity:
            assert torch.isfinite(map.sources(inner_points(1, 20, dims))).any()
            return None
        image = pictures(1, SIZES[dims])
        still = transform(transform.identity().double()[None])
        assert torch.equal(warp(image, still, backend="reference"), image)
        return None

    return check


def inside(row: str, dims: int) -> Tensor:
    """Points that stay in sight under every gentle map; of polar, away from its centre."""
    points = inner_points(2, 30, dims, reach=0.6)
    if row in ("polar", "log-polar"):
        points = torch.stack([0.9 * points[..., 0], 0.5 + 0.5 * points[..., 1]], dim=-1)
    return points


def inverts(row: str, dims: int) -> None:
    _, _, map = map_of(row, dims)
    xy = inside(row, dims)
    inverse = map.inverse(exact=True) if isinstance(map, VelocityMap) else map.inverse()
    torch.testing.assert_close(inverse.sources(map.sources(xy)), xy, rtol=0, atol=1e-6)


def moves_points(row: str, dims: int) -> None:
    _, _, map = map_of(row, dims)
    xy = inside(row, dims)
    torch.testing.assert_close(map.points(map.sources(xy)), xy, rtol=0, atol=1e-6)


def bounds_boxes(row: str, dims: int) -> None:
    """No point of a box leaves its mapped box, and the box is not larger than need be."""
    _, _, map = map_of(row, dims)
    low, high = ([-0.3, -0.2, -0.25][:dims], [0.35, 0.4, 0.3][:dims])
    if row in ("polar", "log-polar"):
        low, high = [0.2, 0.15], [0.5, 0.45]
    box = torch.tensor([[low + high]], dtype=torch.float64)
    got = map.boxes(box)[:, 0]
    corners = torch.tensor([low, high], dtype=torch.float64)
    points = map.points(corners[0] + (corners[1] - corners[0]) * _surface(dims))
    assert (points >= got[:, None, :dims] - 2e-3).all()
    assert (points <= got[:, None, dims:] + 2e-3).all()
    tight = torch.cat([points.amin(1), points.amax(1)], dim=-1)
    torch.testing.assert_close(got, tight, rtol=0, atol=0.03)


def _surface(dims: int) -> Tensor:
    """Points (1, M, d) of the unit box's surface, corners among them."""
    points = draw(1, 400, dims, seed=4)
    axis = torch.arange(400) % dims
    points[0, torch.arange(400), axis] = points[0, torch.arange(400), axis].round()
    ends = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * dims)
    return torch.cat([points, ends[None]], dim=1)


def double_backward(row: str, dims: int) -> None:
    transform, theta, _ = map_of(row, dims, 1)
    xy = inside(row, dims)[:1, :3]
    assert gradgradcheck(lambda t: transform(t).sources(xy), (theta.requires_grad_(),), fast_mode=True)


def forward_mode(row: str, dims: int) -> None:
    transform, theta, _ = map_of(row, dims)
    xy, along = inside(row, dims), draw(*theta.shape, seed=7)
    _, slope = jvp(lambda t: transform(t).sources(xy), (theta,), (along,))
    step = 1e-6
    ahead, behind = (transform(theta + s * along).sources(xy) for s in (step, -step))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=0, atol=1e-6)


def batched(row: str, dims: int) -> None:
    transform, theta, map = map_of(row, dims)
    image = pictures(2, SIZES[dims])
    one = vmap(lambda u, t: warp(u[None], transform(t[None]))[0])(image, theta)
    torch.testing.assert_close(one, warp(image, map))


class Warp(nn.Module):
    """warp by a family, as a user's model would have it."""

    def __init__(self, row: str, make: Make | None = None) -> None:
        super().__init__()
        usual, dims = ROWS[row]
        self.dims = dims[0]
        self.family = (make or usual)(self.dims)

    def forward(self, image: Tensor, theta: Tensor) -> Tensor:
        return warp(image, self.family(theta), padding_mode="border")

    def inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """An image batch and gentle thetas, float32."""
        return pictures(batch, SIZES[self.dims], dtype=torch.float32), thetas(self.family, batch).float()


def compiled(row: str) -> None:
    """One graph for every batch size."""
    torch.compiler.reset()
    model = Warp(row)
    graphs = []

    def backend(graph: torch.fx.GraphModule, example: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    quick = torch.compile(model, fullgraph=True, backend=backend, dynamic=True)
    for batch in (11, 3, 13):  # the first unlike every other size: torch takes equal sizes for one
        torch.testing.assert_close(quick(*model.inputs(batch)), model(*model.inputs(batch)), rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1, f"{len(graphs)} graphs for three batch sizes"


def exported(row: str) -> None:
    model = Warp(row)
    n = torch.export.Dim("n", min=2, max=64)
    program = torch.export.export(model, model.inputs(3), dynamic_shapes=({0: n}, {0: n}))
    torch.testing.assert_close(program.module()(*model.inputs(5)), model(*model.inputs(5)), rtol=1e-4, atol=1e-4)


def in_onnx(row: str) -> str | None:
    """Opset 20, any batch size, the numbers of onnxruntime."""
    import onnxruntime

    if row == "spline of landmarks":
        return _refusal(row)
    # The exporter takes a second for each sub-step of a flow and more: a few of them show as much as forty (26 s in all).
    model = Warp(row, (lambda dims: CPAB((2, 1), steps=1, crossings=2)) if row == "CPAB" else None)
    n = torch.export.Dim("n", min=2, max=64)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "warp.onnx")
        shapes = {"image": {0: n}, "theta": {0: n}}
        program = torch.onnx.export(
            model, model.inputs(3), dynamo=True, opset_version=20, dynamic_shapes=shapes, verbose=False
        )
        assert program is not None
        program.save(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = {each.name: t.numpy() for each, t in zip(session.get_inputs(), model.inputs(5), strict=True)}
        (values,) = session.run(None, given)
    torch.testing.assert_close(torch.from_numpy(values), model(*model.inputs(5)).detach(), rtol=1e-4, atol=1e-4)
    return None


def _refusal(row: str) -> str:
    """Splines through each sample's own landmarks solve a system for each, which ONNX has no operator for."""
    model = Warp(row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception, match="linalg"):
            torch.onnx.export(model, model.inputs(3), dynamo=True, opset_version=20, verbose=False)
    return "a linear system per sample: ONNX has no operator that solves it"


def by_backend(name: str) -> Callable[[str], str | None]:
    """warp in every dimension by this backend, as by the reference."""

    def check(row: str) -> str | None:
        for dims in ROWS[row][1]:
            _, _, map = map_of(row, dims)
            image = pictures(2, SIZES[dims])
            try:
                values = warp(image, map, backend=name)
            except ValueError as error:
                return str(error).partition("serve this call: ")[2]
            torch.testing.assert_close(values, warp(image, map, backend="reference"))
        return None

    return check


QUICK: dict[str, Callable[[str], str | None]] = {
    "2-D": in_dims(2),
    "3-D": in_dims(3),
    "inverse": everywhere(inverts),
    "points": everywhere(moves_points),
    "boxes": lambda row: bounds_boxes(row, ROWS[row][1][0]),
    "double backward": everywhere(double_backward),
    "jvp": everywhere(forward_mode),
    "vmap": everywhere(batched),
    **{f"backend {name}": by_backend(name) for name in ON_CPU if name != "reference"},
}
SLOW: dict[str, Callable[[str], str | None]] = {"compile": compiled, "export": exported, "ONNX": in_onnx}
