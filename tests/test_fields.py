"""Displacement and velocity fields, and what all smooth families promise at 512 pixels, against independent truths."""

import math

import pytest
import torch
from cases import draw, inner_points, thetas
from map_contract import close
from torch import Tensor

from torch_stn import (
    CPAB,
    Basis,
    DisplacementField,
    FieldMap,
    FreeFormDeformation,
    LandmarkSpline,
    Map,
    PolyharmonicSpline,
    ThinPlateSpline,
    Transform,
    VelocityField,
    exponential,
    logarithm,
    warp,
)
from torch_stn.coordinates import base_grid
from torch_stn.transforms.velocity import VelocityMap

HALF = 256  # pixels per normalised unit, of 512


def swirl(size: tuple[int, ...], strength: float = 0.1) -> Tensor:
    """A smooth field (1, *size, d), float64, at the pixel centres: sines along every axis."""
    grid = base_grid(size, dtype=torch.float64)
    d = grid.shape[-1]
    turned = [torch.sin(2.1 * grid[..., (i + 1) % d] + 0.4 * i) * torch.cos(1.3 * grid[..., i]) for i in range(d)]
    return strength * torch.stack(turned, dim=-1)[None]


def there_and_back(map: Map, inverse: Map, reach: float = 0.8) -> float:
    """The largest error in pixels over a grid of 512 x 512 points within ``reach``."""
    xy = (reach * base_grid((512, 512), dtype=map.dtype))[None]
    return ((inverse.sources(map.sources(xy)) - xy).abs().max() * HALF).item()


class TestInverseAt512:
    """float32; the families' own claims, in pixels."""

    def test_thin_plate(self) -> None:
        map = ThinPlateSpline()(thetas(ThinPlateSpline(), 1).float())
        assert there_and_back(map, map.inverse()) < 1e-4

    def test_free_form(self) -> None:
        family = FreeFormDeformation((6, 6))
        map = family(thetas(family, 1).float())
        assert there_and_back(map, map.inverse()) < 1e-4

    def test_displacement(self) -> None:
        map = FieldMap(swirl((512, 512)).float())
        assert there_and_back(map, map.inverse()) < 1e-4

    def test_velocity_by_its_negative_and_exactly(self) -> None:
        map = VelocityMap(swirl((512, 512)).float())
        assert there_and_back(map, map.inverse()) < 0.03
        assert there_and_back(map, map.inverse(exact=True)) < 1e-4

    @pytest.mark.parametrize(("nodes", "pixels"), [(8, 2.0), (64, 0.15)])
    def test_a_coarse_velocity_is_undone_as_well_as_its_lattice_allows(self, nodes: int, pixels: float) -> None:
        theta = thetas(VelocityField((8, 8)), 1).float()
        map = VelocityField((8, 8), integration_size=(nodes, nodes))(theta)
        xy = inner_points(1, 2000, 2).float()
        back = map.inverse().sources(map.sources(xy))
        off = (back - xy).abs().amax(dim=-1)[map.sources(xy).abs().amax(dim=-1) < 0.95].max() * HALF
        assert pixels / 5 < off < pixels  # as the docstring says


@pytest.mark.parametrize(
    "family",
    [
        ThinPlateSpline(2, dims=3),
        PolyharmonicSpline(4, order=5),
        LandmarkSpline(),
        FreeFormDeformation((4, 5), levels=2),
        DisplacementField((3, 7)),
        DisplacementField((3, 4, 2)),
        VelocityField((4, 3)),
        CPAB((2, 3)),
        CPAB((1, 2, 1)),
    ],
    ids=lambda family: f"{type(family).__name__} {family.dims}-D",
)
def test_the_identity_warps_exactly(family: Transform) -> None:
    for dtype in (torch.float32, torch.float64):
        image = draw(1, 2, *((9, 14) if family.dims == 2 else (4, 6, 5)), dtype=dtype)
        warped = warp(image, family(family.identity()[None].to(dtype)), backend="reference")
        assert torch.equal(warped, image)


class TestDisplacement:
    def test_is_linear_between_its_pixels_as_torch_upsamples(self) -> None:
        for size, wanted in (((5, 4), (13, 9)), ((3, 4, 2), (5, 4, 7))):
            theta = draw(2, *size, len(size))
            for corners in (False, True):
                map = DisplacementField(size, align_corners=corners)(theta)
                mode = "bilinear" if len(size) == 2 else "trilinear"
                up = torch.nn.functional.interpolate(theta.movedim(-1, 1), wanted, mode=mode, align_corners=corners)
                got = map.grid(wanted, align_corners=corners) - base_grid(
                    wanted, align_corners=corners, dtype=torch.float64
                )
                close(got, up.movedim(1, -1))

    def test_pixels_shift_by_pixels(self) -> None:
        image = draw(1, 1, 6, 8)
        theta = torch.zeros(1, 6, 8, 2, dtype=torch.float64)
        theta[..., 0], theta[..., 1] = 2, -1
        shifted = warp(image, DisplacementField((6, 8), units="pixel")(theta))
        close(shifted[..., 1:, :-2], image[..., :-1, 2:])

    def test_of_a_fold_no_mirrored_sheet_is_found(self) -> None:
        field = torch.zeros(1, 64, 64, 2, dtype=torch.float64)
        x = base_grid((64, 64), dtype=torch.float64)[..., 0]
        field[0, ..., 0] = -1.5 * x * torch.exp(-((x / 0.2) ** 2))  # turns round at the middle
        map = FieldMap(field)
        xy = torch.cat([inner_points(1, 400, 2), inner_points(1, 100, 2, reach=0.02, seed=1)], dim=1)
        found = map.inverse().sources(xy)
        good = torch.isfinite(found).all(dim=-1)
        assert not good.all(), "nothing here is out of reach: this test says nothing"
        assert good[xy[..., 0].abs() > 0.3].all()
        close(map.sources(found)[good], xy[good], 1e-10)
        # Near the middle the picture is mirrored; what is found lies on a sheet that is not.
        assert (torch.linalg.det(map.jacobian(found))[good] > 0).all()
        assert found[good][:, 0].abs().gt(0.1).logical_or(xy[good][:, 0].abs() > 0.1).all()

    def test_nan_points_and_points_far_away(self) -> None:
        for family in (DisplacementField((4, 5)), FreeFormDeformation(), VelocityField((4, 4)), CPAB((2, 2))):
            map = family(thetas(family))
            xy = torch.tensor([[[math.nan, 0.0], [0.2, 0.1], [50.0, -70.0]]], dtype=torch.float64)
            moved = map.sources(xy)
            assert torch.isfinite(moved).all(dim=-1).tolist() == [[False, True, True]] * 2
            assert (moved[:, 2] - xy[:, 2]).abs().max() < 1

    @pytest.mark.parametrize("family", [DisplacementField, VelocityField])
    def test_bad_arguments_are_named(self, family: type[DisplacementField | VelocityField]) -> None:
        for arguments, message in (
            ({"size": (4,)}, "^size: wanted"),
            ({"size": (4, 0)}, "^size: "),
            ({"size": (4, 4), "units": "mm"}, "^units: wanted one of 'normalized', 'pixel', got 'mm'"),
        ):
            with pytest.raises(ValueError, match=message):
                family(**arguments)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^squarings: wanted a whole number"):
            VelocityField((4, 4), squarings=-1)


class TestVelocity:
    def test_against_fine_euler(self) -> None:
        velocity = swirl((192, 192), 0.3)
        map = VelocityMap(velocity)
        start = (0.6 * base_grid((24, 24), dtype=torch.float64)).flatten(0, 1)[None]
        at, flow, steps = start, FieldMap(velocity), 4096
        for _ in range(steps):
            at = at + flow.displacement(at) / steps
        moved = (at - start).norm(dim=-1).max()
        assert moved > 0.15
        assert (map.sources(start) - at).abs().max() * HALF < 0.03

    def test_a_linear_field_is_the_matrix_exponential(self) -> None:
        matrix = torch.tensor([[0.2, -0.9], [0.9, 0.1]], dtype=torch.float64)
        grid = base_grid((65, 65), dtype=torch.float64)
        exact = torch.matrix_exp(matrix)
        xy = inner_points(1, 50, 2, reach=0.35)
        close(VelocityMap((grid @ matrix.T)[None]).sources(xy), xy @ exact.T, 2e-5)

    def test_more_squarings_change_nothing(self) -> None:
        velocity = swirl((64, 64), 0.3)
        close(exponential(velocity), exponential(velocity, squarings=12), 2e-5)

    def test_the_logarithm_undoes_the_exponential(self) -> None:
        fade = torch.cos(torch.pi / 2 * base_grid((48, 48), dtype=torch.float64)).square().prod(dim=-1, keepdim=True)
        velocity = swirl((48, 48), 0.15) * fade
        map = VelocityMap(velocity)
        log = logarithm(map, (48, 48))
        close(log, velocity, 1e-3)
        close(exponential(log), exponential(velocity), 1e-3)  # 0.024 of a node's distance

    def test_points_are_those_of_the_exact_inverse(self) -> None:
        map = VelocityField((8, 8))(thetas(VelocityField((8, 8))))
        xy = inner_points(2, 30, 2, reach=0.6)
        close(map.sources(map.points(xy)), xy, 1e-10)
        assert (map.inverse().sources(map.sources(xy)) - xy).abs().max() < 0.02


@pytest.mark.parametrize(
    "family",
    [
        ThinPlateSpline(),
        FreeFormDeformation((6, 6)),
        DisplacementField((24, 24)),
        VelocityField((24, 24)),
        CPAB((3, 3)),
    ],
    ids=lambda family: type(family).__name__,
)
def test_points_are_where_the_dots_of_the_warped_picture_lie(family: Transform) -> None:
    """Dots are drawn, warped, and found again where they are brightest."""
    spread = 0.02 if isinstance(family, ThinPlateSpline) else 0.05
    map = family(thetas(family, 1, spread=spread))
    n, sigma = 256, 4.0
    dots = inner_points(1, 6, 2, reach=0.6, seed=11)
    landed = (map.points(dots)[0] + 1) * n / 2 - 0.5
    pixels = torch.arange(n, dtype=torch.float64)
    for dot, point in zip((dots[0] + 1) * n / 2 - 0.5, landed, strict=True):
        bumps = [torch.exp(-(((pixels - x) / sigma) ** 2) / 2) for x in dot]
        picture = warp((bumps[1][:, None] * bumps[0])[None, None], map, mode="bspline5")[0, 0]
        # The brightest place: the top of the paraboloid through the logarithm, which is that of a Gaussian.
        y, x = divmod(int(picture.argmax()), n)
        p = picture[y - 1 : y + 2, x - 1 : x + 2].log()
        cross = (p[2, 2] - p[2, 0] - p[0, 2] + p[0, 0]) / 4
        xx, yy = p[1, 2] - 2 * p[1, 1] + p[1, 0], p[2, 1] - 2 * p[1, 1] + p[0, 1]
        slope = torch.stack([p[1, 2] - p[1, 0], p[2, 1] - p[0, 1]]) / 2
        hessian = torch.stack([torch.stack([xx, cross]), torch.stack([cross, yy])])
        found = torch.tensor([x, y]) - torch.linalg.solve(hessian, slope)
        assert (found - point).abs().max() < 0.01


def test_a_learned_basis_learns_through_warp() -> None:
    class Waves(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rates = torch.nn.Parameter(torch.tensor([[1.0, 2.0]], dtype=torch.float64))

        def forward(self, xy: Tensor) -> Tensor:
            return torch.cat([xy, torch.sin(xy @ self.rates.to(xy.dtype).mT)], dim=-1)

    family = Basis(Waves(), torch.eye(3, 2, dtype=torch.float64))
    theta, image = thetas(family, 1), draw(1, 1, 6, 7)

    warp(image, family(theta)).square().sum().backward()
    (parameter,) = family.parameters()
    assert parameter.grad is not None
    assert parameter.grad.abs().min() > 0
    before, size = parameter.detach().clone(), 1e-6
    slopes = []
    for shift in ([size, 0.0], [0.0, size]):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.copy_(before + sign * torch.tensor([shift], dtype=torch.float64))
                values.append(warp(image, family(theta)).square().sum())
        slopes.append((values[0] - values[1]) / (2 * size))
    close(parameter.grad, torch.stack(slopes)[None], 1e-5)
