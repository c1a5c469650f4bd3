"""Families that are one matrix: what single families promise beyond the contract of all."""

import math

import pytest
import scipy.linalg
import torch
from cases import inner_points, thetas
from map_contract import close
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_stn import (
    Affine,
    Attention,
    BoundedAffine,
    ExponentialAffine,
    Projective,
    Rigid,
    Sequence,
    Similarity,
    ThinPlateSpline,
    Transform,
    Translation,
    lowered,
    warp,
)


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


def linear(family: Transform, theta: Tensor) -> Tensor:
    """The matrix of a family without its shift."""
    return family(theta).matrix[..., :-1]  # type: ignore[attr-defined]


class TestRigid:
    def test_axis_angle_and_quaternion_against_scipy(self) -> None:
        vectors = 2 * torch.randn(50, 3, dtype=torch.float64)
        vectors[:4] *= torch.tensor([[1e-9], [1e-4], [0.2], [0.0]])
        vectors[4] *= 3.1 / vectors[4].norm()
        rotations = Rotation.from_rotvec(vectors.numpy())
        wanted = torch.from_numpy(rotations.as_matrix())
        shift = torch.zeros(50, 3, dtype=torch.float64)
        close(linear(Rigid(3), torch.cat([vectors, shift], dim=1)), wanted, 1e-14)
        quaternions = 3 * torch.from_numpy(rotations.as_quat(scalar_first=True))
        close(linear(Rigid(3, rotation="quaternion"), torch.cat([quaternions, shift], dim=1)), wanted, 1e-14)

    @pytest.mark.parametrize("rotation", ["axis-angle", "quaternion"])
    def test_derivatives_at_no_rotation(self, rotation: str) -> None:
        family = Rigid(3, rotation=rotation)
        theta = family.identity()[None].double().requires_grad_()
        xyz = inner_points(1, 3, 3)
        assert gradcheck(lambda t: family(t).sources(xyz), theta)
        assert gradgradcheck(lambda t: family(t).sources(xyz), theta)
        tiny = (family.identity()[None].double() + 1e-200).requires_grad_()
        family(tiny).sources(xyz).sum().backward()
        assert tiny.grad is not None
        assert torch.isfinite(tiny.grad).all()

    def test_series_and_sine_meet(self) -> None:
        edge = math.sqrt(0.5)
        angles = torch.tensor([edge - 1e-9, edge, edge + 1e-9, edge * 2], dtype=torch.float64)
        theta = torch.stack([angles * 0, angles * 0, angles, *[angles * 0] * 3], dim=1)
        close(
            linear(Rigid(3), theta)[:, :2, :2], linear(Rigid(), torch.stack([angles, *[angles * 0] * 2], dim=1)), 1e-15
        )

    def test_distances_of_pixels_stay(self) -> None:
        extents = torch.tensor([30.0, 20.0, 12.0], dtype=torch.float64)
        for rotation, shape in (("axis-angle", 6), ("quaternion", 7)):
            family = Rigid(3, aspect=(30, 20, 12), rotation=rotation)
            theta = torch.randn(2, shape, dtype=torch.float64)
            xyz = inner_points(2, 9, 3)
            moved = family(theta).sources(xyz) * extents
            close(torch.cdist(moved, moved), torch.cdist(xyz * extents, xyz * extents))

    def test_a_zero_quaternion_is_an_error_or_leads_nowhere(self) -> None:
        family = Rigid(3, rotation="quaternion")
        theta = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.5, 0, 0]])
        with pytest.raises(ValueError, match=r"^theta: wanted a quaternion .* not zero, got one that is not, sample 1"):
            family(theta)
        xyz = torch.zeros(2, 1, 3)
        found = torch.vmap(lambda t: family(t[None]).sources(xyz[:1])[0])(theta)  # nobody can look there
        assert torch.isfinite(found).all(dim=-1).tolist() == [[True], [False]]

    @pytest.mark.slow
    def test_a_compiled_zero_quaternion_pulls_at_nothing(self) -> None:
        family = Rigid(3, rotation="quaternion")
        theta = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.5, 0, 0]])
        xyz = torch.zeros(2, 1, 3)
        compiled = torch.compile(lambda t: family(t).sources(xyz), backend="aot_eager", fullgraph=True)
        theta.requires_grad_()
        found = compiled(theta)
        assert torch.isfinite(found).all(dim=-1).tolist() == [[True], [False]]
        found[0].sum().backward()
        assert theta.grad is not None
        assert torch.isfinite(theta.grad).all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"dims": 4}, "dims: wanted 2 or 3, got 4"),
            ({"rotation": "quaternion"}, "rotation: wanted one of 'angle', got 'quaternion'"),
            ({"dims": 3, "rotation": "euler"}, "rotation: wanted one of 'axis-angle', 'quaternion', got 'euler'"),
            ({"dims": 3, "aspect": 2.0}, r"aspect: wanted \(x, y, z\) extents, or 1 for a cube, .*got 2.0"),
            ({"dims": 3, "aspect": (1, 2)}, r"aspect: wanted .* got \(1, 2\)"),
            ({"aspect": (1, 0)}, r"aspect: wanted .* > 0, got \(1, 0\)"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, object], message: str) -> None:
        for family in (Rigid, Similarity):
            with pytest.raises(ValueError, match=message):
                family(**arguments)  # type: ignore[arg-type]


class TestBoundedAffine:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_scale_then_shear_then_rotation(self, dims: int) -> None:
        """Without bounds it is the QR decomposition, with its positive diagonal."""
        bounds = dict.fromkeys(("max_rotation", "max_log_scale", "max_shear", "max_translation"), math.inf)
        family = BoundedAffine(dims, **bounds)
        theta = 0.5 * torch.randn(4, *family.theta_shape, dtype=torch.float64)
        got = linear(family, theta)
        turns, scales, shears, shift = theta.split(family.counts, dim=1)
        still = torch.zeros(4, dims, dtype=torch.float64)
        q, r = torch.linalg.qr(got)
        signs = r.diagonal(dim1=1, dim2=2).sign()
        q, r = q * signs[:, None], r * signs[..., None]
        close(q, linear(Rigid(dims), torch.cat([turns, still], dim=1)), 1e-12)
        close(r.diagonal(dim1=1, dim2=2), scales.exp(), 1e-12)
        sheared = r / scales.exp()[:, None]  # K
        above = torch.triu_indices(dims, dims, 1)
        close(sheared[:, above[0], above[1]], shears, 1e-12)
        close(family(theta).matrix[..., -1], shift)  # type: ignore[attr-defined]

    def test_nothing_leaves_its_bounds(self) -> None:
        family = BoundedAffine(max_rotation=0.5, max_log_scale=math.log(2), max_shear=0.25, max_translation=0.1)
        for sign in (-1e3, 1e3):
            ends = family(torch.full((1, 6), sign, dtype=torch.float64)).matrix[0]  # type: ignore[attr-defined]
            close(ends[:, 2], torch.full((2,), math.copysign(0.1, sign), dtype=torch.float64))
            close(
                torch.linalg.det(ends[:, :2]).reshape(1), torch.tensor([4.0 ** math.copysign(1, sign)]).double(), 1e-12
            )
            close(torch.atan2(ends[1, 0], ends[0, 0])[None], torch.tensor([math.copysign(0.5, sign)]).double())

    def test_a_wrong_bound_is_named(self) -> None:
        for name in ("max_rotation", "max_log_scale", "max_shear", "max_translation"):
            for bad in (0.0, -1.0, math.nan):
                with pytest.raises(ValueError, match=f"^{name}: wanted a number > 0, got"):
                    BoundedAffine(**{name: bad})


class TestExponentialAffine:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_against_scipy(self, dims: int) -> None:
        family = ExponentialAffine(dims)
        for spread in (1e-6, 0.1, 1.0, 3.0):
            theta = spread * torch.randn(3, dims, dims + 1, dtype=torch.float64)
            generators = torch.cat([theta, torch.zeros(3, 1, dims + 1)], dim=1)
            wanted = torch.stack([torch.from_numpy(scipy.linalg.expm(g.numpy())) for g in generators])
            got = family(theta).homogeneous()  # type: ignore[attr-defined]
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12 * wanted.abs().max().item())

    def test_minus_theta_is_the_inverse_and_half_is_half_the_way(self) -> None:
        theta, xy = 0.5 * torch.randn(2, 2, 3, dtype=torch.float64), inner_points(2, 9, 2)
        family = ExponentialAffine()
        close(family(-theta).sources(xy), family(theta).points(xy), 1e-12)
        half = family(theta / 2)
        close(half.then(half).sources(xy), family(theta).sources(xy), 1e-12)


MATRICES = {
    "translation": Translation(), "attention": Attention(), "rigid": Rigid(), "rigid 3-D": Rigid(3), "similarity": Similarity(),
    "quaternion": Rigid(3, rotation="quaternion"), "affine": Affine(), "affine 3-D": Affine(3), "bounded": BoundedAffine(),
    "bounded 3-D": BoundedAffine(3), "exponential": ExponentialAffine(), "projective": Projective(), "projective 3-D": Projective(3),
    "sequence": Sequence(Rigid(), Projective(), Affine()),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_there_and_back_at_512_pixels_in_float32(name: str) -> None:
    family = MATRICES[name]
    theta, d = thetas(family).float(), family.dims
    map, xy = family(theta), inner_points(2, 20000, d, reach=1.0).float()
    error = (map.points(map.sources(xy)).double() - xy.double()) * 256
    assert error.abs().max() < 1e-4


def test_projective_in_space_is_the_division_by_w() -> None:
    matrix = torch.eye(4, dtype=torch.float64) + 0.1 * torch.randn(2, 4, 4, dtype=torch.float64)
    xyz = inner_points(2, 20, 3)
    p = torch.cat([xyz, torch.ones(2, 20, 1)], dim=-1) @ matrix.mT
    assert (p[..., 3] > 0.1).all()
    close(Projective(3)(matrix).sources(xyz), p[..., :3] / p[..., 3:])
    close(Projective(3)((matrix / matrix[:, 3:, 3:]).flatten(1)[:, :15]).sources(xyz), p[..., :3] / p[..., 3:])


@pytest.mark.slow  # kornia takes seconds to load
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_projective_against_kornia_where_that_is_right() -> None:
    """With align_corners=True, for which kornia's normalised plane is the one that its sampler reads."""
    geometry = pytest.importorskip("kornia.geometry", reason="kornia is not installed")
    matrix = torch.eye(3, dtype=torch.float64) + 0.1 * torch.randn(2, 3, 3, dtype=torch.float64)
    image = torch.rand(2, 3, 11, 14, dtype=torch.float64)
    wanted = geometry.homography_warp(image, matrix, (9, 12), align_corners=True, normalized_homography=True)
    close(warp(image, Projective()(matrix), (9, 12), align_corners=True), wanted, 1e-10)
    xy = inner_points(2, 20, 2)
    close(Projective()(matrix).sources(xy), geometry.transform_points(matrix, xy), 1e-12)
