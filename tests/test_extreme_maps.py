"""Maps at their limits: singular matrices, horizons, worlds in millimetres, empty batches, two precisions in a chain."""

import copy
import math
import pickle

import pytest
import torch
from cases import FAMILIES, draw, inner_points, thetas
from map_contract import close
from torch import Tensor

from torch_stn import (
    CPAB,
    Affine,
    DisplacementField,
    FieldMap,
    FreeFormDeformation,
    LandmarkSpline,
    Polar,
    Projective,
    Rigid,
    SplineMap,
    ThinPlateSpline,
    Transform,
    VelocityField,
    in_world,
    warp,
)
from torch_stn.nn.penalties import area, negative_determinants
from torch_stn.transforms.pieces import in_pieces


def test_a_singular_matrix_leads_nowhere_and_pulls_at_nothing() -> None:
    regular = [[0.5, 0.2, 0.1], [-0.1, 0.7, 0.0]]
    theta = torch.tensor([[[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]], [[0.1, 0.1, 0.0], [0.3, 0.3, 0.0]], regular])
    theta.requires_grad_()
    found = Affine()(theta).points(torch.tensor([[[0.3, 0.2]]]))
    assert torch.isfinite(found).all(dim=-1).flatten().tolist() == [False, False, True]
    warp(torch.rand(3, 1, 5, 5), Affine()(theta).inverse()).sum().backward()
    assert theta.grad is not None
    assert torch.isfinite(theta.grad).all()
    assert not theta.grad[:2].any()
    assert theta.grad[2].any()
    small = torch.diag(torch.tensor([1e-5, 1e-5])).float()[None]
    close(
        Affine()(torch.cat([small, torch.zeros(1, 2, 1)], -1)).points(torch.ones(1, 1, 2)),
        torch.full((1, 1, 2), 1e5),
        1,
    )


def test_penalties_at_a_horizon_have_a_gradient() -> None:
    for penalty, height in ((area, 0.5), (negative_determinants, -0.5)):
        theta = torch.tensor([[0.5, 0, 0, 0, 0.5, 0, 4.0, 0], [1, 0.2, 0, 0, height, 0, 0, 0]]).requires_grad_()
        penalty(Projective()(theta)).backward()
        assert theta.grad is not None
        assert torch.isfinite(theta.grad).all()
        assert theta.grad[1].any()


@pytest.mark.parametrize("chained", ["alone", "before", "after"])
def test_points_through_a_world_in_millimetres(chained: str) -> None:
    """A spline in mm, float32: 200 mm wide, bent by some mm."""
    bend = thetas(LandmarkSpline(3), 1).float() * 90
    affine = torch.tensor([[3.0, 0, -94.5], [0, 3.0, -94.5], [0, 0, 1]])
    map = in_world(LandmarkSpline(3)(bend), (64, 64), (64, 64), in_affine=affine, out_affine=affine)
    turn = Rigid()(torch.tensor([[0.1, 0.05, 0.0]]))
    map = {"alone": map, "before": turn.then(map), "after": map.then(turn)}[chained]
    xy = inner_points(1, 50, 2, reach=0.7).float()
    close(map.points(map.sources(xy)), xy, 1e-5)


def test_pieces_under_function_transforms() -> None:
    points, theta = draw(1, 40, 2).clamp(-0.9, 0.9), draw(1, 40, 2)

    def squares(xy: Tensor) -> Tensor:
        return in_pieces(torch.square, xy, 7)

    found, pull = torch.func.vjp(squares, points)
    close(found, points.square())
    close(pull(theta)[0], 2 * points * theta)


def test_a_field_made_without_gradients_serves_no_training() -> None:
    theta = thetas(VelocityField((4, 4)), 1).requires_grad_()
    xy = inner_points(1, 5, 2)
    for mode in (torch.no_grad, torch.inference_mode):
        map = VelocityField((4, 4))(theta)
        with mode():
            still = map.sources(xy)
        moved = map.sources(xy)
        assert torch.equal(moved, still)
        (gradient,) = torch.autograd.grad(moved.square().sum(), theta)
        assert gradient.any()


def test_velocity_compiles_in_one_graph() -> None:
    family, image = VelocityField((4, 4), squarings=2), draw(1, 1, 5, 5)

    def loss(theta: Tensor) -> Tensor:
        return warp(image, family(theta)).square().sum()

    theta = thetas(family, 1)
    close(torch.compile(loss, fullgraph=True, backend="eager")(theta), loss(theta), 1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_samples_give_no_points(name: str) -> None:
    family = FAMILIES[name]()
    map = family(thetas(family)[:0])
    for xy in (inner_points(1, 3, family.dims), inner_points(1, 3, family.dims)[:0]):
        assert map.sources(xy).shape == (0, 3, family.dims)
        assert map.jacobian(xy).shape == (0, 3, family.dims, family.dims)
        assert map.points(xy).shape == (0, 3, family.dims)


def test_no_samples_on_a_line() -> None:
    map = CPAB((4,))(torch.zeros(0, 5, 1))
    assert map.sources(torch.zeros(1, 3, 1)).shape == (0, 3, 1)


@pytest.mark.parametrize(
    "family", [DisplacementField((4, 5)), VelocityField((4, 4)), FreeFormDeformation(), CPAB((2, 2)), ThinPlateSpline()]
)
def test_a_chain_of_two_precisions(family: Transform) -> None:
    theta, turn = thetas(family, 1), Rigid()(torch.tensor([[0.1, 0.05, 0.0]]).double())
    xy = inner_points(1, 20, 2, reach=0.6)
    for chain, wanted in (
        (family(theta.float()).then(turn), family(theta).then(turn)),
        (turn.then(family(theta.float())), turn.then(family(theta))),
    ):
        found = chain.sources(xy)
        assert found.dtype == torch.float64
        close(found, wanted.sources(xy), 1e-5)
        close(chain.points(found).double(), xy, 1e-4)
        warp(draw(1, 1, 6, 5), chain)


@pytest.mark.parametrize("family", [Affine(), Projective(), Rigid(3), FreeFormDeformation(), CPAB((2, 2)), Polar()])
def test_the_jacobian_nowhere_is_nan(family: Transform) -> None:
    xy = torch.full((1, 3, family.dims), 0.1, dtype=torch.float64)
    xy[0, 0, 0], xy[0, 1, 1] = math.nan, math.inf
    known = torch.isfinite(family(thetas(family)).jacobian(xy)).flatten(2)
    assert not known[:, :2].any()
    assert known[:, 2].all()


def test_an_empty_box_on_the_ray_is_all_nan() -> None:
    boxes = torch.tensor([[[0.4, -0.1, 0.2, 0.1], [math.nan, -0.1, 0.2, 0.1], [-0.4, -0.1, 0.2, math.inf]]])
    assert Polar()(torch.zeros(1, 2)).boxes(boxes).isnan().all()


def test_tiny_quaternions_turn_as_large_ones() -> None:
    theta = torch.tensor([[0.6, 0.0, 0.8, 0.0, 0.1, 0.0, 0.0]])
    small = torch.cat([theta[:, :4] * 1e-30, theta[:, 4:]], dim=1).requires_grad_()
    family, xy = Rigid(3, rotation="quaternion"), inner_points(1, 4, 3).float()
    found = family(small).sources(xy)
    close(found, family(theta).sources(xy), 1e-6)
    found.sum().backward()
    assert small.grad is not None
    assert torch.isfinite(small.grad).all()


def test_a_copy_leaves_the_kept_basis_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    family = ThinPlateSpline(3)
    warp(torch.zeros(1, 1, 40, 40), family(family.identity()[None]))
    assert family._cache
    for twin in (copy.deepcopy(family), pickle.loads(pickle.dumps(family))):
        assert not twin._cache
        close(twin(twin.identity()[None]).grid((4, 4)), family(family.identity()[None]).grid((4, 4)))
    monkeypatch.setattr("torch_stn.transforms.basis._CACHED_BYTES", 10_000)
    family = ThinPlateSpline(3)
    for side in (8, 10, 12, 40):
        warp(torch.zeros(1, 1, side, side), family(family.identity()[None]))
        assert sum(values.nbytes for values in family._cache.values()) <= 10_000
    assert family._cache


def test_far_shifts_are_not_singular() -> None:
    theta = torch.tensor([[[1.0, 0.0, 1e8], [0.0, 1.0, 0.0]]])
    close(Affine()(theta).points(torch.tensor([[[1e8, 0.5]]])), torch.tensor([[[0.0, 0.5]]]))


def test_a_matrix_of_another_shape_is_told_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"^theta: Projective wanted \(N, 8\) or \(N, 3, 3\), got \(3, 3\) float32"):
        Projective()(torch.eye(3))


def test_long_lists_of_landmarks_under_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_stn.transforms.spline_map._PIECE", 50)
    ends = thetas(LandmarkSpline(3), 1)
    xy = inner_points(1, 20, 2)
    map = SplineMap(ends[:, 0], ends[:, 1])
    found = map.jacobian(xy)  # by torch.func, through the pieces
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    wanted = torch.stack([(map.sources(xy + s) - map.sources(xy - s)) / 2e-6 for s in step], dim=-1)
    close(found, wanted, 1e-7)


def test_fields_meet_points_of_another_precision() -> None:
    field = draw(1, 4, 5, 2)
    xy = inner_points(1, 9, 2)
    close(FieldMap(field.float()).displacement(xy), FieldMap(field).displacement(xy), 1e-6)
