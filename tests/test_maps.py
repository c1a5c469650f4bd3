"""Maps of any family: chains, boxes against brute force, dots that are rendered and found again."""

import math

import pytest
import torch
from cases import FAMILIES, pictures, thetas
from map_contract import close
from torch import Tensor

from torch_stn import (
    Affine,
    Basis,
    Map,
    Projective,
    Rigid,
    Sequence,
    ThinPlateSpline,
    Transform,
    Translation,
    lowered,
    warp,
)
from torch_stn.coordinates import base_grid, to_pixel

STILL = [name for name, family in FAMILIES.items() if family().has_identity]


@pytest.mark.parametrize("name", STILL)
def test_the_identity_through_warp(name: str) -> None:
    family = FAMILIES[name]()
    for size in ((9, 13), (1, 6)) if family.dims == 2 else ((5, 6, 7), (1, 3, 1)):
        image = pictures(1, size)
        still = family.identity()[None]
        assert torch.equal(warp(image, family(still.double()), backend="reference"), image)
        close(warp(image.float(), family(still)), image.float(), 1e-6)


def test_chains_of_matrices_are_one_matrix_however_they_are_put_together() -> None:
    a, b, c, spline = (family(thetas(family)) for family in (Affine(), Projective(), Translation(), ThinPlateSpline()))
    xy = base_grid((5, 4), dtype=torch.float64)[None]
    for chain in (a.then(b).then(c), a.then(b.then(c)), a.then(b).inverse().then(c)):
        assert isinstance(chain.lower((4, 4)), lowered.Matrix)
    wanted = spline.sources(a.sources(b.sources(c.sources(xy))))
    for chain in (spline.then(a).then(b).then(c), spline.then(a.then(b)).then(c), spline.then(a.then(b.then(c)))):
        assert isinstance(chain.second.lower((4, 4)), lowered.Matrix)  # type: ignore[attr-defined]
        assert isinstance(chain.first.lower((4, 4)), lowered.Basis)  # type: ignore[attr-defined]
        close(chain.sources(xy), wanted)
        close(lowered.displacement(chain.lower((5, 4)), xy[0]), wanted - xy)
    front = a.then(b.then(spline))
    assert isinstance(front.first.lower((4, 4)), lowered.Matrix)  # type: ignore[attr-defined]
    close(front.sources(xy), a.sources(b.sources(spline.sources(xy))))


def test_a_sequence_is_its_families_one_after_the_other() -> None:
    first, second = Rigid(), ThinPlateSpline(3)
    both = Sequence(first, second)
    theta = thetas(both)
    xy = base_grid((5, 4), dtype=torch.float64)[None]
    close(both(theta).sources(xy), first(theta[:, :3]).sources(second(theta[:, 3:]).sources(xy)))
    for families, error, message in (
        ((), ValueError, "^families: wanted at least one"),
        ((Affine(), "affine"), TypeError, "^families: wanted Transform objects .* got 'affine'"),
        ((Affine(), Affine(3)), ValueError, "^families: wanted 2-D ones as the first, got a 3-D one"),
    ):
        with pytest.raises(error, match=message):
            Sequence(*families)  # type: ignore[arg-type]


def test_slopes_of_second_order_pass_through_the_jacobian() -> None:
    """Penalties on folds train theta: the gradient of det J against differences."""
    for family in (Projective(), ThinPlateSpline(3)):
        theta = thetas(family, 1).requires_grad_()
        xy = base_grid((3, 4), dtype=torch.float64)[None]

        def folds(theta: Tensor, family: Transform = family, xy: Tensor = xy) -> Tensor:
            return torch.linalg.det(family(theta).jacobian(xy)).square().sum()

        assert torch.autograd.gradcheck(folds, theta)


def waving(amount: float, d: int) -> Map:
    """A map that bends every edge several times."""
    family = Basis(lambda p: torch.cat([p, torch.sin(4 * p.roll(1, dims=-1) + 1)], dim=-1), torch.eye(2 * d, d))
    theta = torch.cat([torch.eye(d), amount * torch.eye(d)]).double()
    return family(theta[None]).inverse()  # its points() are in closed form


@pytest.mark.parametrize("d", [2, 3])
def test_boxes_against_a_hundred_thousand_mapped_points(d: int) -> None:
    theta = torch.eye(d + 1).flatten()[:-1].double()
    theta[-d:] = 0.2
    boxes = torch.tensor([[-0.7, -0.4, -0.5][:d] + [0.3, 0.8, 0.6][:d], [0.1] * d + [0.15] * d]).double()[None]
    n = 317 if d == 2 else 47
    lattice = torch.cartesian_prod(*[torch.linspace(0, 1, n, dtype=torch.float64)] * d)
    assert len(lattice) > 1e5
    for map in (waving(0.15, d), Projective(d)(theta[None])):
        got = map.boxes(boxes)
        moved = map.points(boxes[:, :, None, :d] + (boxes[..., d:] - boxes[..., :d])[:, :, None] * lattice)
        low, high = moved.amin(dim=2), moved.amax(dim=2)
        beyond = torch.cat([low - got[..., :d], got[..., d:] - high], dim=-1)
        assert beyond.min() > -1e-9  # every point is inside
        assert beyond.max() < (2e-5 if d == 2 else 6e-4)  # what the lattice misses of the bend: its spacing squared


def test_boxes_that_hold_nothing_and_boxes_that_land_nowhere() -> None:
    nan = math.nan
    boxes = torch.tensor(
        [[[0.2, 0, 0.1, 1], [nan, 0, 1, 1], [0, 0, math.inf, 1], [0.3, 0.1, 0.3, 0.1], [0, 0, 0.5, 0]]]
    ).double()
    for family in (Affine(), ThinPlateSpline()):
        theta = family.identity()[None].double().requires_grad_()
        found = family(theta).boxes(boxes)
        assert torch.isnan(found[:, :3]).all()
        close(found[:, 3:], boxes[:, 3:], 1e-9)
        found[:, :3].nan_to_num().sum().backward(retain_graph=True)
        assert theta.grad is not None
        assert not theta.grad.any()
        assert family(theta).boxes(boxes[:, :0]).shape == (1, 0, 4)
    singular = Affine()(torch.zeros(1, 2, 3))
    assert torch.isnan(singular.boxes(torch.tensor([[[0.0, 0, 1, 1]]]))).all()
    half = Projective()(torch.tensor([[1.0, 0, 0, 0, 1, 0, -1, 0]]).double()).inverse()  # points() with w = 1 - x
    partly, behind = half.boxes(torch.tensor([[[0.0, 0, 2, 0.5], [1.5, 0, 2, 1]]]).double())[0]
    assert torch.isfinite(partly).all()
    assert partly[2] > 10
    assert torch.isnan(behind).all()


def test_where_a_map_leads_nowhere_its_jacobian_is_nan() -> None:
    behind = torch.tensor([[1.0, 0, 0, 0, 1, 0, -1, 0]]).double()
    xy = torch.tensor([[[2.0, 0.0], [0.5, 0.0], [math.nan, 0.0]]]).double()
    homography = Projective()(behind)
    for map in (homography, homography.then(ThinPlateSpline()(ThinPlateSpline().identity()[None].double()))):
        found = map.jacobian(xy)
        assert torch.isnan(found[:, 0]).all()
        assert torch.isfinite(found[:, 1]).all()
        assert torch.isnan(found[:, 2]).all()


SMOOTH = [
    "translation",
    "attention",
    "rigid",
    "similarity",
    "affine",
    "affine-bounded",
    "affine-exp",
    "projective",
    "tps",
]
SMOOTH += ["basis, learned", "sequence, global then local", "polar", "log-polar"]


@pytest.mark.parametrize("name", SMOOTH)
def test_a_dot_is_found_where_points_says(name: str) -> None:
    """Its centre of mass in the warped picture, to a hundredth of a pixel."""
    family = FAMILIES[name]()
    map, size = family(thetas(family, 1, spread=0.05)), (512, 512)
    at = torch.tensor([[[-0.55, -0.6]]], dtype=torch.float64)
    pixels = base_grid(size, dtype=torch.float64)
    # Small, since a bend pulls a wide dot's centre of mass along; read by a spline, since linear reading would blur it.
    width = 1.2 * 2 / 512
    dot = torch.exp(-(pixels - at[0]).square().sum(dim=-1) / (2 * width**2))[None, None]
    out = size if family.has_identity else (2048, 512)  # a full turn is six radii long
    shown = warp(dot, map, out, mode="bspline3")[0, 0]
    lit = shown.abs() > 1e-7
    found, mass = base_grid(out, dtype=torch.float64)[lit], shown[lit]
    mass = (
        mass * torch.linalg.det(map.jacobian(found[None]))[0].abs()
    )  # where the map zooms in, the dot has more pixels
    centre = (found * mass[:, None]).sum(dim=0) / mass.sum()
    error = to_pixel(centre, out) - to_pixel(map.points(at)[0, 0], out)
    assert error.abs().max() < 0.01, error


def test_labels_keep_their_values() -> None:
    labels = torch.randint(0, 5, (2, 1, 20, 20)).float()
    for family in (Rigid(), ThinPlateSpline()):
        read = warp(labels, family(thetas(family)), mode="nearest", fill=-1.0)
        assert set(read.unique().tolist()) <= {-1.0, 0.0, 1.0, 2.0, 3.0, 4.0}
