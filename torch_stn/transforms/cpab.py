"""CPAB: flows of continuous piecewise-affine velocity fields."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.base import Transform
from torch_stn.transforms.maps import Map, ThetaMap
from torch_stn.transforms.pieces import in_pieces
from torch_stn.transforms.piecewise_flow import flow, flow_on_a_line
from torch_stn.transforms.tessellation import Tessellation

_POINTS = 1 << 16  # flows in memory at a time


class CPAB(Transform):
    """T = the flow at time 1 of dx/dt = v(x), v continuous and affine on each simplex of a tessellation of [-1, 1]^d.

    Such a field is given by its velocities at the vertices, and any velocities make one: theta (N, V, d), 0 = identity;
    V = n_x + 1 in 1-D, (n_x + 1)(n_y + 1) + n_x n_y in 2-D (the boxes' centres come last), (n_x + 1)(n_y + 1)(n_z + 1)
    in 3-D, x slowest. These vertex functions span the null space of the continuity constraints that the source builds,
    in the order of the tessellation instead of that of a singular value decomposition. Further constraints project
    theta orthogonally onto the null space of their own. Beyond [-1, 1]^d a point has the velocity of the nearest border
    point. The map is a diffeomorphism; its inverse is the flow of -v, exact up to the sub-steps.

    1-D flows are in closed form. In 2-D and 3-D each sub-step is the matrix exponential of its simplex, and ends at the
    face where the point leaves it (:mod:`torch_stn.transforms.piecewise_flow`). Eager calls on a CPU end when the last
    point has arrived; elsewhere, and in a graph, all sub-steps are made.

    Accuracy, in pixels of a 512-pixel image, against Runge-Kutta at a tolerance of 1e-10, (4, 4) and (3, 3, 3) boxes,
    independent normal velocities: at a standard deviation of 0.3 1e-4, at 1, where points move as far as the image is
    wide, 4e-4 in float32; at 3, where they leave it, 0.02, ``steps=32`` included.

    Args:
        boxes: of the tessellation along x[, y[, z]]; each is cut into 4 triangles or 6 tetrahedra.
        zero_boundary: no velocity through the border of [-1, 1]^d: the picture is mapped onto itself.
        volume_preserving: no divergence inside: areas or volumes are kept.
        steps: at most so many sub-steps end within a simplex. 2 max |A|, A the slopes of v, are enough.
        crossings: and so many at a face; None is 6 times the largest number of boxes, in 3-D 12 times, which serves
            a whole turn of the picture up to 4 boxes. A point that needs more becomes NaN.
    Raises: ValueError for wrong counts, or where no field but 0 meets the constraints.
    Source: Freifeld, Hauberg, Batmanghelich, Fisher 2017.

    Example:
        >>> family = CPAB((3, 3))
        >>> family.theta_shape
        (25, 2)
        >>> family(torch.full((1, 25, 2), 0.25)).sources(torch.zeros(1, 1, 2)).round(decimals=5).tolist()
        [[[0.25, 0.25]]]
    """

    def __init__(
        self,
        boxes: Sequence[int] = (3, 3),
        *,
        zero_boundary: bool = False,
        volume_preserving: bool = False,
        steps: int = 16,
        crossings: int | None = None,
    ) -> None:
        super().__init__()
        whole = isinstance(boxes, Sequence) and all(_at_least(n, 1) for n in boxes)
        if not whole or not 1 <= len(boxes) <= 3:
            raise ValueError(f"boxes: wanted 1 to 3 whole numbers >= 1, got {boxes!r}")
        # A flow may turn round a vertex, or in 3-D an edge, at which six simplices and more meet.
        crossings = (12 if len(boxes) == 3 else 6) * max(boxes) if crossings is None else crossings
        if not _at_least(steps, 1) or not _at_least(crossings, 0):
            wanted = "whole numbers of at least 1 and 0"
            raise ValueError(f"steps, crossings: wanted {wanted}, got {steps!r} and {crossings!r}")
        self.boxes = tuple(boxes)
        self.dims = len(boxes)
        self.zero_boundary, self.volume_preserving = zero_boundary, volume_preserving
        self.steps, self.crossings = steps, crossings
        mesh = Tessellation.of_boxes(boxes)
        self.theta_shape = tuple(mesh.vertices.shape)
        self._keep("vertices", mesh.vertices)
        self._keep("barycentric", mesh.barycentric)
        self._keep("neighbours", mesh.neighbours)
        # (C (d + 1), V): vertex velocities -> the matrix of each simplex, column by column.
        corners = mesh.extension[mesh.simplices]  # (C, d + 1, V)
        self._keep("matrices", torch.einsum("cij,civ->cjv", mesh.barycentric, corners).flatten(0, 1))
        self._keep("projection", self._projection(mesh))

    vertices: Tensor
    barycentric: Tensor
    neighbours: Tensor
    matrices: Tensor
    projection: Tensor | None

    def extra_repr(self) -> str:
        limits = f"zero_boundary={self.zero_boundary}, volume_preserving={self.volume_preserving}"
        return f"boxes={self.boxes}, {limits}, steps={self.steps}, crossings={self.crossings}"

    def identity(self) -> Tensor:
        return torch.zeros(self.theta_shape)

    def velocities(self, theta: Tensor) -> Tensor:
        """theta as the velocities (N, V, d) at ``vertices``, which meet the constraints."""
        theta = _checks.theta(theta, self.theta_shape, type(self).__name__)
        if self.projection is None:
            return theta
        with torch.autocast(theta.device.type, enabled=False):
            return (theta.flatten(1) @ self.projection.to(theta.dtype)).view_as(theta)

    @property
    def degrees_of_freedom(self) -> int:
        """The dimension of the space of velocity fields."""
        return self.num_params if self.projection is None else round(self.projection.trace().item())

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        d, dtype = self.dims, torch.promote_types(theta.dtype, xy.dtype)
        theta, xy = theta.to(dtype), xy.to(dtype)
        with torch.autocast(theta.device.type, enabled=False):
            fields = self.matrices.to(theta.dtype) @ self.velocities(theta)
            fields = fields.unflatten(1, (-1, d + 1)).mT  # (N, C, d, d + 1)
        if d == 1:
            lower = -self.barycentric[:, 1, 1] / self.barycentric[:, 1, 0]
            edges = torch.cat([lower, -self.barycentric[-1:, 0, 1] / self.barycentric[-1:, 0, 0]]).to(theta.dtype)
            return flow_on_a_line(xy, fields, edges, self.boxes)
        table = self.barycentric.to(theta.dtype)

        def piece(points: Tensor) -> Tensor:
            return flow(points, fields, table, self.neighbours, self.boxes, self.steps, self.crossings)

        return in_pieces(piece, xy, max(1, _POINTS // max(1, theta.shape[0])))

    def map(self, theta: Tensor) -> Map:
        return CPABMap(self, theta)

    def _keep(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, value, persistent=False)

    def _projection(self, mesh: Tessellation) -> Tensor | None:
        """The orthogonal projection (V d, V d) of all velocities onto those that meet the constraints."""
        d, rows = self.dims, []
        eye = torch.eye(mesh.vertices.numel(), dtype=torch.float64)
        if self.zero_boundary:
            rows.append(eye[(mesh.vertices.abs() == 1).flatten()])
        if self.volume_preserving:
            matrices = self.matrices.unflatten(0, (-1, d + 1))[mesh.inner, :d]  # (C, d, V)
            rows.append(matrices.mT.flatten(1))  # the trace: column k of coordinate k
        if not rows:
            return None
        _, singular, directions = torch.linalg.svd(torch.cat(rows))
        rank = int((singular > 1e-9 * singular[0]).sum())
        if rank == len(eye):
            raise ValueError(f"boxes: no velocity but 0 meets the constraints with {self.boxes}; wanted more boxes")
        kept = directions[rank:]
        return kept.mT @ kept


def _at_least(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class CPABMap(ThetaMap):
    """The flow of one theta; its inverse is the flow of -theta."""

    def inverse(self) -> Map:
        return CPABMap(self.transform, -self.theta)
