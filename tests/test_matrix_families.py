"""Families that are one matrix: what single families promise beyond the contract of all."""

import math

import pytest
import torch
from cases import inner_points, thetas
from map_contract import close

from torch_stn import Affine, Attention, Projective, Similarity, ThinPlateSpline, Translation, lowered, warp


def test_inverse_and_composition_of_matrices_stay_matrices() -> None:
    affine, homography, shift = (f(thetas(f)) for f in (Affine(), Projective(), Translation()))
    inverses = [affine.inverse(), homography.inverse()]
    for map in (*inverses, affine.then(homography), shift.then(affine), affine.then(shift)):
        assert isinstance(map.lower((4, 4)), lowered.Matrix)
    xy = inner_points(2, 9, 2)
    close(affine.then(homography).sources(xy), affine.sources(homography.sources(xy)))
    close(homography.then(affine).sources(xy), homography.sources(affine.sources(xy)))


def test_a_singular_matrix_has_an_inverse_that_reads_outside() -> None:
    theta = torch.tensor([[[0.0, 0, 0], [0, 0, 0]], [[1, 2, 0], [2, 4, 0]], [[1, 0, 0.5], [0, 0, 0]]])
    inverse = Affine()(theta).inverse()
    xy = inner_points(3, 20, 2).float()
    assert not torch.isfinite(inverse.sources(xy)).all(dim=-1).any()
    values, mask = warp(torch.ones(3, 1, 4, 4), inverse, return_mask=True, padding_mode="border", fill=0.25)
    assert torch.equal(values, torch.full_like(values, 0.25))
    assert not mask.any()


class TestProjective:
    def test_scale_of_a_full_matrix_does_not_matter_its_sign_does(self) -> None:
        matrix = torch.eye(3, dtype=torch.float64) + 0.1 * torch.randn(2, 3, 3, dtype=torch.float64)
        xy = inner_points(2, 20, 2)
        wanted = Projective()(matrix).sources(xy)
        close(Projective()(3 * matrix).sources(xy), wanted)
        close(Projective()(matrix / 7).inverse().sources(wanted), xy)
        assert not torch.isfinite(Projective()(-matrix).sources(xy)).any()

    def test_eight_numbers_are_the_matrix_row_by_row(self) -> None:
        theta = thetas(Projective())
        matrix = torch.cat([theta, torch.ones(2, 1, dtype=torch.float64)], dim=1).reshape(2, 3, 3)
        xy = inner_points(2, 20, 2)
        close(Projective()(theta).sources(xy), Projective()(matrix).sources(xy))
        assert Projective().num_params == 8

    def test_a_point_behind_the_camera_is_nowhere_and_pulls_at_nothing(self) -> None:
        theta = torch.tensor([[1.0, 0, 0, 0, 1, 0, -1, 0]], dtype=torch.float64, requires_grad=True)  # w = 1 - x
        xy = torch.tensor([[[0.5, 0.3], [1 - 0.5e-6, 0.0], [1.0, 0.2], [2.0, -1]]], dtype=torch.float64)
        xy.requires_grad_()
        sources = Projective()(theta).sources(xy)
        assert torch.isfinite(sources).all(dim=-1).tolist() == [[True, False, False, False]]
        torch.nan_to_num(sources[:, 1:], posinf=0.0, neginf=0.0).sum().backward()
        assert theta.grad is not None
        assert not theta.grad.any()

    def test_composition_keeps_what_is_outside_outside(self) -> None:
        behind = Projective()(torch.tensor([[1.0, 0, 0, 0, 1, 0, -2, 0]]))
        spline = ThinPlateSpline()
        theta = spline.identity()[None].clone().requires_grad_()
        xy = torch.tensor([[[0.9, 0.0], [0.1, 0.0]]])
        sources = spline(theta).then(behind).sources(xy)
        assert torch.isfinite(sources).all(dim=-1).tolist() == [[False, True]]
        sources[:, 1].sum().backward()
        assert theta.grad is not None
        assert torch.isfinite(theta.grad).all()


class TestSimilarity:
    def test_rotates_pixels_not_normalised_coordinates(self) -> None:
        """On an image of 40 x 20 a turn moves no two pixels nearer to each other."""
        turn = Similarity(aspect=40 / 20)(torch.tensor([[0.7, 0.0, 0.1, -0.2]], dtype=torch.float64))
        pixels = torch.tensor([20.0, 10.0], dtype=torch.float64)  # per normalised unit along x and y
        xy = inner_points(1, 10, 2)
        close(torch.cdist(turn.sources(xy) * pixels, turn.sources(xy) * pixels), torch.cdist(xy * pixels, xy * pixels))

    def test_log_scale_and_angle(self) -> None:
        map = Similarity()(torch.tensor([[math.pi / 6, math.log(2), 0.5, 0.25]], dtype=torch.float64))
        wanted = torch.tensor([[[2 * math.cos(math.pi / 6) + 0.5, 2 * math.sin(math.pi / 6) + 0.25]]])
        close(map.sources(torch.tensor([[[1.0, 0.0]]])), wanted.double(), 1e-7)

    @pytest.mark.parametrize("aspect", [0, -1.0, math.nan, math.inf])
    def test_a_wrong_aspect_is_named(self, aspect: float) -> None:
        with pytest.raises(ValueError, match=r"^aspect: wanted .* > 0, got"):
            Similarity(aspect=aspect)


@pytest.mark.parametrize("family", [Translation, Attention, Affine])
def test_only_planes_and_volumes(family: type[Translation | Attention | Affine]) -> None:
    assert [family(2).dims, family(3).dims] == [2, 3]
    with pytest.raises(ValueError, match=r"^dims: wanted 2 or 3, got 4"):
        family(4)
