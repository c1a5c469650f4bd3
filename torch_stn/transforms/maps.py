"""Map: a family at one theta. It says where every output point reads in the image, and how points and boxes move
with the picture.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import as_list, base_grid, half_extents
from torch_stn.transforms.boxes import map_boxes

if TYPE_CHECKING:
    from torch_stn.transforms.base import Transform


class Map(ABC):
    """Output -> source, as in the paper: ``sources(xy)`` = T_theta(xy), in normalised coordinates.

    A subclass gives ``displacement``; everything else follows. Inverses and compositions are Maps, not thetas (the
    inverse of a thin-plate spline is no thin-plate spline).
    """

    dims: int  # 2 or 3
    batch: int  # N; 1 serves any batch

    @abstractmethod
    def displacement(self, xy: Tensor) -> Tensor:
        """T(xy) - xy for points (N or 1, M, d): (N, M, d). Not finite = outside every image."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """float32 or float64: the dtype of the coordinates."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where theta lives."""

    def lower(self, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        """The form that samplers and kernels read, for an output of ``size``."""
        xy = base_grid(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        return lowered.Field(self.displacement(xy.flatten(0, -2)[None]).unflatten(1, tuple(size)))

    def sources(self, xy: Tensor) -> Tensor:
        """Where the output points ``xy`` (N or 1, *S, d) read in the input: T_theta(xy), (N, *S, d), normalised."""
        _checks.points(xy, self.dims, "xy")
        _checks.broadcast_batch("theta", self.batch, "xy", xy.shape[0])
        flat = as_list(xy.to(self.dtype))
        moved = flat + self.displacement(flat)
        return moved.reshape(moved.shape[0], *xy.shape[1:])

    def grid(self, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
        """Normalised sampling points of every output pixel, (N, *size, d): an export, as F.grid_sample reads it."""
        size = _checks.size(size, self.dims, None)
        xy = base_grid(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        return self.sources(xy[None])

    def points(self, xy: Tensor) -> Tensor:
        """Where points ``xy`` of the *input* picture land in the output: the way the picture moves. (N or 1, *S, d),
        normalised.
        """
        return self.inverse().sources(xy)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (N or 1, B, 2d) of the input picture -> the tight axis-aligned boxes around what they hold in the
        output, (N, B, 2d), normalised.

        (x_min, y_min[, z_min], x_max, y_max[, z_max]). Exact for affine maps; for others the whole outline (in 3-D the
        surface) is searched, see torch_stn.transforms.boxes, which also says what an empty box becomes.
        """
        return map_boxes(self.points, boxes, self.dims)

    def jacobian(self, xy: Tensor) -> Tensor:
        """dT_i / dxy_j of :meth:`sources` at points ``xy`` (N or 1, *S, d): (N, *S, d, d), normalised over normalised.

        Closed form for matrices, else one reverse-mode pass per axis. Its determinant is the local change of area:
        below 1 zooms in, below 0 is a fold. NaN where T leads nowhere. Differentiable, in theta and in ``xy``.
        """
        _checks.points(xy, self.dims, "xy")
        _checks.broadcast_batch("theta", self.batch, "xy", xy.shape[0])
        flat = as_list(xy.to(self.dtype))
        slopes = self.displacement_jacobian(flat)
        slopes = slopes + torch.eye(self.dims, dtype=slopes.dtype, device=slopes.device)
        known = torch.isfinite(flat).all(dim=-1)[..., None, None]
        slopes = torch.where(known, slopes, torch.full_like(slopes, float("nan")))
        return slopes.reshape(slopes.shape[0], *xy.shape[1:], self.dims)

    def displacement_jacobian(self, xy: Tensor) -> Tensor:
        """d(T(xy) - xy) / dxy for points (N or 1, M, d): (N, M, d, d); exactly 0 at the identity."""
        moved, slopes = pointwise_jacobian(self.displacement, self._expand(xy))
        finite = torch.isfinite(moved).all(dim=-1)[..., None, None]
        return torch.where(finite, slopes, torch.full_like(slopes, float("nan")))

    def _expand(self, xy: Tensor) -> Tensor:
        """Points (N or 1, M, d), one list for each sample."""
        return xy.expand(_checks.broadcast_batch("theta", self.batch, "xy", xy.shape[0]), -1, -1)

    def displacement_field(
        self,
        size: Sequence[int],
        *,
        in_size: Sequence[int] | None = None,
        units: str = "normalized",
        align_corners: bool = False,
    ) -> Tensor:
        """T(xy) - xy at the centre of every pixel of an output of ``size``: (N, *size, d), as other tools store fields.

        Args:
            units: "normalized", or "pixel": pixels of an input of ``in_size`` (None: ``size``), which is what
                ``sample(..., units="displacement")`` reads.
        """
        size = _checks.size(size, self.dims, None)
        _checks.one_of("units", units, ("normalized", "pixel"))
        form = self.lower(size, align_corners=align_corners)
        xy = base_grid(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        moved = lowered.displacement(form, xy)
        if units == "normalized":
            return moved
        half = half_extents(_checks.size(in_size, self.dims, size), align_corners)
        return moved * torch.stack([torch.full_like(moved[..., 0], pixels) for pixels in half], dim=-1)

    def inverse(self) -> "Map":
        """The map that undoes this one: ``m.inverse().sources(m.sources(xy)) = xy``."""
        return InverseMap(self)

    def then(self, other: "Map") -> "Map":
        """First this map, then ``other``, as the picture moves.

        ``warp(image, a.then(b))`` is ``warp(warp(image, a), b)``, interpolated once; so
        ``a.then(b).sources(xy) = a.sources(b.sources(xy))``.
        """
        return ComposedMap(self, other)


class ThetaMap(Map):
    """A family at one theta, for families without a closed form of their own."""

    def __init__(self, transform: "Transform", theta: Tensor) -> None:
        self.transform = transform
        self.theta = theta
        self.dims = transform.dims
        self.batch = theta.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.theta.dtype

    @property
    def device(self) -> torch.device:
        return self.theta.device

    def displacement(self, xy: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):  # coordinates never in half precision
            return self.transform.displacement(self.theta, xy)

    def lower(self, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        with torch.autocast(self.device.type, enabled=False):
            return self.transform.lower(self.theta, size, align_corners=align_corners)


class ComposedMap(Map):
    """``first`` then ``second`` as the picture moves; an output point passes ``second``, then ``first``."""

    def __init__(self, first: Map, second: Map) -> None:
        if not isinstance(second, Map):
            raise TypeError(f"then: wanted a Map, a family at a theta, got {type(second).__name__}")
        if first.dims != second.dims:
            raise ValueError(f"then: wanted a {first.dims}-D map, got a {second.dims}-D one")
        self.first = first
        self.second = second
        self.dims = first.dims
        self.batch = _checks.broadcast_batch("first", first.batch, "second", second.batch)

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.first.dtype, self.second.dtype)

    @property
    def device(self) -> torch.device:
        return self.second.device

    def displacement(self, xy: Tensor) -> Tensor:
        return self._add_first(xy, self.second.displacement(xy))

    def lower(self, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        xy = base_grid(size, align_corners=align_corners, dtype=self.dtype, device=self.device)
        # The second map by its own lowered form: a spline then brings its constant basis instead of making it anew.
        inner = lowered.displacement(self.second.lower(size, align_corners=align_corners), xy)
        return lowered.Field(self._add_first(xy.flatten(0, -2)[None], inner.flatten(1, -2)).unflatten(1, tuple(size)))

    def _add_first(self, xy: Tensor, inner: Tensor) -> Tensor:
        """The displacement of both, given that of the second map."""
        # A point that is outside already must not meet first's theta: 0 * inf would make its gradient NaN.
        finite = torch.isfinite(inner).all(dim=-1, keepdim=True)
        inner = torch.where(finite, inner, torch.zeros_like(inner))
        total = inner + self.first.displacement(xy + inner)
        return torch.where(finite, total, torch.full_like(total, float("inf")))

    def points(self, xy: Tensor) -> Tensor:
        # Each in its own way, which may be more exact than by its inverse.
        return self.second.points(self.first.points(xy))

    def inverse(self) -> Map:
        return self.second.inverse().then(self.first.inverse())

    def then(self, other: Map) -> Map:
        # Neighbouring matrices of a chain become one, whichever way the chain was put together.
        return self.first.then(self.second.then(other))


class InverseMap(Map):
    """The inverse of a map without a closed form, by Newton iteration, with the gradient of the implicit function.

    Solves T(s) = p for s. Gradients to p and theta are exact to first order (J^-1, -J^-1 dT/dtheta), whatever
    the number of iterations. A point that did not converge (a fold, a point that T never reaches) becomes NaN, which
    samplers read as outside.
    """

    iterations = 50
    max_step = 0.25  # normalised units; keeps Newton from jumping over a fold

    def __init__(self, forward_map: Map) -> None:
        self.forward_map = forward_map
        self.dims = forward_map.dims
        self.batch = forward_map.batch

    @property
    def dtype(self) -> torch.dtype:
        return self.forward_map.dtype

    @property
    def device(self) -> torch.device:
        return self.forward_map.device

    def displacement(self, xy: Tensor) -> Tensor:
        xy = self._expand(xy)
        with torch.autocast(xy.device.type, enabled=False):
            solution, jacobian, converged = self._solve(xy.detach())
            residual = solution + self.forward_map.displacement(solution) - xy
            # One more Newton step, the only differentiable one: it carries the implicit gradient.
            solution = solution - torch.linalg.solve_ex(jacobian, residual[..., None])[0][..., 0]
        return torch.where(converged, solution - xy, torch.full_like(xy, float("nan")))

    def inverse(self) -> Map:
        return self.forward_map

    def displacement_jacobian(self, xy: Tensor) -> Tensor:
        xy = self._expand(xy)
        identity = torch.eye(self.dims, dtype=xy.dtype, device=xy.device)
        forward = self.forward_map.displacement_jacobian(xy + self.displacement(xy)) + identity
        return torch.linalg.inv_ex(forward)[0] - identity

    def _solve(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Newton from the target itself: the solution, dT/ds there, and which points converged; nothing of it has a
        gradient.
        """
        if torch.compiler.is_exporting():
            raise NotImplementedError(
                "inverse: this map has none in closed form, and the iteration with derivatives that finds it cannot be "
                "exported; export the map itself, or hand its displacement_field in"
            )
        tolerance = 64 * torch.finfo(target.dtype).eps
        solution = target
        for _ in range(self.iterations):
            residual, jacobian = self._linearise(solution, target)
            if holds(residual.abs().amax(dim=-1) <= tolerance):
                break
            step = torch.linalg.solve_ex(jacobian, residual[..., None])[0][..., 0]
            solution = solution - step.nan_to_num(0.0).clamp(-self.max_step, self.max_step)
        residual, jacobian = self._linearise(solution, target)
        converged = (residual.abs().amax(dim=-1, keepdim=True) <= 16 * tolerance) & torch.isfinite(solution)
        identity = torch.eye(self.dims, dtype=target.dtype, device=target.device)
        return solution, torch.where(converged[..., :1, None], jacobian, identity), converged

    def _linearise(self, at: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """T(at) - target and the Jacobian dT/dxy (N, M, d, d), both without gradients."""
        moved, slopes = pointwise_jacobian(self.forward_map.displacement, at.detach().clone())
        identity = torch.eye(self.dims, dtype=at.dtype, device=at.device)
        return at + moved.detach() - target, slopes.detach() + identity


def holds(conditions: Tensor) -> bool:
    """Whether all conditions hold; under vmap nobody can say, and every iteration runs."""
    try:
        return bool(conditions.all())
    except RuntimeError:
        return False


def pointwise_jacobian(function: Callable[[Tensor], Tensor], xy: Tensor) -> tuple[Tensor, Tensor]:
    """The values (N, M, d) of a function of each point alone, and its Jacobian (N, M, d, d), by d backward passes."""
    # torch.func's reverse mode also works in inference mode, and through every op that has a gradient.
    values, pull, *_ = torch.func.vjp(function, xy)
    identity = torch.eye(xy.shape[-1], dtype=xy.dtype, device=xy.device)
    return values, torch.stack([pull(row.expand_as(values))[0] for row in identity], dim=-2)
