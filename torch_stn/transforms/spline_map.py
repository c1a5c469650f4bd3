"""Splines whose control points differ from sample to sample: solved per sample, evaluated in pieces."""

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms import polyharmonic
from torch_stn.transforms.base import Transform
from torch_stn.transforms.maps import Map
from torch_stn.transforms.pieces import in_pieces

_PIECE = 1 << 22  # kernel values in memory at a time


class SplineMap(Map):
    """The spline that takes output points p_k to source points q_k, each sample with its own p_k: landmarks.

    T(x) = x + sum_k w_k phi(|x - p_k|) + polynomial(x), solved per sample for the displacements q_k - p_k
    (:class:`PolyharmonicSpline`), in float64. Beyond 4 million kernel values the points pass in pieces that are
    computed again in the backward pass, so memory does not grow with points times K.

    Args:
        control_points: p (N or 1, K, d), normalised, in the output.
        sources: q (N or 1, K, d), normalised, in the input.
        order: as in :class:`PolyharmonicSpline`; None is the thin plate.
        regularization: >= 0; above 0 the map passes near the q_k instead of through them.
    Gradients: to both sets of points.
    Raises: ValueError where shapes differ, or, on a CPU, a sample's p_k are too few, equal, or on one line or plane.
    Source: Bookstein 1989; Duchon 1977.

    Example:
        >>> corners = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]])
        >>> SplineMap(corners, corners + 0.25).sources(torch.zeros(1, 1, 2)).tolist()
        [[[0.25, 0.25]]]
    """

    def __init__(
        self, control_points: Tensor, sources: Tensor, *, order: int | None = None, regularization: float = 0.0
    ) -> None:
        for name, points in (("control_points", control_points), ("sources", sources)):
            if _checks.tensor(name, points).dim() != 3 or points.shape[-1] not in (2, 3):
                raise ValueError(f"{name}: wanted (N, K, 2) or (N, K, 3), got {_checks.describe(points)}")
            _checks.floating(name, points)
        if control_points.shape[1:] != sources.shape[1:]:
            wanted = f"(N, {control_points.shape[1]}, {control_points.shape[2]}) as control_points"
            raise ValueError(f"sources: wanted {wanted}, got {_checks.describe(sources)}")
        polyharmonic.check_regularization(regularization)
        _checks.same_device("control_points", control_points, "sources", sources)
        self.batch = _checks.broadcast_batch("control_points", control_points.shape[0], "sources", sources.shape[0])
        self.dims = control_points.shape[-1]
        self.order = 4 - self.dims if order is None else polyharmonic.check_order(order)
        self._dtype = torch.promote_types(torch.promote_types(control_points.dtype, sources.dtype), torch.float32)
        # Apple's GPU has no float64.
        wide = torch.float32 if control_points.device.type == "mps" else torch.float64
        self.centres = control_points.to(wide)
        # A GPU would have to be waited for.
        seen = control_points.device.type == "cpu" and not torch.compiler.is_compiling()
        if seen and not torch._C._functorch.is_functorch_wrapped_tensor(control_points):
            polyharmonic.check_centres("control_points", self.centres.detach(), self.order)
        self.weights = self._solve(sources.to(wide) - self.centres, regularization)

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def device(self) -> torch.device:
        return self.centres.device

    def displacement(self, xy: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            wide = xy.to(self.centres.dtype)
            rows = max(1, _PIECE // max(1, max(self.batch, xy.shape[0]) * self.weights.shape[1]))
            return in_pieces(self._evaluate, wide, rows).to(xy.dtype)

    def _evaluate(self, xy: Tensor) -> Tensor:
        return polyharmonic.terms(xy, self.centres, self.order) @ self.weights

    def _solve(self, moved: Tensor, regularization: float) -> Tensor:
        """The weights of the kernels and of the polynomial, (N, K + Q, d)."""
        with torch.autocast(self.device.type, enabled=False):
            system = polyharmonic.system(self.centres, self.order, regularization)
            rest = moved.new_zeros(moved.shape[0], system.shape[-1] - moved.shape[1], self.dims)
            right = torch.cat([moved, rest], dim=1)
            batch = (self.batch, -1, -1)
            return torch.linalg.solve_ex(system.expand(*batch), right.expand(*batch))[0]


class LandmarkSpline(Transform):
    """A spline of which theta holds both ends: theta (N, 2, K, d) = (output points p_k, source points q_k).

    The map of one theta is a :class:`SplineMap`; the identity has p = q on a regular grid.

    Args: as :class:`PolyharmonicSpline`; ``control_points`` says only where the identity has them, and K.
    Raises: ValueError where the p_k of a sample are equal, or on one line or plane.
    Source: Bookstein 1989.

    Example:
        >>> family = LandmarkSpline(3)
        >>> family.theta_shape
        (2, 9, 2)
        >>> family(family.identity()[None]).sources(torch.ones(1, 1, 2)).tolist()
        [[[1.0, 1.0]]]
    """

    def __init__(
        self,
        control_points: int | tuple[int, ...] | Tensor = 3,
        *,
        dims: int | None = None,
        order: int | None = None,
        span: float = 0.9,
        regularization: float = 0.0,
        perturbation: float = 0.01,
    ) -> None:
        super().__init__()
        centres, self.order = polyharmonic.control_points(control_points, span, dims, order)
        polyharmonic.check_regularization(regularization)
        self.dims = centres.shape[1]
        self.theta_shape = (2, *centres.shape)
        self.regularization = regularization
        self.perturbation = perturbation
        self.identity_theta: Tensor
        self.register_buffer("identity_theta", torch.stack([centres, centres]), persistent=False)

    def extra_repr(self) -> str:
        return f"control_points={self.theta_shape[1]}, order={self.order}, regularization={self.regularization}"

    def identity(self) -> Tensor:
        return self.identity_theta.float()

    def initial(self) -> Tensor:
        noise = torch.randn(self.theta_shape, generator=torch.Generator().manual_seed(0))
        return self.identity() + self.perturbation * noise

    def map(self, theta: Tensor) -> Map:
        return SplineMap(theta[:, 0], theta[:, 1], order=self.order, regularization=self.regularization)

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        return self.map(theta).displacement(xy)
