"""Thin-plate and polyharmonic splines on a constant set of control points, in 2-D and 3-D."""

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms import polyharmonic
from torch_stn.transforms.basis import ConstantBasis


class PolyharmonicSpline(ConstantBasis):
    """Output points p_k go to source points q_k = theta, smoothly between: theta (N, K, d) or (N, d K).

    T(x) = sum_k w_k phi(|x - p_k|) + polynomial(x), with (w, polynomial) = L^-1 (q, 0) and
    L = [[Phi + regularization I, P], [P^T, 0]]. L^-1 is a constant, so this is M_theta B with the cardinal functions of
    the spline as B. With ``regularization`` > 0 the spline bends less and passes near the q_k instead of through them.

    Args:
        control_points: n for an n x n [x n] grid, (rows, columns), (slices, rows, columns), or a tensor (K, d) of
            normalised (x, y[, z]) in the output.
        dims: 2 or 3; None reads it off ``control_points``, and is 2 where that is a number.
        order: phi(r) = r^order where it is odd, r^order log r^2 where it is even; the polynomial has degree
            max(1, order // 2). A higher order is smoother. None is the thin plate, 2 in 2-D and 1 in 3-D.
        span: half width of the regular grid; 0.9 keeps the points a little inside the picture.
        perturbation: standard deviation of the starting theta around the identity: from exactly the identity, text
            rectifiers were seen not to learn.
    Raises: ValueError for too few points, duplicate points, or points that lie on one line or plane.
    Source: Duchon 1977.

    Example:
        >>> spline = PolyharmonicSpline(4, order=3)
        >>> moved = spline.control_points[None] * 0.5
        >>> spline(moved).sources(torch.ones(1, 1, 2)).round(decimals=4).tolist()
        [[[0.5, 0.5]]]
    """

    def __init__(
        self,
        control_points: int | tuple[int, ...] | Tensor = 4,
        *,
        dims: int | None = None,
        order: int | None = 3,
        span: float = 0.9,
        regularization: float = 0.0,
        perturbation: float = 0.01,
    ) -> None:
        polyharmonic.check_regularization(regularization)
        if dims not in (None, 2, 3):
            raise ValueError(f"dims: wanted 2 or 3, got {dims!r}")
        centres, order = polyharmonic.control_points(control_points, span, dims, order)
        inverse = torch.linalg.inv(polyharmonic.system(centres, order, regularization))
        super().__init__(centres)
        self.order = order
        self.regularization = regularization
        self.perturbation = perturbation
        self.solution: Tensor
        # The first K columns of L^-1, (K + Q, K): theta = (q_1, ..., q_K) -> the spline's weights and its polynomial.
        self.register_buffer("solution", inverse[:, : len(centres)].contiguous(), persistent=False)

    @property
    def control_points(self) -> Tensor:
        """p_k, (K, d) float32; also the theta of the identity."""
        return self.identity()

    def extra_repr(self) -> str:
        return f"control_points={self.theta_shape[0]}, order={self.order}, regularization={self.regularization}"

    def initial(self) -> Tensor:
        noise = torch.randn(self.theta_shape, generator=torch.Generator().manual_seed(0))
        return self.identity() + self.perturbation * noise

    def functions(self, xy: Tensor) -> Tensor:
        """B(xy): (..., d) -> (..., K), float64; B_k is 1 at p_k and 0 at the other control points (without
        regularisation).
        """
        return polyharmonic.terms(xy.double(), self.identity_theta, self.order) @ self.solution


class ThinPlateSpline(PolyharmonicSpline):
    """The map of least bending that takes fixed output points p_k to source points q_k = theta: (N, K, d) or (N, d K).

    T(x) = sum_k w_k phi(|x - p_k|) + A (x, 1); phi(r) = r^2 log r^2 in 2-D, -r in 3-D (:class:`PolyharmonicSpline`).

    Args: as :class:`PolyharmonicSpline`, without ``order``.
    Raises: ValueError for fewer than d + 1 points, duplicate points, or points all on one line or plane.
    Source: Bookstein 1989; Jaderberg et al. 2015, section 3.2 (16 points).

    Example:
        >>> spline = ThinPlateSpline()
        >>> spline.num_params
        32
        >>> moved = spline.control_points[None] + 0.1
        >>> spline(moved).sources(torch.zeros(1, 1, 2)).round(decimals=4).tolist()
        [[[0.10000000149011612, 0.10000000149011612]]]
        >>> ThinPlateSpline(3, dims=3).theta_shape
        (27, 3)
    """

    def __init__(
        self,
        control_points: int | tuple[int, ...] | Tensor = 4,
        *,
        dims: int | None = None,
        span: float = 0.9,
        regularization: float = 0.0,
        perturbation: float = 0.01,
    ) -> None:
        super().__init__(
            control_points,
            dims=dims,
            order=None,
            span=span,
            regularization=regularization,
            perturbation=perturbation,
        )
        bending = polyharmonic.bending(self.identity_theta, self.solution, self.order)
        self.bending: Tensor
        self.register_buffer("bending", bending, persistent=False)

    def bending_energy(self, theta: Tensor) -> Tensor:
        """The integral over the whole space of the squared second derivatives of T, summed over its coordinates:
        theta (N, K, d) or (N, d K) -> (N,), normalised units. 0 for affine maps; differentiable.

        Source: Bookstein 1989, equation 4.

        >>> spline = ThinPlateSpline()
        >>> spline.bending_energy(2 * spline.control_points[None] + 0.3).abs() < 1e-6
        tensor([True])
        """
        theta = _checks.theta(theta, self.theta_shape, type(self).__name__)
        # Of the displacement, not of the points: an affine part of 1 would leave only its rounding.
        moved = theta.to(self.bending.dtype) - self.identity_theta
        with torch.autocast(theta.device.type, enabled=False):
            return (moved * (self.bending @ moved)).sum(dim=(1, 2)).to(theta.dtype)
