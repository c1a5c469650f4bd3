"""What splines, fields and flows promise beyond the contract of every family, against independent truths."""

import math

import numpy as np
import pytest
import torch
from cases import draw, inner_points, thetas
from family_contract import close
from torch import Tensor
from torch.autograd import gradcheck

from torch_stn import (
    CPAB,
    Affine,
    Basis,
    DisplacementField,
    FieldMap,
    FreeFormDeformation,
    LandmarkSpline,
    Map,
    PolyharmonicSpline,
    SplineMap,
    ThinPlateSpline,
    Transform,
    VelocityField,
    exponential,
    logarithm,
    warp,
)
from torch_stn.coordinates import base_grid
from torch_stn.transforms.tessellation import Tessellation
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

    @pytest.mark.parametrize(("dims", "reach", "count", "rest"), [(2, 40.0, 1600, 0.02), (3, 12.0, 140, 0.12)])
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
        kornia = pytest.importorskip("kornia")
        control, sources = inner_points(2, 9, 2), inner_points(2, 9, 2) + 0.05 * inner_points(2, 9, 2, seed=4)
        xy = inner_points(2, 30, 2, seed=9)
        kernel, affine = kornia.geometry.transform.get_tps_transform(control, sources)
        wanted = kornia.geometry.transform.warp_points_tps(xy, control, kernel, affine)
        # kornia adds 1e-8 to the squared distances, so that it agrees to about that only.
        close(SplineMap(control, sources).sources(xy), wanted, 1e-4)

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

    def test_a_fold_reads_outside_and_everything_else_is_found(self) -> None:
        field = torch.zeros(1, 64, 64, 2, dtype=torch.float64)
        x = base_grid((64, 64), dtype=torch.float64)[..., 0]
        field[0, ..., 0] = -1.5 * x * torch.exp(-((x / 0.2) ** 2))  # turns round at the middle
        inverse = FieldMap(field).inverse()
        xy = inner_points(1, 400, 2)
        found = inverse.sources(xy)
        good = torch.isfinite(found).all(dim=-1)
        assert not good[xy[..., 0].abs() < 0.02].any()
        assert good[xy[..., 0].abs() > 0.3].all()
        close(FieldMap(field).sources(found)[good], xy[good], 1e-10)

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
        velocity = swirl((48, 48), 0.15)
        map = VelocityMap(velocity)
        log = logarithm(map, (48, 48))
        inside = (slice(None), slice(8, -8), slice(8, -8))
        close(log[inside], velocity[inside], 1e-3)
        xy = inner_points(1, 200, 2, reach=0.6)
        close(VelocityMap(log).sources(xy), map.sources(xy), 2e-4)

    def test_points_are_those_of_the_exact_inverse(self) -> None:
        map = VelocityField((8, 8))(thetas(VelocityField((8, 8))))
        xy = inner_points(2, 30, 2, reach=0.6)
        close(map.sources(map.points(xy)), xy, 1e-10)
        assert (map.inverse().sources(map.sources(xy)) - xy).abs().max() < 0.02


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
        integrate = pytest.importorskip("scipy.integrate")
        family = CPAB(boxes, **options)
        theta = 0.3 * torch.randn(1, *family.theta_shape, generator=torch.Generator().manual_seed(1)).double()
        mesh = Tessellation.of_boxes(boxes)
        velocity = (mesh.extension @ family.velocities(theta)[0]).numpy()
        cells, barycentric = mesh.simplices.numpy(), mesh.barycentric.numpy()

        def field(_: float, x: np.ndarray) -> np.ndarray:
            coordinates = barycentric @ np.append(x, 1)
            cell = coordinates.min(axis=1).argmax()
            return coordinates[cell] @ velocity[cells[cell]]

        reach = 1.0 if options else 1.3
        xy = inner_points(1, 25, len(boxes), reach=reach)
        wanted = [integrate.solve_ivp(field, (0, 1), x, rtol=1e-10, atol=1e-10).y[:, -1] for x in xy[0].numpy()]
        got = xy + family.displacement(theta, xy)
        assert (got - xy).abs().max() > 0.1
        assert (got[0] - torch.from_numpy(np.stack(wanted))).abs().max() * HALF < 1e-3
        back = got + family.displacement(-theta, got)
        assert (back - xy).abs().max() * HALF < 1e-3

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
            ({"boxes": (2, 0)}, "^boxes: wanted"),
            ({"boxes": (1,), "zero_boundary": True}, "^boxes: no velocity but 0 meets the constraints"),
            ({"steps": 0}, "^steps, crossings: wanted"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            CPAB(**arguments)  # type: ignore[arg-type]


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
    """Dots are drawn, warped, and found again by their centre of mass."""
    spread = 0.02 if isinstance(family, ThinPlateSpline) else 0.05
    map = family(thetas(family, 1, spread=spread))
    n, sigma = 256, 2.5
    dots = inner_points(1, 6, 2, reach=0.6, seed=11)
    landed = (map.points(dots)[0] + 1) * n / 2 - 0.5
    pixels = torch.arange(n, dtype=torch.float64)
    for dot, point in zip((dots[0] + 1) * n / 2 - 0.5, landed, strict=True):
        bumps = [torch.exp(-(((pixels - x) / sigma) ** 2) / 2) for x in dot]
        picture = warp((bumps[1][:, None] * bumps[0])[None, None], map)[0, 0]
        # The brightest place, by a parabola through the logarithm, which is that of a Gaussian: curvature moves the mean.
        y, x = divmod(int(picture.argmax()), n)
        patch = picture[y - 1 : y + 2, x - 1 : x + 2].log()
        offsets = [(line[0] - line[2]) / (2 * (line[0] - 2 * line[1] + line[2])) for line in (patch[1], patch[:, 1])]
        found = torch.stack([x + offsets[0], y + offsets[1]])
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


def test_volumes_of_affine_theta_stay_affine_under_splines() -> None:
    family = ThinPlateSpline((2, 2, 3), dims=3)
    affine = Affine(3)(thetas(Affine(3), 1))
    theta, xyz = affine.sources(family.control_points[None].double()), inner_points(1, 20, 3)
    close(family(theta).sources(xyz), affine.sources(xyz), 1e-10)
    assert gradcheck(family.bending_energy, (theta.requires_grad_(),), atol=1e-4)
