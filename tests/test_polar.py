"""Polar and log-polar coordinates: the formulas, the tear along the ray, turns and zooms that become shifts."""

import math

import pytest
import torch
from cases import inner_points
from map_contract import close
from torch import Tensor

from torch_stn import LogPolar, Polar, Similarity, warp
from torch_stn.coordinates import base_grid

CENTRE = torch.zeros(1, 2, dtype=torch.float64)


def blobs(size: int) -> Tensor:
    """Two smooth spots of different size, (1, 1, size, size)."""
    xy = base_grid((size, size), dtype=torch.float64)
    spots = [
        ((xy - torch.tensor(at)) ** 2).sum(dim=-1) / width for at, width in (((0.3, 0.2), 0.02), ((-0.1, -0.4), 0.04))
    ]
    return sum(torch.exp(-spot) for spot in spots)[None, None]  # type: ignore[index]


def test_radius_to_the_right_and_angle_down() -> None:
    xy = torch.tensor([[[-1.0, 0.3], [0.0, -1.0], [1.0, -0.5], [0.5, 0.0]]], dtype=torch.float64)
    centre = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    radii = {Polar(radius=0.8): [0.0, 0.4, 0.8, 0.6], LogPolar(radius=0.8, inner=0.05): [0.05, 0.2, 0.8, 0.4]}
    for family, (none, right, below, left) in radii.items():
        wanted = [[none * math.cos(1.3 * math.pi), none * math.sin(1.3 * math.pi)], [right, 0], [0, below], [-left, 0]]
        close(family(centre).sources(xy), torch.tensor(wanted).double()[None] + centre, 1e-7)
    wide = Polar(aspect=2)(CENTRE).sources(xy)
    close(wide * torch.tensor([2.0, 1.0]), Polar()(CENTRE).sources(xy))


@pytest.mark.parametrize("family", [Polar(), LogPolar()])
def test_there_and_back_at_512_pixels_in_float32(family: Polar) -> None:
    xy = base_grid((512, 512))[None].flatten(1, 2)
    radii = xy.norm(dim=-1)
    far = (radii > 2 / 512) & (radii <= family.radius)  # outside one pixel around the centre, within the polar picture
    map = family(CENTRE.float())
    error = (map.sources(map.points(xy[far][None])).double() - xy[far][None].double()) * 256
    assert error.abs().max() < 1e-4


def test_a_turn_and_a_zoom_are_shifts() -> None:
    image, size = blobs(256), (180, 128)
    family = LogPolar(radius=0.8, inner=0.05)
    shown = warp(image, family(CENTRE), size, mode="bspline3")
    turn, zoom = 2 * math.pi * 30 / 180, (0.8 / 0.05) ** (10 / 128)
    moved = warp(image, Similarity()(torch.tensor([[turn, math.log(zoom), 0, 0]]).double()), mode="bspline3")
    again = warp(moved, family(CENTRE), size, mode="bspline3")
    close(again[..., :-10], shown.roll(-30, dims=2)[..., 10:], 2e-4)


def test_the_centre_has_an_angle_or_lies_nowhere_and_pulls_at_nothing() -> None:
    for family, lands in ((Polar(), True), (LogPolar(), False)):
        theta = CENTRE.clone().requires_grad_()
        found = family(theta).points(torch.zeros(1, 1, 2, dtype=torch.float64))
        assert torch.isfinite(found).all() == lands
        if lands:
            assert found.tolist() == [[[-1.0, -1.0]]]
        found.nan_to_num(posinf=0.0).sum().backward()
        assert theta.grad is not None
        assert not theta.grad.any()


def test_boxes_across_the_ray_and_round_the_centre() -> None:
    boxes = torch.tensor([[[0.2, -0.1, 0.4, 0.1], [-0.2, -0.1, 0.4, 0.3], [-0.4, -0.1, -0.2, 0.1]]]).double()
    far, near, corner = 0.2, math.hypot(0.4, 0.1), math.hypot(0.4, 0.3)
    steep = math.atan2(0.1, 0.2) / math.pi
    wanted = [
        [2 * far - 1, -1, 2 * near - 1, 1],
        [-1, -1, 2 * corner - 1, 1],
        [2 * far - 1, -steep, 2 * near - 1, steep],
    ]
    close(Polar()(CENTRE).boxes(boxes), torch.tensor([wanted]).double(), 1e-6)
    assert (LogPolar()(CENTRE).boxes(boxes)[0, 1, :2] == -1).all()
    ring = torch.tensor([[[-0.5, -1.0, 0.5, 1.0]]]).double()  # of a polar picture: all angles
    close(Polar()(CENTRE).inverse().boxes(ring), torch.tensor([[[-0.75, -0.75, 0.75, 0.75]]]).double(), 1e-6)


def test_a_quarter_of_the_picture_by_hand() -> None:
    xy = inner_points(1, 30, 2)
    found = Polar(radius=2)(CENTRE).points(xy)
    complex_ = torch.complex(xy[..., 0], xy[..., 1])
    angle = torch.where(complex_.angle() < 0, complex_.angle() + 2 * math.pi, complex_.angle())
    close(found, torch.stack([complex_.abs() - 1, angle / math.pi - 1], dim=-1))


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        (Polar, {"radius": 0.0}, "radius: wanted a finite number > 0, got 0.0"),
        (Polar, {"aspect": math.nan}, "aspect: wanted a finite number > 0, got nan"),
        (LogPolar, {"inner": 0.0}, "inner: wanted a number > 0 and below radius, 1.0, got 0.0"),
        (LogPolar, {"inner": 2.0}, "inner: wanted a number > 0 and below radius, 1.0, got 2.0"),
    ],
)
def test_bad_arguments_are_named(family: type[Polar], arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(**arguments)
