"""What each distorted set draws: ranges and distributions of its poses, quads, control points and clutter."""

import math

import pytest
import torch
from distorted_digits import CORNERS, SEED, digits, drawn

from torch_stn.lab.data import distortions
from torch_stn.lab.data.distortions import convex, distort, square_to_quad
from torch_stn.lab.data.draws import uniform
from torch_stn.transforms import Projective


def uniformly(values, low, high):
    """Whether 4,000 values fill [low, high] evenly, by chi-square over 20 cells."""
    assert low - 1e-4 <= values.min() < low + (high - low) / 100
    assert high - (high - low) / 100 < values.max() <= high + 1e-4
    counts = torch.histc(values.float(), 20, low, high)
    return ((counts - 200) ** 2 / 200).sum() < 19 + 4 * math.sqrt(38)


def similarity(map, half):
    """Angle in degrees, scale and shift [px] of digits, from where middle and right edge land on the canvas."""
    middle, right = (map.points(torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])) * half).unbind(1)
    arm = right - middle
    return torch.rad2deg(torch.atan2(arm[:, 1], arm[:, 0])), arm.norm(dim=-1) / 14, middle


def test_the_poses_of_r():
    angle, scale, shift = similarity(drawn("r", 4000).map, 14)
    assert uniformly(angle, -90, 90)
    torch.testing.assert_close(scale, torch.ones(4000))
    torch.testing.assert_close(shift, torch.zeros(4000, 2))


def test_the_poses_of_rts():
    angle, scale, shift = similarity(drawn("rts", 4000).map, 21)
    assert uniformly(angle, -45, 45)
    assert uniformly(scale, 0.7, 1.2)
    room = 21 - 14 * scale[:, None]
    assert ((shift.abs() - room) <= 1e-4).all()  # the upright box stays inside
    assert uniformly((shift / room)[:, 0], -1, 1)
    assert uniformly((shift / room)[:, 1], -1, 1)
    correlation = torch.corrcoef(torch.stack([angle, scale, *(shift / room).unbind(-1)])) - torch.eye(4)
    assert correlation.abs().max() < 4 / math.sqrt(4000)


def test_the_quads_of_p():
    quads = distortions._quads(torch.arange(50_000), SEED)
    candidates = quads[:, :-1].flatten(0, 1)
    bent = 1 - convex(candidates).double().mean().item()
    assert bent == pytest.approx(0.01396, abs=4 * math.sqrt(0.014 / len(candidates)))  # 1.396 % of a million by numpy
    assert convex(quads[:, -1]).all()
    noise = (candidates - quads[:, -1:].expand(-1, quads.shape[1] - 1, -1, -1).flatten(0, 1)) * 14
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(5, abs=0.02)
    assert uniformly(quads[:4000, -1, 2, 0], 0.75, 1)


def test_p_moves_the_corners_to_the_first_convex_quad():
    samples = torch.arange(4000)
    quads = distortions._quads(samples, SEED)
    first = torch.tensor([next(k for k in range(quads.shape[1]) if convex(quad[k])) for quad in quads])
    assert first.max() > 0  # some were redrawn
    landed = drawn("p", 4000).map.points(CORNERS[None])
    torch.testing.assert_close(landed, quads[samples, first], atol=2e-3, rtol=0)


def test_convex_means_convex_and_not_turned_over():
    assert convex(CORNERS)
    assert not convex(CORNERS.flip(0))  # turned over
    assert not convex(CORNERS[[0, 2, 1, 3]])  # crossed
    dented = CORNERS.clone()
    dented[2] = -0.5
    assert not convex(dented)


def test_the_homography_of_a_quad():
    quads = CORNERS * 0.8 + 0.2 * torch.randn(500, 4, 2)
    quads = quads[convex(quads)]
    matrix = square_to_quad(quads)
    torch.testing.assert_close(Projective()(matrix).sources(CORNERS[None]), quads, atol=1e-4, rtol=0)
    # Against the eight equations of the direct linear transform, in float64.
    for quad, found in zip(quads[:20].double(), matrix[:20].double(), strict=True):
        rows, right = [], []
        for (x, y), (u, v) in zip(CORNERS.tolist(), quad.tolist(), strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
            right += [u, v]
        solved = torch.linalg.solve(torch.tensor(rows).double(), torch.tensor(right).double())
        torch.testing.assert_close((found / found[2, 2]).flatten()[:8], solved, atol=1e-4, rtol=1e-4)


def test_the_control_points_of_e():
    samples = torch.arange(4000)
    scale = uniform(SEED, samples, distortions.E_SCALE, 1, 0.75, 1)
    axis = torch.linspace(-1, 1, 4)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1).reshape(1, 16, 2)
    moved = (drawn("e", 4000).map.sources(points) * scale[..., None] - points) * 14
    assert uniformly(scale, 0.75, 1)
    assert moved.mean().abs() < 0.02
    assert moved.std().item() == pytest.approx(1.5, abs=0.02)
    assert (moved.std(dim=0) - 1.5).abs().max() < 0.1
    assert (torch.corrcoef(moved.flatten(1).T) - torch.eye(32)).abs().max() < 5 / math.sqrt(4000)


def test_tc_puts_the_digit_anywhere_in_whole_pixels():
    images, map = drawn("tc", 4000)
    angle, scale, shift = similarity(map, 30)
    assert angle.abs().max() < 1e-3
    torch.testing.assert_close(scale, torch.ones(4000))
    corner = shift + 16
    torch.testing.assert_close(corner, corner.round(), atol=1e-4, rtol=0)
    for axis in (0, 1):
        counts = torch.bincount(corner[:, axis].round().long(), minlength=33)
        assert len(counts) == 33
        assert ((counts - 4000 / 33) ** 2 / (4000 / 33)).sum() < 32 + 4 * math.sqrt(64)
    for n in range(50):
        x, y = corner[n].round().long().tolist()
        assert (images[n, 0, y : y + 28, x : x + 28] >= digits()[n] / 255).all()


def test_the_clutter_of_tc_is_six_pieces_of_other_digits():
    lonely = torch.zeros(10, 28, 28, dtype=torch.uint8)
    lonely[3] = 255
    samples = torch.arange(2000)
    own = distort("tc", lonely, torch.full_like(samples, 3), samples, SEED).images
    assert (own.sum(dim=(1, 2, 3)) == 28 * 28).all()  # the others are black, and no piece comes from the digit itself
    others = distort("tc", 255 - lonely, torch.full_like(samples, 3), samples, SEED).images[:, 0]
    assert set(others.unique().tolist()) == {0.0, 1.0}  # white on white is clamped
    ink = others.sum(dim=(1, 2))
    assert ink.max() == 6 * 36
    assert ink.min() >= 36
    # A pixel away from the border lies under a given piece with probability 36 / 55^2.
    inner = others[:, 6:54, 6:54].mean().item()
    assert inner == pytest.approx(1 - (1 - 36 / 55**2) ** 6, abs=0.003)


def test_tc_pieces_are_cut_anywhere_and_add():
    ramp = torch.arange(28 * 28, dtype=torch.float32).view(1, 28, 28).expand(2, -1, -1) / 28 / 28 / 6
    samples = torch.arange(4000)
    black = torch.stack([torch.zeros(28, 28), ramp[0]])
    images = distort("tc", black, torch.zeros_like(samples), samples, SEED).images
    # Six pieces of the ramp, each of mean 1/12: nothing is clamped, so the sums add up.
    total = images.sum(dim=(1, 2, 3)) / 36
    assert total.mean().item() == pytest.approx(6 * ramp[0].mean().item(), abs=0.002)
    assert (images * 28 * 28 * 6).round().max() > 783  # overlapping pieces
