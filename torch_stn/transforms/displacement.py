"""Dense displacement fields: a vector at every node of a lattice, linear between them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import half_extents
from torch_stn.transforms import lattice
from torch_stn.transforms.base import Transform
from torch_stn.transforms.maps import InverseMap, Map, holds


class FieldMap(Map):
    """The map of a displacement field (N, *size, d), normalised units: T(x) = x + u(x).

    ``u`` is linear between the nodes and constant beyond the border; the nodes lie at the pixel centres of an image of
    the field's size (``align_corners`` as there). Read in any units but normalised by :class:`DisplacementField`.
    """

    def __init__(self, field: Tensor, *, align_corners: bool = False) -> None:
        self.field = check_field("field", field)
        self.align_corners = align_corners
        self.dims = field.shape[-1]
        self.batch = field.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.field.dtype

    @property
    def device(self) -> torch.device:
        return self.field.device

    def displacement(self, xy: Tensor) -> Tensor:
        return lattice.read(self.field, xy, align_corners=self.align_corners)

    def displacement_jacobian(self, xy: Tensor) -> Tensor:
        return lattice.read_with_slopes(self.field, xy, align_corners=self.align_corners)[1]

    def lower(self, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        field = lattice.resample(self.field, size, align_corners=self.align_corners, grid_corners=align_corners)
        return lowered.Field(field)

    def inverse(self) -> Map:
        """By fixed-point and Newton iteration; NaN where no unmirrored solution is found (:class:`FieldInverse`)."""
        return FieldInverse(self)


class FieldInverse(InverseMap):
    """The inverse of a displacement field, by fixed-point and Newton iteration with the slopes of the lattice.

    Where the field shrinks no distance below half (Lipschitz constant 1/2), the fixed point alone converges; Newton's
    steps are then exact, as the field is almost linear within a cell. All points go on until the last has converged.
    """

    forward_map: FieldMap

    fixed_point_steps = 3

    def _solve(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Solves for the displacement of the inverse, w = s - p: w + u(p + w) = 0, which keeps its last bits.
        field, corners = self.forward_map.field.detach(), self.forward_map.align_corners
        field = field.expand(target.shape[0], *field.shape[1:])
        moved = torch.zeros_like(target)
        for _ in range(self.fixed_point_steps):
            moved = -lattice.read(field, target + moved, align_corners=corners)
        return self._newton(field, target, moved)

    def _newton(self, field: Tensor, target: Tensor, moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        corners, eps = self.forward_map.align_corners, torch.finfo(target.dtype).eps
        eye = torch.eye(self.dims, dtype=target.dtype, device=target.device)
        for _ in range(self.iterations):
            read, slopes = lattice.read_with_slopes(field, target + moved, align_corners=corners)
            residual = moved + read
            if holds(residual.abs() <= 2 * eps):
                break
            step = torch.linalg.solve_ex(slopes + eye, residual[..., None])[0][..., 0]
            moved = moved - step.nan_to_num(0.0).clamp(-self.max_step, self.max_step)
        solution = target + moved
        read, slopes = lattice.read_with_slopes(field, solution, align_corners=corners)
        jacobian = slopes + eye
        small = (moved + read).abs().amax(dim=-1, keepdim=True) <= 64 * eps
        # At a solution that lies on the other side of a fold the picture is mirrored: not the inverse that was meant.
        converged = (
            small & torch.isfinite(solution).all(dim=-1, keepdim=True) & (torch.linalg.det(jacobian) > 0)[..., None]
        )
        return solution, torch.where(converged[..., None], jacobian, eye), converged


class DisplacementField(Transform):
    """T(x) = x + u(x), u linear between the nodes of a lattice and constant beyond: theta (N, *size, d), 0 = identity.

    The nodes lie at the pixel centres of an image of ``size``: an image of any other size reads the field linearly
    upsampled. theta counts in ``units``: "normalized" (half the image is 1) or "pixel" (of an image of that size).

    Args:
        size: (h, w) or (d, h, w) of the field; of no image in particular.
        units: "normalized" or "pixel".
        align_corners: whether the outermost nodes lie at -1 and 1 instead, for images warped with align_corners=True.
    Inverse: fixed-point, then Newton iteration, with the gradient of the implicit function; a point that
    only a mirrored sheet of a fold reaches becomes NaN.
    Raises: ValueError for another size or unit.

    Example:
        >>> family = DisplacementField((2, 3), units="pixel")
        >>> theta = family.identity()[None]
        >>> theta[..., 0] = 1.5  # half of three pixels: a whole normalised unit
        >>> family(theta).sources(torch.zeros(1, 1, 2)).tolist()
        [[[1.0, 0.0]]]
    """

    def __init__(self, size: Sequence[int] = (8, 8), *, units: str = "normalized", align_corners: bool = False) -> None:
        super().__init__()
        self.size = lattice_size(size)
        self.dims = len(self.size)
        self.theta_shape = (*self.size, self.dims)
        self.units = _checks.one_of("units", units, ("normalized", "pixel"))
        self.align_corners = align_corners

    def extra_repr(self) -> str:
        return f"size={self.size}, units={self.units!r}, align_corners={self.align_corners}"

    def identity(self) -> Tensor:
        return torch.zeros(self.theta_shape)

    def map(self, theta: Tensor) -> FieldMap:
        return FieldMap(normalized(theta, self.units, self.align_corners), align_corners=self.align_corners)

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        return self.map(theta).displacement(xy)

    def lower(self, theta: Tensor, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        return self.map(theta).lower(size, align_corners=align_corners)


def lattice_size(size: Sequence[int]) -> tuple[int, ...]:
    """The size of a lattice, (h, w) or (d, h, w); its length says the dimension."""
    dims = len(size) if isinstance(size, Sequence) and len(size) in (2, 3) else 2
    return _checks.size(size, dims, None)


def check_field(name: str, value: object) -> Tensor:
    """Vectors on a lattice, (N, h, w, 2) or (N, d, h, w, 3)."""
    field = _checks.tensor(name, value)
    _checks.floating(name, field)
    if field.dim() not in (4, 5) or field.shape[-1] != field.dim() - 2:
        raise ValueError(f"{name}: wanted (N, h, w, 2) or (N, d, h, w, 3), got {_checks.describe(field)}")
    return field


def normalized(field: Tensor, units: str, align_corners: bool) -> Tensor:
    """A field (N, *size, d) in normalised units."""
    if units == "normalized":
        return field
    halves = half_extents(field.shape[1:-1], align_corners)
    scale = [1 / half if half else 0.0 for half in halves]  # one pixel, align_corners=True: every point is that pixel
    return torch.stack([field[..., axis] * s for axis, s in enumerate(scale)], dim=-1)
