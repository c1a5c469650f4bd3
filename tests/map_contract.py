"""What every map must do: inverse, composition, boxes, derivatives. The second half of the contract of families."""

from collections.abc import Callable

import pytest
import torch
from cases import SIZES, inner_points, thetas, waves
from torch import Tensor
from torch.autograd import gradcheck

from torch_stn import Map, Transform, sample, warp
from torch_stn.coordinates import base_grid
from torch_stn.transforms.velocity import VelocityMap


def close(got: Tensor, wanted: Tensor, atol: float = 1e-12) -> None:
    """Equal shape, dtype and, up to an absolute tolerance, numbers."""
    torch.testing.assert_close(got, wanted, rtol=0, atol=atol)


def undo(map: Map) -> Map:
    """The exact inverse; a velocity field also has a quick one, exp(-v), which is as exact as its lattice is fine."""
    return map.inverse(exact=True) if isinstance(map, VelocityMap) else map.inverse()


class MapContract:
    """The shared tests; `family` is a fresh Transform."""

    def test_inverse_there_and_back(self, family: Transform) -> None:
        for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
            map = family(thetas(family).to(dtype))
            inverse, xy = undo(map), inner_points(2, 40, family.dims, reach=0.7).to(dtype)
            assert (inverse.batch, inverse.dims, inverse.dtype) == (2, family.dims, dtype)
            close(inverse.sources(map.sources(xy)), xy, atol)
            close(map.sources(inverse.sources(xy)), xy, atol)
            close(inverse.inverse().sources(xy), map.sources(xy), atol)
            close(map.points(xy), inverse.sources(xy), atol)  # a chain takes points map by map

    def test_the_inverse_has_the_gradient_of_the_implicit_function(self, family: Transform) -> None:
        family.double()
        theta = thetas(family).requires_grad_()
        xy = inner_points(2, 3, family.dims, reach=0.6).requires_grad_()
        assert gradcheck(lambda theta, xy: family(theta).inverse().sources(xy), (theta, xy), fast_mode=True)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_inverse_without_gradients_around(self, family: Transform, mode: type[torch.no_grad]) -> None:
        theta, xy = thetas(family), inner_points(2, 5, family.dims, reach=0.6)
        wanted = family(theta).points(xy).detach()
        with mode():
            close(family(theta.clone()).points(xy.clone()).clone(), wanted)

    def test_then_is_a_warp_of_a_warp(self, family: Transform) -> None:
        first, second = family(thetas(family, 2, seed=1)), family(thetas(family, 2, seed=2))
        both, xy = first.then(second), inner_points(2, 30, family.dims)
        close(both.sources(xy), first.sources(second.sources(xy)), 1e-11)
        close(both.points(first.sources(second.sources(xy))), xy, 1e-9)
        close(both.inverse().sources(xy), second.inverse().then(first.inverse()).sources(xy), 1e-9)
        size = (48, 40) if family.dims == 2 else (26, 28, 24)
        image = waves(size)
        once = warp(image, both)
        twice = warp(warp(image, first), second)
        # What left the picture half-way is lost to the second warp only.
        kept = (second.grid(size).abs().amax(dim=-1) < 0.8)[:, None]
        close(once[kept], twice[kept], 0.03)
        moved = (once - image)[kept].abs().max()
        assert moved > 0.05, f"the maps move the picture by {moved:.3f} only: this test says nothing"

    def test_then_with_another_family_and_with_its_own_inverse(self, family: Transform) -> None:
        map, xy = family(thetas(family)), inner_points(2, 30, family.dims, reach=0.6)
        close(map.then(undo(map)).sources(xy), xy, 1e-9)
        mirror = _Mirror(family.dims)
        close(map.then(mirror).sources(xy), map.sources(-xy))
        close(mirror.then(map).sources(xy), -map.sources(xy))
        close(mirror.then(map).points(-map.sources(xy)), xy, 1e-9)

    def test_boxes_against_every_point_in_them(self, family: Transform) -> None:
        d = family.dims
        map = family(thetas(family))
        low = inner_points(2, 3, d, reach=0.4)
        # Polar coordinates tear the picture along a ray; what boxes become there has its own tests.
        low = low if family.has_identity else low / 2 - 0.6
        boxes = torch.cat([low, low + 0.1 + 0.1 * inner_points(2, 3, d, seed=5).abs()], dim=-1)
        got = map.boxes(boxes)
        assert got.shape == boxes.shape
        wanted = _brute_force_boxes(map, boxes)
        outwards = torch.cat([wanted - got, got - wanted], dim=-1)[..., [*range(d), *range(3 * d, 4 * d)]]
        assert outwards.min() > -1e-8  # all is in it
        close(got, wanted, 1e-4)  # and it touches: a lattice may miss the outermost point by this much
        if family.has_identity:
            close(family(family.identity()[None].double()).boxes(boxes), boxes)

    def test_jacobian_and_forward_derivatives_against_differences(self, family: Transform) -> None:
        theta, xy = thetas(family), inner_points(2, 7, family.dims)
        map, h = family(theta), 1e-5

        def slope(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
            return (function(at + h * along) - function(at - h * along)) / (2 * h)

        axes = torch.eye(family.dims, dtype=torch.float64)
        columns = [slope(map.sources, xy, axis.expand_as(xy)) for axis in axes]
        close(map.jacobian(xy), torch.stack(columns, dim=-1), 1e-8)
        back = undo(map)
        here = map.sources(xy)
        close(back.jacobian(here), torch.linalg.inv(map.jacobian(xy)), 1e-8)
        two = map.then(map)
        close(two.jacobian(xy), map.jacobian(map.sources(xy)) @ map.jacobian(xy), 1e-9)
        for function, at in ((lambda t: family(t).sources(xy), theta), (map.sources, xy)):
            along = inner_points(1, at.numel(), 1).reshape(at.shape)
            close(torch.func.jvp(function, (at,), (along,))[1], slope(function, at, along), 1e-8)

    def test_vmap_is_a_batch(self, family: Transform) -> None:
        theta, xy = thetas(family, 3), inner_points(3, 6, family.dims)
        map = family(theta)
        for method in ("sources", "jacobian"):
            one_by_one = torch.vmap(lambda t, p, m=method: getattr(family(t[None]), m)(p[None])[0])(theta, xy)
            close(one_by_one, getattr(map, method)(xy), 1e-9)

    def test_the_displacement_field_is_what_sample_reads(self, family: Transform) -> None:
        in_size, size = SIZES[family.dims][1]
        map, image = family(thetas(family)), waves(in_size)
        for align_corners in (False, True):
            field = map.displacement_field(size, align_corners=align_corners)
            base = base_grid(size, align_corners=align_corners, dtype=torch.float64)
            close(field + base, map.grid(size, align_corners=align_corners))
            pixels = map.displacement_field(size, in_size=in_size, units="pixel", align_corners=align_corners)
            read = sample(image, pixels, units="displacement", align_corners=align_corners)
            close(read, warp(image, map, size, align_corners=align_corners), 1e-10)
        with pytest.raises(ValueError, match=r"^units: wanted one of 'normalized', 'pixel', got 'mm'"):
            map.displacement_field(size, units="mm")


class _Mirror(Map):
    """x -> -x, of no family: a Map is whatever gives a displacement."""

    batch, dtype, device = 1, torch.float64, torch.device("cpu")

    def __init__(self, dims: int) -> None:
        self.dims = dims

    def displacement(self, xy: Tensor) -> Tensor:
        return -2 * xy


def _brute_force_boxes(map: Map, boxes: Tensor) -> Tensor:
    """The box of a lattice of mapped points of each box, its corners among them."""
    d = boxes.shape[-1] // 2
    t = torch.linspace(0, 1, 45 if d == 2 else 11, dtype=boxes.dtype)
    lattice = torch.cartesian_prod(*[t] * d)
    low, high = boxes[:, :, None, :d], boxes[:, :, None, d:]
    moved = map.points(low + (high - low) * lattice)
    return torch.cat([moved.amin(dim=2), moved.amax(dim=2)], dim=-1)
