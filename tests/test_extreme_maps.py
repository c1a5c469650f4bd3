"""Maps at their limits: singular matrices, horizons, worlds in millimetres, empty batches, two precisions in a chain."""

import pytest
import torch
from cases import draw, inner_points, thetas
from map_contract import close
from torch import Tensor

from torch_stn import (
    Affine,
    LandmarkSpline,
    Projective,
    Rigid,
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
