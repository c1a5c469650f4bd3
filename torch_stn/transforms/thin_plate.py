"""The thin-plate spline on any set of control points."""

import math

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.basis import BasisTransform

_CACHED_SIZES = 8


class ThinPlateSpline(BasisTransform):
    """The smoothest map that takes fixed output points p_k to source points q_k = theta: theta (N, K, 2) or (N, 2 K).

    (x_s, y_s) = sum_k w_k phi(|xy - p_k|) + A (x, y, 1), phi(r) = r^2 log r^2, with (w, A) = L^-1 (q, 0) and
    L = [[Phi + regularization I, P], [P^T, 0]]. L^-1 is a constant, so this is M_theta B with the cardinal functions of
    the spline as B. With ``regularization`` > 0 the spline bends less and passes near the q_k instead of through them.

    Args:
        control_points: n for an n x n grid, (rows, columns), or a tensor (K, 2) of normalised (x, y) in the output.
        span: half width of the regular grid; 0.9 keeps the points a little inside the picture.
        perturbation: standard deviation of the starting theta around the identity: from exactly the identity, text
            rectifiers were
            seen not to learn.
    Raises: ValueError for fewer than 3 points, duplicate points, or points all on one line.
    Source: Bookstein 1989; Jaderberg et al. 2015, section 3.2 (16 points).

    Example:
        >>> spline = ThinPlateSpline()
        >>> spline.num_params
        32
        >>> moved = spline.control_points[None] + 0.1
        >>> spline(moved).sources(torch.zeros(1, 1, 2)).round(decimals=4).tolist()
        [[[0.10000000149011612, 0.10000000149011612]]]
    """

    def __init__(
        self,
        control_points: int | tuple[int, int] | Tensor = 4,
        *,
        span: float = 0.9,
        regularization: float = 0.0,
        perturbation: float = 0.01,
    ) -> None:
        if not 0 <= regularization < math.inf:
            raise ValueError(f"regularization: wanted a number >= 0, got {regularization!r}")
        centres = _control_points(control_points, span)
        solution = _cardinal_solution(centres, regularization)
        super().__init__(centres)
        self.regularization = regularization
        self.perturbation = perturbation
        self._cache: dict[tuple[object, ...], Tensor] = {}
        self.solution: Tensor
        self.register_buffer("solution", solution, persistent=False)

    @property
    def control_points(self) -> Tensor:
        """p_k, (K, 2) float32; also the theta of the identity."""
        return self.identity()

    def extra_repr(self) -> str:
        return f"control_points={self.theta_shape[0]}, regularization={self.regularization}"

    def initial(self) -> Tensor:
        noise = torch.randn(self.theta_shape, generator=torch.Generator().manual_seed(0))
        return self.identity() + self.perturbation * noise

    def functions(self, xy: Tensor) -> Tensor:
        """B(xy): (..., 2) -> (..., K), float64; B_k is 1 at p_k and 0 at the other control points (without
        regularisation).
        """
        return _spline_terms(xy.double(), self.identity_theta) @ self.solution

    def functions_on(
        self, size: tuple[int, ...], align_corners: bool, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        # A constant of (size, control points), computed once; but a compiled graph must not depend on a Python cache.
        if torch.compiler.is_compiling():
            return super().functions_on(size, align_corners, torch.float64, device).to(dtype)
        key = (size, align_corners, dtype, device)
        if key not in self._cache:
            # Made outside inference mode, so that what evaluation kept can serve training.
            with torch.inference_mode(False), torch.no_grad():
                made = super().functions_on(size, align_corners, torch.float64, device).to(dtype)
            if type(made) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(made):
                return made  # of a vmap or a shape run: it must not outlive that
            if len(self._cache) >= _CACHED_SIZES:
                self._cache.pop(next(iter(self._cache)))
            self._cache[key] = made
        return self._cache[key]


def _control_points(given: int | tuple[int, int] | Tensor, span: float) -> Tensor:
    """Control points (K, 2), float64, checked to hold a plane."""
    if isinstance(given, Tensor):
        if given.dim() != 2 or given.shape[1] != 2 or not given.is_floating_point():
            raise ValueError(f"control_points: wanted a float tensor (K, 2), got {_checks.describe(given)}")
        centres = given.detach().double()
    else:
        rows, columns = (given, given) if isinstance(given, int) else given
        if rows < 2 or columns < 2:
            raise ValueError(f"control_points: wanted a grid of at least 2 x 2, got {rows} x {columns}")
        if not span > 0:
            raise ValueError(f"span: wanted a number > 0, got {span!r}")
        y = torch.linspace(-span, span, rows, dtype=torch.float64)
        x = torch.linspace(-span, span, columns, dtype=torch.float64)
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 2)
    if len(centres) < 3:
        raise ValueError(f"control_points: a thin-plate spline needs at least 3 points, got {len(centres)}")
    if not torch.isfinite(centres).all():
        raise ValueError("control_points: every coordinate must be finite")
    extent = (centres - centres.mean(dim=0)).abs().max().item()
    distances = torch.cdist(centres, centres) + torch.eye(len(centres), dtype=torch.float64) * (1 + extent)
    if distances.min() <= 1e-6 * extent:
        first, second = divmod(int(distances.argmin()), len(centres))
        raise ValueError(f"control_points: points {min(first, second)} and {max(first, second)} are the same")
    if torch.linalg.svdvals(centres - centres.mean(dim=0))[-1] <= 1e-6 * extent:
        raise ValueError("control_points: all points lie on one line; a thin-plate spline needs three that do not")
    # Rounded to float32, so that the identity theta, handed over in float32, is exactly the identity.
    return centres.float().double()


def _spline_terms(xy: Tensor, centres: Tensor) -> Tensor:
    """(phi(|xy - p_1|), ..., phi(|xy - p_K|), x, y, 1): (..., K + 3)."""
    squared = (xy[..., None, :] - centres).square().sum(dim=-1)
    positive = squared > 0
    # phi(0) = 0 with slope 0; log of 0 must not even be formed, or its gradient would be NaN.
    phi = torch.where(positive, squared * torch.where(positive, squared, torch.ones_like(squared)).log(), 0.0)
    return torch.cat([phi, xy, torch.ones_like(xy[..., :1])], dim=-1)


def _cardinal_solution(centres: Tensor, regularization: float) -> Tensor:
    """The first K columns of L^-1, (K + 3, K): theta = (q_1, ..., q_K) -> the spline's weights and its plane."""
    count = len(centres)
    terms = _spline_terms(centres, centres)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count] = terms
    system[:count, :count] += regularization * torch.eye(count, dtype=torch.float64)
    system[count:, :count] = terms[:, count:].mT
    return torch.linalg.inv(system)[:, :count].contiguous()
