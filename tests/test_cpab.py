"""CPAB against Runge-Kutta, and its space of velocity fields against the constraints of the source."""

import numpy as np
import pytest
import torch
from cases import inner_points
from map_contract import close
from torch import Tensor

from torch_stn import (
    CPAB,
)
from torch_stn.coordinates import base_grid
from torch_stn.transforms.tessellation import Tessellation

HALF = 256  # pixels per normalised unit, of 512


def _runge_kutta(family: CPAB, theta: Tensor, xy: Tensor) -> Tensor:
    """Where the flow of theta (1, V, d) carries each point (M, d), by an adaptive method that knows no simplices."""
    integrate = pytest.importorskip("scipy.integrate")
    mesh = Tessellation.of_boxes(family.boxes)
    velocity = (mesh.extension @ family.velocities(theta)[0]).numpy()
    cells, barycentric = mesh.simplices.numpy(), mesh.barycentric.numpy()

    def field(_: float, x: np.ndarray) -> np.ndarray:
        coordinates = barycentric @ np.append(x, 1)
        cell = coordinates.min(axis=1).argmax()
        return coordinates[cell] @ velocity[cells[cell]]

    ends = [integrate.solve_ivp(field, (0, 1), x, rtol=1e-10, atol=1e-10).y[:, -1] for x in xy.numpy()]
    return torch.from_numpy(np.stack(ends))


class TestCPAB:
    @pytest.mark.parametrize(
        ("boxes", "options"),
        [
            ((4,), {}),
            ((3, 2), {}),
            ((3, 3), {"zero_boundary": True}),
            ((3, 3), {"zero_boundary": True, "volume_preserving": True}),
            ((2, 1, 2), {}),
            ((2, 2, 2), {"zero_boundary": True}),
        ],
    )
    def test_against_runge_kutta(self, boxes: tuple[int, ...], options: dict[str, bool]) -> None:
        family = CPAB(boxes, **options)
        theta = 0.3 * torch.randn(1, *family.theta_shape, generator=torch.Generator().manual_seed(1)).double()
        reach = 1.0 if options else 1.3
        xy = inner_points(1, 25, len(boxes), reach=reach)
        got = xy + family.displacement(theta, xy)
        assert (got - xy).abs().max() > 0.1
        assert (got[0] - _runge_kutta(family, theta, xy[0])).abs().max() * HALF < 1e-3
        back = got + family.displacement(-theta, got)
        assert (back - xy).abs().max() * HALF < 1e-3

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(("boxes", "size"), [((4, 4), (17, 17)), ((2, 2, 2), (5, 5, 5))])
    def test_from_pixels_and_vertices(self, boxes: tuple[int, ...], size: tuple[int, ...], seed: int) -> None:
        """Points that start on faces, and turn there; velocities of the size of the picture."""
        generator = torch.Generator().manual_seed(seed)
        family = CPAB(boxes)
        theta = torch.randn(1, *family.theta_shape, generator=generator).double()
        pixels = base_grid(size, dtype=torch.float64).flatten(0, -2)
        nodes = torch.cat([pixels, family.vertices])
        xy = nodes[torch.randperm(len(nodes), generator=generator)[:60]]
        wanted = _runge_kutta(family, theta, xy)
        for dtype in (torch.float64, torch.float32):
            found = xy + family.displacement(theta.to(dtype), xy[None].to(dtype))[0]
            assert (found - wanted).abs().max() * HALF < 1e-3, dtype

    @pytest.mark.parametrize("seed", [0, 2])
    def test_in_and_out_of_a_simplex_within_one_sub_step(self, seed: int) -> None:
        """A vertex that starts into one triangle and soon leaves it: where that was missed it ended 0.04 px off."""
        family = CPAB((4, 4))
        theta = 0.5 * torch.randn(1, *family.theta_shape, generator=torch.Generator().manual_seed(seed)).double()
        found = family.vertices + family.displacement(theta, family.vertices[None])[0]
        assert (found - _runge_kutta(family, theta, family.vertices)).abs().max() * HALF < 1e-3

    @pytest.mark.parametrize("boxes", [(3, 3), (4, 4), (2, 2, 2), (4, 4, 4)])
    def test_a_whole_turn_of_the_picture(self, boxes: tuple[int, ...]) -> None:
        family = CPAB(boxes)
        x, y, *rest = family.vertices.unbind(-1)
        turn = 2 * torch.pi * torch.stack([-y, x, *[torch.zeros_like(x) for _ in rest]], dim=-1)
        xy = inner_points(1, 300, len(boxes), reach=0.65)
        close(family.displacement(turn[None], xy), torch.zeros_like(xy), 1e-8)

    def test_without_enough_sub_steps_there_is_no_answer(self) -> None:
        theta = torch.full((1, 41, 2), 1.5, dtype=torch.float64)  # a plain shift, through six triangles or more
        xy = inner_points(1, 20, 2, reach=0.1) - 0.7
        assert CPAB((4, 4), steps=1, crossings=1).displacement(theta, xy).isnan().all()
        close(CPAB((4, 4)).displacement(theta, xy), torch.full_like(xy, 1.5), 1e-9)
        for steps in (3, 7, 10, 11):
            found = CPAB((4, 4), steps=steps).displacement(theta.float(), xy.float())
            close(found, torch.full_like(xy, 1.5).float(), 1e-5)

    def test_vertices_are_float64(self) -> None:
        thirds = torch.tensor([-1, -1 / 3, 1 / 3, 1], dtype=torch.float64)
        close(Tessellation.of_boxes((3,)).vertices[:, 0], thirds, 1e-15)

    def test_velocities_under_autocast(self) -> None:
        family = CPAB((3, 3), zero_boundary=True)
        theta = torch.randn(1, *family.theta_shape, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = family.velocities(theta)
        assert torch.equal(found, family.velocities(theta))

    @pytest.mark.parametrize("boxes", [(3,), (2, 2), (1, 2, 1)])
    def test_vertex_velocities_span_what_the_continuity_constraints_leave(self, boxes: tuple[int, ...]) -> None:
        """As the source builds it: any affine map per simplex, equal velocities on shared faces."""
        d, mesh = len(boxes), Tessellation.of_boxes(boxes)
        vertices = torch.linalg.inv(mesh.barycentric).mT  # (C, d + 1, d + 1): homogeneous corners
        inside = mesh.inner.nonzero().flatten().tolist()
        rows = []
        for cell in inside:
            for i, other in enumerate(mesh.neighbours[cell].tolist()):
                if other in inside and other > cell:
                    for corner in [k for k in range(d + 1) if k != i]:
                        row = torch.zeros(len(inside), d + 1, dtype=torch.float64)
                        row[inside.index(cell)], row[inside.index(other)] = (
                            vertices[cell, corner],
                            -vertices[cell, corner],
                        )
                        rows.append(row.flatten())
        constraints = torch.stack(rows)
        free = constraints.shape[1] - int(torch.linalg.matrix_rank(constraints))
        assert free * d == CPAB(boxes).degrees_of_freedom
        matrices = CPAB(boxes).matrices.unflatten(0, (-1, d + 1))[inside]  # (C, d + 1, V)
        close(
            constraints @ matrices.flatten(0, 1), torch.zeros(len(rows), matrices.shape[-1], dtype=torch.float64), 1e-10
        )

    def test_constraints_hold(self) -> None:
        family = CPAB((3, 3), zero_boundary=True, volume_preserving=True)
        theta = 0.5 * torch.randn(1, *family.theta_shape, generator=torch.Generator().manual_seed(0)).double()
        border = torch.linspace(-1, 1, 41, dtype=torch.float64)
        edge = torch.stack([torch.ones_like(border), border], dim=-1)[None]
        close(family.displacement(theta, edge)[..., 0], torch.zeros(1, 41, dtype=torch.float64), 1e-12)
        assert family.displacement(theta, edge)[..., 1].abs().max() > 0.01
        xy = inner_points(1, 200, 2).requires_grad_()
        moved = family(theta).sources(xy)
        rows = [torch.autograd.grad(moved[..., i].sum(), xy, retain_graph=True)[0] for i in range(2)]
        determinant = rows[0][..., 0] * rows[1][..., 1] - rows[0][..., 1] * rows[1][..., 0]
        close(determinant, torch.ones(1, 200, dtype=torch.float64), 1e-6)
        assert family.degrees_of_freedom == 8

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"boxes": ()}, "^boxes: wanted 1 to 3"),
            ({"boxes": 3}, "^boxes: wanted 1 to 3 whole numbers >= 1, got 3"),
            ({"boxes": (2, 0)}, "^boxes: wanted"),
            ({"boxes": (1,), "zero_boundary": True}, "^boxes: no velocity but 0 meets the constraints"),
            ({"steps": 0}, "^steps, crossings: wanted"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            CPAB(**arguments)  # type: ignore[arg-type]
