"""Penalties: zero at the identity, closed forms elsewhere, gradients that lead back."""

import math

import numpy as np
import pytest
import scipy.interpolate
import scipy.special
import torch
from cases import FAMILIES
from torch import Tensor

from torch_stn import Affine, Projective, ThinPlateSpline, Transform, Translation
from torch_stn.nn.determinants import cell_determinants, lattice
from torch_stn.nn.penalties import area, bending_energy, identity_distance, negative_determinants, smoothness
from torch_stn.transforms.maps import Map


def affine(*rows: float) -> Map:
    return Affine()(torch.tensor([rows], dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family().has_identity])
def test_the_identity_costs_nothing(name: str) -> None:
    family = FAMILIES[name]()
    map = family(family.identity()[None].double())
    assert identity_distance(map).item() == 0
    assert negative_determinants(map).item() == 0
    torch.testing.assert_close(
        cell_determinants(lattice(map, 8)[1]), torch.ones(1, *(8,) * family.dims, dtype=torch.float64)
    )
    if family.dims == 2:
        assert area(map).item() < 1e-20


class TestIdentityDistance:
    def test_a_shift(self) -> None:
        shift = Translation()(torch.tensor([[0.3, 0.4], [0.0, 0.0]], dtype=torch.float64))
        torch.testing.assert_close(identity_distance(shift).item(), 0.125)
        space = Translation(3)(torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64))
        assert identity_distance(space).item() == 9

    def test_a_zoom(self) -> None:
        # |(s - 1) p|^2 over the points -1, 0, 1 of each axis: the mean square of one axis is 2 / 3.
        assert identity_distance(affine(1.5, 0, 0, 0, 1.5, 0), cells=2).item() == pytest.approx(0.25 * 4 / 3)

    def test_points_behind_the_camera(self) -> None:
        theta = torch.tensor([[1.0, 0, 0, 0, 1, 0, 3, 0]], requires_grad=True)
        distance = identity_distance(Projective()(theta))
        distance.backward()
        assert theta.grad is not None
        assert distance.isfinite()
        assert theta.grad.isfinite().all()


class TestArea:
    @pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 3.0])
    def test_a_zoom(self, factor: float) -> None:
        assert area(affine(factor, 0, 0.3, 0, factor, 0)).item() == pytest.approx(4 * math.log(factor) ** 2, abs=1e-12)

    def test_a_turn_and_a_shear_are_free(self) -> None:
        turn = affine(math.cos(1), -math.sin(1), 0, math.sin(1), math.cos(1), 0)
        assert area(turn).item() == pytest.approx(0, abs=1e-20)
        assert area(affine(1, 0.7, 0, 0, 1, 0)).item() == pytest.approx(0, abs=1e-20)

    def test_a_volume(self) -> None:
        with pytest.raises(ValueError, match=r"^map: area wanted a 2-D map, got a 3-D one$"):
            area(Translation(3)(torch.zeros(1, 3)))


class TestNegativeDeterminants:
    def test_a_mirror(self) -> None:
        assert negative_determinants(affine(-2, 0, 0, 0, 0.5, 0)).item() == pytest.approx(1)
        assert negative_determinants(affine(0.2, 0, 0, 0, 0.5, 0)).item() == 0
        assert negative_determinants(affine(0.2, 0, 0, 0, 0.5, 0), margin=0.3).item() == pytest.approx(0.2)

    def test_a_mirror_in_space(self) -> None:
        matrix = torch.diag(torch.tensor([2.0, -1.5, 0.5]))
        sources = lattice(Affine(3)(torch.cat([matrix, torch.zeros(3, 1)], dim=1)[None]), 3)[1]
        torch.testing.assert_close(cell_determinants(sources), torch.full((1, 3, 3, 3), -1.5))

    def test_any_matrix_in_space(self) -> None:
        theta = torch.randn(4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        got = cell_determinants(lattice(Affine(3)(theta), 2)[1])
        torch.testing.assert_close(got, torch.linalg.det(theta[..., :3])[:, None, None, None].expand(-1, 2, 2, 2))

    def test_a_fold_of_known_share(self) -> None:
        # x -> x^2 / 2: the left half of the picture is folded onto the right, with slope x.
        class Folded(Transform):
            theta_shape = (1,)

            def identity(self) -> Tensor:
                return torch.zeros(1)

            def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
                x, y = xy.unbind(-1)
                return torch.stack([theta * (x.square() / 2 - x), 0 * y], dim=-1)

        map = Folded()(torch.ones(1, 1, dtype=torch.float64))
        determinants = cell_determinants(lattice(map, 8)[1])
        torch.testing.assert_close(determinants[0, 0], torch.linspace(-0.875, 0.875, 8, dtype=torch.float64))
        # The mean of max(0, -x) over the middles of the cells: (1 + 3 + 5 + 7) / 64.
        assert negative_determinants(map).item() == pytest.approx(0.25)

    def test_descent_unfolds(self) -> None:
        theta = torch.tensor([[-0.5, 0.1, 0, 0, 1, 0]], requires_grad=True)
        optimizer = torch.optim.SGD([theta], lr=0.5)
        for _ in range(20):
            optimizer.zero_grad()
            negative_determinants(Affine()(theta), margin=0.1).backward()
            optimizer.step()
        assert negative_determinants(Affine()(theta)).item() == 0


class TestBendingEnergy:
    def test_it_is_bookstein_s_quadratic_form(self) -> None:
        spline = ThinPlateSpline((3, 4))
        centres = spline.control_points.double().numpy()
        noise = torch.randn(2, 12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        theta = spline.identity().double() + 0.1 * noise
        # Weights by scipy's own spline, whose kernel is r^2 log r = phi / 2; the Laplacian of phi, twice, is 16 pi delta.
        squared = ((centres[:, None] - centres) ** 2).sum(axis=-1)
        phi = scipy.special.xlogy(squared, squared)
        wanted = []
        for points in theta.numpy():
            weights = scipy.interpolate.RBFInterpolator(centres, points)._coeffs[:12] / 2
            wanted.append(16 * math.pi * float(np.einsum("kd,kl,ld->", weights, phi, weights)))
        assert bending_energy(spline, theta).item() == pytest.approx(sum(wanted) / 2, rel=1e-9)

    def test_an_affine_map_does_not_bend(self) -> None:
        spline = ThinPlateSpline(4)
        moved = spline.identity().double() @ torch.tensor([[1.2, 0.3], [-0.1, 0.8]]).double() + 0.2
        assert bending_energy(spline, moved[None]).item() == pytest.approx(0, abs=1e-9)

    def test_another_family(self) -> None:
        with pytest.raises(TypeError, match=r"^transform: wanted a ThinPlateSpline, which can bend, got Affine$"):
            bending_energy(Affine(), torch.eye(2, 3)[None])


class TestSmoothness:
    def test_a_constant_field(self) -> None:
        assert smoothness(torch.ones(2, 5, 4, 2)).item() == 0
        assert smoothness(torch.ones(2, 3, 5, 4, 3)).item() == 0
        assert smoothness(torch.ones(1, 1, 1, 2)).item() == 0

    @pytest.mark.parametrize("size", [(4, 4), (8, 6), (16, 31)])
    def test_a_linear_field_at_any_resolution(self, size: tuple[int, int]) -> None:
        y = (torch.arange(size[0]) + 0.5) * 2 / size[0] - 1
        x = (torch.arange(size[1]) + 0.5) * 2 / size[1] - 1
        field = torch.stack([0.5 * x + 0 * y[:, None], 2 * x - 3 * y[:, None]], dim=-1)[None].double()
        assert smoothness(field).item() == pytest.approx(0.25 + 4 + 9, rel=1e-5)

    def test_in_space(self) -> None:
        z = ((torch.arange(4) + 0.5) / 2 - 1)[:, None, None].expand(4, 3, 5)
        assert smoothness(torch.stack([z, 2 * z, 0 * z], dim=-1)[None]).item() == pytest.approx(5)

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            (
                torch.zeros(1, 4, 4, 3),
                r"^field: wanted \(N, h, w, 2\) or \(N, d, h, w, 3\), got \(1, 4, 4, 3\) float32$",
            ),
            (torch.zeros(4, 4, 2), r"^field: wanted \(N, h, w, 2\) or \(N, d, h, w, 3\), got \(4, 4, 2\) float32$"),
        ],
        ids=["three of two", "no batch"],
    )
    def test_other_shapes(self, field: Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            smoothness(field)

    def test_whole_numbers(self) -> None:
        with pytest.raises(TypeError, match=r"^field: wanted a floating-point tensor"):
            smoothness(torch.zeros(1, 4, 4, 2, dtype=torch.int64))


@pytest.mark.parametrize("penalty", [identity_distance, area, negative_determinants])
def test_not_a_map(penalty: object) -> None:
    with pytest.raises(TypeError, match=r"^map: wanted a Map, as a transform returns for theta, got Tensor$"):
        penalty(torch.zeros(1, 6))  # type: ignore[operator]


def test_a_lattice_without_cells() -> None:
    with pytest.raises(ValueError, match=r"^cells: wanted at least 1, got 0$"):
        identity_distance(affine(1, 0, 0, 0, 1, 0), cells=0)
