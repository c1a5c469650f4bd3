"""Thin-plate and polyharmonic splines and free-form deformations, against scipy, kornia and integrals."""

import math

import numpy as np
import pytest
import torch
from cases import inner_points, thetas
from map_contract import close
from torch import Tensor
from torch.autograd import gradcheck

from torch_stn import (
    Affine,
    FreeFormDeformation,
    LandmarkSpline,
    PolyharmonicSpline,
    SplineMap,
    ThinPlateSpline,
)


class TestSplines:
    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
    def test_against_scipy(self, order: int, dims: int) -> None:
        interpolate = pytest.importorskip("scipy.interpolate")
        name = {1: "linear", 2: "thin_plate_spline", 3: "cubic", 5: "quintic"}.get(order)
        family = PolyharmonicSpline(inner_points(1, 15, dims)[0], order=order)
        theta, xy = thetas(family), inner_points(2, 40, dims, seed=3)
        got = family(theta).sources(xy)
        close(family(theta).sources(family.control_points[None].double()), theta, 1e-9)
        if name is None:
            return  # scipy has no r^4 log r
        for sample in range(2):
            rbf = interpolate.RBFInterpolator(
                family.control_points.double().numpy(), theta[sample].numpy(), kernel=name, degree=max(1, order // 2)
            )
            close(got[sample], torch.from_numpy(rbf(xy[sample].numpy())), 1e-9)

    def test_a_positive_regularisation_smooths_in_space_too(self) -> None:
        theta = thetas(ThinPlateSpline(3, dims=3), 1)
        energies, misses = [], []
        for amount in (0.0, 0.1, 1.0, 10.0):
            family = ThinPlateSpline(3, dims=3, regularization=amount)
            energies.append(family.bending_energy(theta).item())
            misses.append((family(theta).sources(family.control_points[None].double()) - theta).norm().item())
        assert energies == sorted(energies, reverse=True)
        assert misses == sorted(misses)
        assert misses[0] < 1e-10

    @pytest.mark.parametrize(("dims", "reach", "count", "rest"), [(2, 40.0, 700, 0.02), (3, 12.0, 90, 0.12)])
    def test_bending_energy_is_the_integral_of_squared_second_derivatives(
        self, dims: int, reach: float, count: int, rest: float
    ) -> None:
        family = ThinPlateSpline(2 if dims == 3 else 3, dims=dims)
        theta = thetas(family, 1)
        # Finer near the control points, x = sinh(s); what lies beyond ``reach``, and the kinks, is what ``rest`` allows.
        s = torch.linspace(-math.asinh(reach), math.asinh(reach), count, dtype=torch.float64)
        x, dx = torch.sinh(s), torch.cosh(s) * (s[1] - s[0])
        xy = torch.stack(torch.meshgrid(*[x] * dims, indexing="ij"), dim=-1).flatten(0, -2)
        cell = torch.stack(torch.meshgrid(*[dx] * dims, indexing="ij")).prod(dim=0).flatten()
        weights = family.solution.double() @ theta[0]
        hessians = _spline_hessians(xy, family.control_points.double(), weights[: len(family.control_points)])
        wanted = (hessians * cell).sum().item()
        assert family.bending_energy(theta).item() == pytest.approx(wanted, rel=rest)

    def test_against_kornia(self) -> None:
        """kornia puts the kernels at the ends instead of the starts: the same map where it is affine, another between."""
        kornia = pytest.importorskip("kornia")
        control, xy = inner_points(2, 9, 2), inner_points(2, 30, 2, seed=9)

        def theirs(ends: Tensor, at: Tensor) -> Tensor:
            kernel, affine = kornia.geometry.transform.get_tps_transform(control, ends)
            return kornia.geometry.transform.warp_points_tps(at, ends, kernel, affine)

        flat = Affine()(thetas(Affine())).sources(control)
        close(SplineMap(control, flat).sources(xy), theirs(flat, xy), 1e-6)
        bent = control + 0.05 * inner_points(2, 9, 2, seed=4)
        close(SplineMap(control, bent).sources(control), theirs(bent, control), 1e-6)

    def test_landmarks_of_each_sample(self) -> None:
        control, sources = inner_points(3, 8, 3), inner_points(3, 8, 3, seed=2)
        close(SplineMap(control, sources).sources(control), sources, 1e-9)
        xy = inner_points(3, 10, 3, seed=5)
        for i in range(3):
            alone = ThinPlateSpline(control[i].float())
            close(
                SplineMap(control[i : i + 1].float().double(), sources).sources(xy)[i : i + 1],
                alone(sources[i : i + 1]).sources(xy[i : i + 1]),
                1e-8,
            )
        one = SplineMap(control[:1], sources)
        close(one.sources(control[:1]), sources, 1e-9)
        assert one.batch == 3

    def test_long_lists_pass_in_pieces_with_the_same_gradients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        control = inner_points(2, 6, 2).requires_grad_()
        sources = inner_points(2, 6, 2, seed=1).requires_grad_()
        xy = inner_points(2, 100, 2, seed=2)
        results = []
        for piece in (1 << 22, 60):
            monkeypatch.setattr("torch_stn.transforms.spline_map._PIECE", piece)
            moved = SplineMap(control, sources).sources(xy)
            results.append((moved, *torch.autograd.grad(moved.square().sum(), (control, sources))))
        for whole, pieces in zip(*results, strict=True):
            close(pieces, whole, 1e-12)

    @pytest.mark.parametrize(
        ("points", "message"),
        [
            ([[0.0, 0], [1, 0], [0, 1], [1, 0]], "points 1 and 3 are the same, in sample 1"),
            ([[0.0, 0], [1, 1], [2, 2], [-1, -1]], "all points lie on one line; .* in sample 1"),
            ([[0.0, 0], [1, 0], [0, math.nan], [1, 1]], "every coordinate must be finite"),
        ],
    )
    def test_degenerate_landmarks_are_named(self, points: list[list[float]], message: str) -> None:
        good = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]])
        control = torch.stack([good, torch.tensor(points)])
        with pytest.raises(ValueError, match=rf"^control_points: {message}"):
            SplineMap(control, good[None])
        with pytest.raises(ValueError, match=rf"^control_points: {message}"):
            LandmarkSpline(good)(torch.stack([control, control], dim=1))

    def test_other_bad_arguments_are_named(self) -> None:
        flat = torch.cat([inner_points(1, 8, 2)[0], torch.zeros(8, 1)], dim=1)
        circle = torch.tensor([[math.cos(a), math.sin(a)] for a in range(8)])
        for arguments, message in (
            ({"control_points": flat}, "all points lie on one plane"),
            ({"control_points": circle, "order": 4}, "do not determine a polynomial of degree 2"),
            ({"control_points": circle[:5], "order": 4}, "order 4 needs at least 6 points, got 5"),
            ({"order": 0}, "order: wanted a whole number >= 1, got 0"),
            ({"dims": 4}, "dims: wanted 2 or 3, got 4"),
            ({"control_points": (3, 3), "dims": 3}, "control_points: wanted 3 counts"),
        ):
            with pytest.raises(ValueError, match=message):
                PolyharmonicSpline(**arguments)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^sources: wanted \(N, 4, 2\) as control_points, got \(1, 5, 2\)"):
            SplineMap(torch.rand(1, 4, 2), torch.rand(1, 5, 2))


def _spline_hessians(xy: Tensor, centres: Tensor, weights: Tensor) -> Tensor:
    """The sum of all squared second derivatives of sum_k w_k phi at each point, from phi's own derivatives."""
    d = xy.shape[1]
    total = torch.zeros(len(xy), dtype=xy.dtype)
    away = xy[:, None] - centres
    r2 = away.square().sum(dim=-1).clamp(min=1e-300)
    # phi_ij = f(r^2) delta_ij + g(r^2) x_i x_j
    f, g = (2 * r2.log() + 2, 4 / r2) if d == 2 else (-(r2**-0.5), r2**-1.5)
    for i in range(d):
        for j in range(d):
            second = (g * away[..., i] * away[..., j] + (f if i == j else 0)) @ weights
            total += second.square().sum(dim=-1)
    return total


def test_volumes_of_affine_theta_stay_affine_under_splines() -> None:
    family = ThinPlateSpline((2, 2, 3), dims=3)
    affine = Affine(3)(thetas(Affine(3), 1))
    theta, xyz = affine.sources(family.control_points[None].double()), inner_points(1, 20, 3)
    close(family(theta).sources(xyz), affine.sources(xyz), 1e-10)
    assert gradcheck(family.bending_energy, (theta.requires_grad_(),), atol=1e-4)


class TestFreeForm:
    def test_against_scipy_b_splines(self) -> None:
        interpolate = pytest.importorskip("scipy.interpolate")
        family = FreeFormDeformation((6, 5))
        theta, xy = thetas(family, 1), inner_points(1, 50, 2, reach=0.999)
        lattice = family.lattices(theta)[0][0].numpy()  # (6, 5, 2)
        bases = []
        for axis, count in ((1, 6), (0, 5)):
            step = 2 / (count - 3)
            knots = -1 + step * (np.arange(count + 4) - 3)
            bases.append(interpolate.BSpline(knots, np.eye(count), 3)(xy[0, :, axis].numpy()))
        wanted = np.einsum("mi,mj,ijd->md", *bases, lattice)
        close(family(theta).displacement(xy)[0], torch.from_numpy(wanted), 1e-12)

    def test_levels_add(self) -> None:
        family = FreeFormDeformation((4, 4, 5), levels=2)
        theta, xyz = thetas(family), inner_points(2, 30, 3)
        first, second = (FreeFormDeformation(shape) for shape in family.shapes)
        parts = [part.flatten(1, -2) for part in family.lattices(theta)]
        close(family(theta).displacement(xyz), first(parts[0]).displacement(xyz) + second(parts[1]).displacement(xyz))

    @pytest.mark.parametrize(
        "arguments", [{"grid_shape": (3, 5)}, {"grid_shape": (5,)}, {"grid_shape": 5}, {"levels": 0}]
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=rf"^{next(iter(arguments))}: wanted"):
            FreeFormDeformation(**arguments)  # type: ignore[arg-type]
