"""What `sample` and `warp` share: choose a backend, ask for points in its units, read, measure the coverage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import as_list, half_extents, in_units, to_normalized
from torch_stn.sampling.choose import BACKENDS, choose
from torch_stn.sampling.gradients import CoordinateGradient, ExactGradient, as_gradient
from torch_stn.sampling.interpolation import Interpolation, as_interpolation
from torch_stn.sampling.padding import EDGES, as_paddings, folds
from torch_stn.sampling.prefilter import prefilter
from torch_stn.sampling.problem import Problem, problem_of

WHOLE = (torch.float32, torch.float64)  # what every backend reads; others are converted, unless it READS them
FAR = 2.0**30  # stands for all that lies farther out: outside every image in either unit, and it fits an int32
PointsIn = Callable[[str], Tensor]  # "pixel" | "normalized" -> (N, *S, d)
Reader = Callable[[Tensor, Tensor, Interpolation, Problem], Tensor]  # a backend's `sample`, or one of its form


@dataclass(slots=True)  # not frozen, which would triple the time that one takes to make
class MapPoints:
    """The points of a lowered map, a PointsIn; backends that read through the map itself never ask for them."""

    form: lowered.Lowered
    size: tuple[int, ...]  # of the output
    points_of: Callable[[lowered.Lowered, str], Tensor]  # a form of the same kind, units -> (N, *size, d)

    def __call__(self, units: str) -> Tensor:
        return self.points_of(self.form, units)


def check_options(
    mode: str | Interpolation, padding_mode: str | Sequence[str], edge: str, dims: int, backend: str | None
) -> None:
    """Raise now for what a later call of `sample` would refuse."""
    as_interpolation(mode)
    as_paddings(padding_mode, dims)
    _checks.one_of("edge", edge, EDGES)
    if backend is not None:
        _checks.one_of("backend", backend, BACKENDS)


def sampling_dtype(image: Tensor) -> torch.dtype:
    """The dtype of coordinates and sums: float64 for a float64 image, else float32."""
    return torch.float64 if image.dtype == torch.float64 else torch.float32


def read(
    image: Tensor,
    points_in: PointsIn,
    units: str,  # in which the points are exact
    *,
    out_size: Sequence[int] | None,  # where the points are one a pixel of an output
    mode: str | Interpolation,
    padding_mode: str | Sequence[str],
    fill: float,
    edge: str,
    align_corners: bool,
    return_mask: bool,
    deterministic: bool,
    backend: str | None,
    coordinate_gradient: str | CoordinateGradient = "exact",
) -> Tensor | tuple[Tensor, Tensor]:
    """(N, C, *S) in the image's dtype; with ``return_mask`` also the coverage (N, 1, *S)."""
    in_size = tuple(image.shape[2:])
    interpolation = as_interpolation(mode).fitted(in_size, out_size)
    problem = problem_of(
        image,
        in_size,
        interpolation,
        padding_mode=padding_mode,
        fill=fill,
        edge=edge,
        align_corners=align_corners,
        units=units,
        image_grad=image.requires_grad,
        deterministic=deterministic,
        mode=mode,
    )
    pixels = image
    if image.is_floating_point() and image.dtype not in WHOLE:
        direct = interpolation.response is None and coordinate_gradient == "exact"
        if not direct or image.dtype not in getattr(choose(problem, backend), "READS", ()):
            pixels = image.float()

    def at(picture: Tensor, where: PointsIn, problem: Problem) -> Tensor:
        coefficients, filtered, margin = prefilter(picture, interpolation, problem)
        values = _served(coefficients, where, interpolation, filtered, margin, backend)
        inside = extended(where, problem.in_size, padding_mode, edge)
        return values if inside is None else torch.where(inside, values, values.new_full((), problem.fill))

    slopes = as_gradient(coordinate_gradient)
    if not image.is_floating_point():
        slopes = ExactGradient()
    values = slopes.read(at, pixels, points_in, problem).to(image.dtype)
    if not return_mask:
        return values
    dtype = image.dtype if image.is_floating_point() else sampling_dtype(image)
    if edge == "extend" and "zeros" in as_paddings(padding_mode, problem.dims):
        mask = _inside(points_in("pixel"), list(in_size[::-1]))
    else:
        covered = replace(problem, padding=("zeros",) * problem.dims, fill=0.0, image_grad=False, dtype=dtype)
        ones = torch.ones(1, 1, *in_size, dtype=sampling_dtype(image), device=image.device)
        mask = _served(ones, points_in, interpolation, covered, None, None).clamp(0, 1)
    return values, mask.to(dtype).expand(values.shape[0], *[-1] * (mask.dim() - 1))


def extended(
    points_in: PointsIn, in_size: tuple[int, ...], padding_mode: str | Sequence[str], edge: str
) -> Tensor | None:
    """Which points lie on the image, (N, 1, *S), where edge="extend" has the others read the fill alone; else None."""
    padding = as_paddings(padding_mode, len(in_size))
    if edge != "extend" or "zeros" not in padding:
        return None
    pairs = zip(in_size[::-1], padding, strict=True)
    return _inside(points_in("pixel"), [n if rule == "zeros" else None for n, rule in pairs])


def _served(
    image: Tensor,
    points_in: PointsIn,
    interpolation: Interpolation,
    problem: Problem,
    margin: Tensor | None,  # pixels that the prefilter added before x, y[, z]
    backend: str | None,
) -> Tensor:  # (N, C, *S)
    """The chosen backend's values."""
    chosen = choose(problem, backend)
    if hasattr(chosen, "reader") and margin is None and image.numel() > 0:
        return _fused(image, points_in, interpolation, problem, chosen)
    points = shifted(points_in, chosen.UNITS, problem, margin)
    try:
        values = read_batches(image, as_list(points), interpolation, problem, chosen.sample, chosen.UNITS)
    except NotImplementedError:
        # torch's word for "no forward derivative", said before anything is computed; plain PyTorch has them all.
        if backend is not None or chosen is BACKENDS["reference"]:
            raise
        return _served(image, points_in, interpolation, problem, margin, "reference")
    return values.reshape(*values.shape[:2], *points.shape[1:-1])


def _fused(
    image: Tensor, points_in: PointsIn, interpolation: Interpolation, problem: Problem, backend: ModuleType
) -> Tensor:  # (N, C, *S)
    """By a backend that takes the map itself, or points of any shape, value and batch."""

    def plain(image: Tensor, source: lowered.Lowered | Tensor) -> Tensor:
        if isinstance(source, Tensor):
            points = in_units(source, units, "pixel", problem.in_size, align_corners=problem.align_corners)
        else:
            assert isinstance(points_in, MapPoints)
            points = points_in.points_of(source, "pixel")
        return by_reference(image, points, interpolation, problem)

    if isinstance(points_in, MapPoints):
        if lowered.batch(points_in.form) == 0:
            return plain(image, points_in.form)
        return backend.reader(points_in.size, problem, plain)(image, points_in.form)
    # As they came, where the backend takes them so: a pass over them less.
    units = problem.units if problem.units in getattr(backend, "GIVEN_UNITS", ()) else backend.UNITS
    points = points_in(units)
    return backend.sample(image, points, interpolation, problem, plain) if points.numel() else plain(image, points)


def by_reference(image: Tensor, points: Tensor, interpolation: Interpolation, problem: Problem) -> Tensor:
    """In plain operators, which have derivatives of every order and kind: pixel points (N, *S, d) -> (N, C, *S)."""
    pixels = image.to(sampling_dtype(image))
    values = read_batches(pixels, as_list(points), interpolation, problem, BACKENDS["reference"].sample)
    return values.reshape(*values.shape[:2], *points.shape[1:-1]).to(image.dtype)


def shifted(points_in: PointsIn, units: str, problem: Problem, margin: Tensor | None) -> Tensor:
    """The points in a backend's units, on the image that the prefilter made."""
    if margin is None:
        return points_in(units)
    points = points_in("pixel") + margin
    if units == "pixel":
        return points
    return to_normalized(points, problem.in_size, align_corners=problem.align_corners)


def _inside(points: Tensor, sizes: list[int | None]) -> Tensor:
    """Whether pixel points lie on the image's pixels, edges included: (N, 1, *S); None asks nothing of an axis."""
    inside = torch.isfinite(points).all(dim=-1)
    for axis, n in enumerate(sizes):
        if n is not None:
            inside = inside & (points[..., axis] >= -0.5) & (points[..., axis] <= n - 0.5)
    return inside[:, None]


def read_batches(
    image: Tensor,
    points: Tensor,
    interpolation: Interpolation,
    problem: Problem,
    reader: Reader,
    units: str = "pixel",  # of the points, as the reader wants them
) -> Tensor:
    """(n, C, *in), (m, M, d) -> (max(n, m), C, M); points that are not finite are taken out before the backend sees
    them, and none that it sees lies beyond FAR.
    """
    n, m = image.shape[0], points.shape[0]
    if image.numel() == 0 or points.numel() == 0:
        # Nothing to read; still part of the graph, so that a backward pass through it works.
        nothing = image.flatten()[:0].sum() + points.flatten()[:0].sum()
        return nothing.expand(0 if 0 in (n, m) else max(n, m), image.shape[1], points.shape[1])
    outside = None
    if not surely_near(points, problem, units):
        if problem.fill != 0.0 or set(problem.padding) != {"zeros"}:
            outside = ~finite(points, problem, units)
        # Far outside: under zero padding that alone gives the value 0 and the gradient 0.
        points = brought_near(points)
    # A shared image, or shared points, take the other side's batch into their own axis.
    if n == m:
        values = reader(image, points, interpolation, problem)
    elif n == 1:
        folded = reader(image, points.reshape(1, -1, problem.dims), interpolation, problem)
        values = folded[0].unflatten(1, (m, -1)).transpose(0, 1)
    else:
        values = reader(image.flatten(0, 1)[None], points, interpolation, problem)[0].unflatten(0, image.shape[:2])
    return values if outside is None else torch.where(outside[:, None], values.new_full((), problem.fill), values)


def finite(points: Tensor, problem: Problem, units: str) -> Tensor:
    """Which points (m, M, d) have a place in the plane: (m, M). Where the image is folded or repeated, none farther out
    than FAR pixels has: rounding alone would say where in the pattern it lies.
    """
    limit = FAR if folds(problem.padding) else torch.finfo(points.dtype).max
    return (points.abs() <= limit / _pixels_per_unit(problem, units)).all(dim=-1)


def _pixels_per_unit(problem: Problem, units: str) -> float:
    half = max(half_extents(problem.in_size, problem.align_corners)) if units == "normalized" else 1.0
    return max(half, 1.0)


def brought_near(points: Tensor) -> Tensor:
    """Within FAR, where every backend can count."""
    return points.nan_to_num(nan=FAR, posinf=FAR, neginf=-FAR).clamp(-FAR, FAR)


def surely_near(points: Tensor, problem: Problem, units: str) -> bool:
    """Whether a look at the values is cheap and shows that no point is NaN or FAR out: saves two passes on a CPU.

    A GPU would have to be waited for, and a compiled graph, a trace or a vmap has no values to look at.
    """
    if torch.compiler.is_compiling() or torch.jit._trace.is_tracing() or points.device.type != "cpu":
        return False
    try:
        low, high = torch.aminmax(points.detach())
        limit = FAR / _pixels_per_unit(problem, units)
        return low.item() >= -limit and high.item() <= limit  # NaN compares false
    except RuntimeError:
        return False
