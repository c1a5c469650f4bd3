"""Families of maps: the shared contract for each of FAMILIES, then what single families promise."""

import math
import pickle

import pytest
import torch
from cases import FAMILIES, inner_points, thetas, waves
from family_contract import FamilyContract
from map_contract import close
from torch import Tensor
from torch.autograd import gradcheck

from torch_stn import (
    Affine,
    Basis,
    Map,
    Projective,
    ThinPlateSpline,
    Transform,
    lowered,
    sample,
    warp,
)
from torch_stn.transforms import TRANSFORMS


class TestEveryFamily(FamilyContract):
    @pytest.fixture(params=FAMILIES.values(), ids=list(FAMILIES))
    def family(self, request: pytest.FixtureRequest) -> Transform:
        transform = request.param()
        assert isinstance(transform, Transform)
        return transform


# A graph takes seconds: by default a matrix with a function of theta in it, and a field.
COMPILED = [pytest.param(name, marks=() if name in ("rigid", "polar") else pytest.mark.slow) for name in FAMILIES]


@pytest.mark.parametrize("name", COMPILED)
def test_warp_compiles_in_one_graph(name: str) -> None:
    family = FAMILIES[name]()
    size = (6, 5) if family.dims == 2 else (3, 4, 5)

    def loss(theta: Tensor) -> Tensor:
        return warp(waves(size), family(theta)).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (loss, compiled):
        theta = thetas(family).requires_grad_()
        value = function(theta)
        value.backward()
        assert theta.grad is not None
        assert theta.grad.any()
        results.append((value.detach(), theta.grad))
    for got, wanted in zip(*results, strict=True):
        close(got, wanted, 1e-9)


@pytest.mark.parametrize("name", ["rigid", "polar", "basis, learned"])
def test_points_under_vmap(name: str) -> None:
    family = FAMILIES[name]()
    theta, xy = thetas(family, 3), inner_points(3, 6, 2, reach=0.6)
    close(torch.vmap(lambda t, p: family(t[None]).points(p[None])[0])(theta, xy), family(theta).points(xy), 1e-9)


def test_every_name_of_the_table_needs_no_arguments() -> None:
    for name, family in TRANSFORMS.items():
        assert isinstance(family(), Transform), name


@pytest.mark.parametrize(
    ("family", "form"),
    [(Affine(), lowered.Matrix), (Projective(), lowered.Matrix), (ThinPlateSpline(), lowered.Basis)],
)
def test_lowered_forms_of_kernels(family: Transform, form: type) -> None:
    assert isinstance(family(thetas(family)).lower((4, 4)), form)


def test_maps_of_different_dimension_or_batch_do_not_compose() -> None:
    plane, space = Affine()(thetas(Affine())), Affine(3)(thetas(Affine(3)))
    spline = ThinPlateSpline()(thetas(ThinPlateSpline(), 3))
    for first, second in ((plane, space), (space, spline), (spline, space)):
        with pytest.raises(ValueError, match=r"then: wanted a .-D map, got a .-D one"):
            first.then(second)
    for first, second in ((plane, spline), (spline, plane), (plane, Affine()(thetas(Affine(), 3)))):
        with pytest.raises(ValueError, match="batch size"):
            first.then(second)


class TestThinPlateSpline:
    def test_passes_through_its_points(self) -> None:
        for spline in (ThinPlateSpline(), ThinPlateSpline((3, 5)), ThinPlateSpline(torch.rand(7, 2))):
            theta = thetas(spline, spread=0.2)
            close(spline(theta).sources(spline.control_points[None].double()), theta, 1e-10)

    def test_regularisation_bends_less_and_keeps_affine_maps(self) -> None:
        theta = thetas(ThinPlateSpline(), 1, spread=0.2)
        points = ThinPlateSpline().control_points[None].double()
        misses = [(ThinPlateSpline(regularization=r)(theta).sources(points) - theta).norm() for r in (0, 0.01, 1, 100)]
        assert misses == sorted(misses)
        assert misses[0] < 1e-10 < misses[1]
        affine = Affine()(thetas(Affine(), 1))
        xy = inner_points(1, 20, 2)
        close(ThinPlateSpline(regularization=0.5)(affine.sources(points)).sources(xy), affine.sources(xy), 1e-10)

    def test_control_points_in_order(self) -> None:
        assert torch.equal(
            ThinPlateSpline((2, 3), span=0.5).control_points,
            torch.tensor([[-0.5, -0.5], [0.0, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.0, 0.5], [0.5, 0.5]]),
        )
        assert ThinPlateSpline().theta_shape == (16, 2)
        assert ThinPlateSpline().num_params == 32
        own = torch.tensor([[-1.0, -1], [1, -1], [0.3, 1]])
        assert torch.equal(ThinPlateSpline(own).control_points, own)

    def test_starts_a_little_beside_the_identity(self) -> None:
        spline = ThinPlateSpline(perturbation=0.01)
        moved = spline.initial() - spline.identity()
        assert 0.005 < moved.std() < 0.015
        assert torch.equal(spline.initial(), ThinPlateSpline().initial())
        assert torch.equal(ThinPlateSpline(perturbation=0).initial(), spline.identity())

    def test_constants_are_made_once_and_not_kept_for_ever(self) -> None:
        spline = ThinPlateSpline()
        theta = thetas(spline).float()
        first = spline(theta).lower((6, 5))
        again = spline(theta + 0.1).lower((6, 5))
        assert isinstance(first, lowered.Basis)
        assert isinstance(again, lowered.Basis)
        assert first.basis.data_ptr() == again.basis.data_ptr()
        light = len(pickle.dumps(ThinPlateSpline()))
        for n in range(2, 40):
            spline(theta).lower((n, n))
        kept = len(pickle.dumps(spline)) - light
        assert kept < 20 * 40 * 40 * 16 * 4, "the bases of all sizes ever seen are kept"

    def test_the_bases_of_other_sizes_dtypes_and_corners_are_not_mixed_up(self) -> None:
        spline = ThinPlateSpline()
        theta = thetas(spline)
        for _ in range(2):
            for size in ((4, 6), (6, 4)):
                for align_corners in (False, True):
                    for dtype in (torch.float32, torch.float64):
                        form = spline(theta.to(dtype)).lower(size, align_corners=align_corners)
                        fresh = ThinPlateSpline()(theta.to(dtype)).lower(size, align_corners=align_corners)
                        assert isinstance(form, lowered.Basis)
                        assert isinstance(fresh, lowered.Basis)
                        assert torch.equal(form.basis, fresh.basis)
                        assert form.basis.dtype == dtype

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"control_points": 1}, "control_points: wanted a grid of at least 2 x 2, got 1 x 1"),
            ({"control_points": (4, 1)}, "control_points: wanted a grid of at least 2 x 2, got 4 x 1"),
            ({"control_points": torch.rand(2, 2)}, "control_points: .* at least 3 points, got 2"),
            ({"control_points": torch.rand(5, 4)}, r"control_points: wanted .*\(K, 2\) or \(K, 3\), got \(5, 4\)"),
            ({"control_points": torch.ones(5, 2, dtype=torch.int64)}, "control_points: wanted a float tensor"),
            ({"control_points": torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 0]])}, "points 1 and 3 are the same"),
            ({"control_points": torch.tensor([[0.0, 0], [1, 1], [2, 2], [-1, -1]])}, "all points lie on one line"),
            ({"control_points": torch.zeros(4, 2)}, "control_points: "),
            ({"control_points": torch.tensor([[0.0, 0], [1, 0], [0, math.nan]])}, "every coordinate must be finite"),
            ({"span": 0.0}, "span: wanted a number > 0, got 0"),
            ({"span": -1.0}, "span: wanted a number > 0, got -1"),
            ({"regularization": -0.1}, "regularization: wanted a number >= 0, got -0.1"),
            ({"regularization": math.nan}, "regularization: wanted a number >= 0, got nan"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ThinPlateSpline(**arguments)  # type: ignore[arg-type]


class TestBasis:
    def test_a_wrong_identity_is_found(self) -> None:
        with pytest.raises(ValueError, match=r"^identity: .*must be xy, it is off by"):
            Basis(lambda xy: torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1), torch.ones(3, 2))

    def test_a_wrong_number_of_functions_is_found(self) -> None:
        with pytest.raises(ValueError, match=r"^basis: wanted values \(\.\.\., 3\).*got \(\d+, 2\)"):
            Basis(lambda xy: xy, torch.eye(3, 2))

    @pytest.mark.parametrize("identity", [torch.eye(4), torch.ones(3), torch.eye(5, 1)])
    def test_a_wrong_identity_shape_is_found(self, identity: Tensor) -> None:
        with pytest.raises(ValueError, match=r"^identity: wanted \(K, 2\) or \(K, 3\)"):
            Basis(lambda xy: xy, identity)

    def test_volumes(self) -> None:
        family = Basis(lambda xyz: torch.cat([xyz, xyz.square()], dim=-1), torch.eye(6, 3))
        theta = thetas(family)
        xyz = inner_points(2, 9, 3)
        close(family(theta).sources(xyz), torch.cat([xyz, xyz.square()], dim=-1) @ theta)


class Squares(Map):
    """T(s) = s^2 along every axis: never reaches a negative point."""

    batch, dtype, device, dims = 1, torch.float64, torch.device("cpu"), 2

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    def displacement(self, xy: Tensor) -> Tensor:
        return self.factor * xy.square() - xy


def test_an_inverse_that_does_not_exist_reads_outside_and_pulls_at_nothing() -> None:
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[[0.25, 0.64], [-0.5, 0.5], [0.81, 0.04]]], dtype=torch.float64, requires_grad=True)
    found = Squares(factor).inverse().sources(targets)
    close(found[:, [0, 2]], torch.tensor([[[0.5, 0.8], [0.9, 0.2]]], dtype=torch.float64), 1e-10)
    assert not torch.isfinite(found[:, 1]).all()
    image = torch.rand(1, 1, 5, 5, dtype=torch.float64)
    values = sample(image, found, padding_mode="border", fill=7.0)
    assert values[0, 0, 1] == 7
    values.sum().backward()
    assert factor.grad is not None
    assert torch.isfinite(factor.grad)
    assert targets.grad is not None
    assert torch.isfinite(targets.grad).all()
    assert not targets.grad[:, 1].any()
    reached = targets[:, [0, 2]].detach().requires_grad_()
    assert gradcheck(lambda f, t: Squares(f).inverse().sources(t), (factor, reached))
