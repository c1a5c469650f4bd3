"""Residual pose: what was done to the digits is found again, with the right signs, and what is left is measured."""

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_stn import warp
from torch_stn.lab.data.digits import load_digits
from torch_stn.lab.data.distortions import DISTORTIONS, Distorted, distort
from torch_stn.lab.pose import digit_pose, picture_poses, residual
from torch_stn.nn.pose import affine_fit, pose
from torch_stn.transforms import Affine, Projective, ThinPlateSpline
from torch_stn.transforms.maps import Map

COUNT = 400
LABELS = torch.arange(COUNT) % 10
SLOW = 40  # where a spline must be inverted


@lru_cache(maxsize=1)
def digits() -> tuple[Tensor, Tensor]:
    """The embedded test digits."""
    loaded = load_digits("embedded")
    return torch.from_numpy(loaded.test_images), torch.from_numpy(loaded.test_labels)


@lru_cache
def drawn(kind: str, count: int = COUNT) -> Distorted:
    return distort(kind, digits()[0], torch.arange(count), torch.arange(count), seed=1)


def placed(degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0), side: int = 42) -> Map:
    """Canvas -> digit: as the picture moves, turned clockwise on the screen, scaled, shifted in canvas pixels."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    inverse = np.array([[cos, sin], [-sin, cos]]) / scale
    matrix = np.column_stack([inverse * side / 28, -inverse @ np.array(shift) / 14])
    return Affine()(torch.tensor(matrix, dtype=torch.float32)[None])


def ellipse() -> Tensor:
    """A digit-like picture whose pose can be read from its moments: a long blob with a heavy end to the right."""
    y, x = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    return (torch.exp(-((x / 6) ** 2) - (y / 2) ** 2) * (1 + x / 28).clamp(min=0))[None, None]


def moments(image: Tensor) -> tuple[float, float, float, float]:
    """Of a picture (H, W): mass, centre (x, y) from the middle, angle of the long axis [deg, clockwise on the screen]."""
    h, w = image.shape
    y, x = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    mass = image.sum()
    cx, cy = (image * x).sum() / mass, (image * y).sum() / mass
    xx, yy, xy = ((image * a * b).sum() / mass for a, b in ((x - cx, x - cx), (y - cy, y - cy), (x - cx, y - cy)))
    angle = 0.5 * math.degrees(math.atan2(2 * xy, xx - yy))
    return float(mass), float(cx), float(cy), angle


# Fits


@pytest.mark.parametrize("size", [(28, 28), (42, 30)])
def test_the_fit_of_an_affine_map_is_the_map(size: tuple[int, int]) -> None:
    theta = torch.eye(2, 3) + 0.4 * torch.randn(5, 2, 3)
    torch.testing.assert_close(affine_fit(Affine()(theta).grid(size)), theta, rtol=1e-4, atol=1e-5)


def test_the_fit_of_a_bent_map_is_the_nearest_affine_one() -> None:
    spline = ThinPlateSpline(4)
    theta = spline.control_points + 0.1 * torch.randn(1, 16, 2)
    points = spline(theta).grid((20, 20)).double()
    fitted = affine_fit(points)
    best = (Affine()(fitted).grid((20, 20)) - points).square().sum()
    for _ in range(10):
        other = Affine()(fitted + 0.01 * torch.randn(1, 2, 3)).grid((20, 20))
        assert (other - points).square().sum() > best


@pytest.mark.parametrize("degrees", [-170.0, -90.0, -30.0, 0.0, 45.0, 120.0, 179.0])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_pose_of_a_known_matrix(degrees: float, scale: float) -> None:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[scale * cos, -scale * sin, 0.3], [scale * sin, scale * cos, -0.2]]])
    torch.testing.assert_close(
        pose(matrix), torch.tensor([[degrees, 0.3, -0.2, math.log(scale)]]), rtol=1e-4, atol=1e-4
    )


def test_pose_of_a_stretched_a_mirrored_and_a_collapsed_matrix_is_finite() -> None:
    stretched = torch.tensor([[[2.0, 0, 0], [0, 0.5, 0]]])
    assert pose(stretched)[0, 3].item() == pytest.approx(0)  # the area is what it was
    mirrored = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    assert torch.isfinite(pose(mirrored)).all()
    assert torch.isfinite(pose(torch.zeros(1, 2, 3))).all()


# What is left


def test_a_uniform_turn_leaves_54_degrees() -> None:
    angles = torch.linspace(-90, 90, 20_001)
    poses = torch.stack([angles, *[torch.zeros_like(angles)] * 3], dim=1)
    left = residual(poses, torch.zeros(len(angles), dtype=torch.int64))
    assert left["rotation_deg"] == pytest.approx(54.4, abs=0.1)
    assert left["rotation_deg"] == pytest.approx(math.degrees(math.sqrt(-2 * math.log(2 / math.pi))), abs=0.01)
    assert left["shift_px"] == left["log_scale"] == 0


def test_small_spreads_are_ordinary_deviations() -> None:
    poses = torch.randn(200_000, 4) * torch.tensor([5.0, 3.0, 1.0, 0.2]) + torch.tensor([170.0, 4, -2, 0.5])
    left = residual(poses, torch.zeros(len(poses), dtype=torch.int64))
    assert left["rotation_deg"] == pytest.approx(5, rel=0.02)
    assert left["shift_px"] == pytest.approx(math.sqrt((9 + 1) / 2), rel=0.02)
    assert left["log_scale"] == pytest.approx(0.2, rel=0.02)


def test_a_constant_of_a_class_is_no_residual() -> None:
    constant = torch.randn(10, 4) * torch.tensor([100.0, 5, 5, 1])
    left = residual(constant[LABELS], LABELS)
    assert left["rotation_deg"] == pytest.approx(0, abs=1e-3)
    assert left["shift_px"] == pytest.approx(0, abs=1e-6)
    assert left["log_scale"] == pytest.approx(0, abs=1e-6)


def test_classes_count_alike_and_absent_ones_do_not() -> None:
    labels = torch.tensor([3] * 1000 + [7] * 2)
    poses = torch.zeros(1002, 4)
    poses[1000:, 1] = torch.tensor([-6.0, 6.0])
    # The root mean square of the two axes of class 7 is sqrt(36 / 2); that of class 3 is 0.
    assert residual(poses, labels)["shift_px"] == pytest.approx(math.sqrt(18) / 2)


def test_a_turn_across_180_degrees_is_a_small_one() -> None:
    poses = torch.zeros(2, 4)
    poses[:, 0] = torch.tensor([179.0, -179.0])
    assert residual(poses, torch.zeros(2, dtype=torch.int64))["rotation_deg"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "rotation", "shift", "log_scale"),
    [
        ("r", 54.4, 0.0, 0.0),
        # U(-45, 45); scale U(0.7, 1.2); the middle lies within 21 - 14 s of the canvas' middle, seen in pixels of the digit.
        ("rts", 25.9, None, 0.155),
    ],
)
def test_before_any_transformer_the_residual_is_that_of_the_set(
    kind: str, rotation: float, shift: float | None, log_scale: float
) -> None:
    batch = distort(kind, digits()[0][:1], torch.zeros(5000, dtype=torch.int64), torch.arange(5000), seed=3)
    side = DISTORTIONS[kind].size
    poses = digit_pose(batch.map, (side, side))
    left = residual(poses, torch.zeros(5000, dtype=torch.int64))
    assert left["rotation_deg"] == pytest.approx(rotation, rel=0.03)
    assert left["log_scale"] == pytest.approx(log_scale, rel=0.03, abs=1e-4)
    if shift is not None:
        assert left["shift_px"] == pytest.approx(shift, abs=1e-4)


def test_shifts_are_counted_in_pixels_of_the_digit() -> None:
    # The middle of the canvas reads 3.5 px left of and 2 px below the middle of the digit, which is drawn at 0.7 of its size.
    poses = digit_pose(placed(scale=0.7, shift=(2.45, -1.4)), (42, 42))
    torch.testing.assert_close(poses, torch.tensor([[0.0, -3.5, 2.0, math.log(1.5 / 0.7)]]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["r", "rts", "p", "e", "tc"])
def test_a_perfect_aligner_leaves_nothing(kind: str) -> None:
    count = SLOW if kind == "e" else COUNT
    batch, labels = drawn(kind, count), LABELS[:count]
    side = DISTORTIONS[kind].size
    before = residual(digit_pose(batch.map, (side, side)), labels)
    upright = Affine()(torch.tensor([[[0.9, 0.1, 0.2], [-0.2, 0.8, 0.1]]]))
    # The way back to the digit, then to any fixed pose: the composition that an evaluation measures.
    left = residual(digit_pose(batch.map.then(batch.map.inverse()).then(upright), (side, side)), labels)
    assert left == pytest.approx({"rotation_deg": 0, "shift_px": 0, "log_scale": 0}, abs=2e-3)
    assert max(before.values()) > 1


# The picture of predicted against true


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [
        (0, 1, (6, 0)),
        (0, 1, (0, 5)),
        (0, 1, (-4, -6)),
        (30, 1, (0, 0)),
        (-40, 1, (0, 0)),
        (0, 0.7, (0, 0)),
        (25, 0.8, (5, -3)),
    ],
)
def test_true_pose_is_what_one_sees_in_the_picture(degrees: float, scale: float, shift: tuple[float, float]) -> None:
    map = placed(degrees, scale, shift)
    image = warp(ellipse(), map, (42, 42))
    assert isinstance(image, Tensor)
    mass, x, y, angle = moments(image[0, 0])
    start_mass, start_x, _, _ = moments(ellipse()[0, 0])
    true, _ = picture_poses(map, Affine()(torch.eye(2, 3)[None]), (42, 42))
    rotation, true_x, true_y, log_scale = true[0].tolist()
    assert rotation == pytest.approx(degrees, abs=1e-2)
    assert rotation == pytest.approx(angle, abs=0.5)
    # The blob's own centre lies start_x to the right of the digit's middle.
    turned = math.radians(degrees)
    assert true_x == pytest.approx(x - scale * start_x * math.cos(turned), abs=0.1)
    assert true_y == pytest.approx(y - scale * start_x * math.sin(turned), abs=0.1)
    assert (true_x, true_y) == pytest.approx(shift, abs=1e-3)
    assert log_scale == pytest.approx(math.log(scale * 28 / 42), abs=1e-3)
    assert log_scale == pytest.approx(0.5 * math.log(mass / start_mass) + math.log(28 / 42), abs=0.02)


@pytest.mark.parametrize(("theta", "expected"), [
    # The transformer looks to the right of the canvas: the picture moves left.
    ([[1, 0, 0.5], [0, 1, 0]], [0, -10.5, 0, 0]),
    ([[1, 0, 0], [0, 1, 0.25]], [0, 0, -5.25, 0]),
    # It reads half the canvas: the picture grows.
    ([[0.5, 0, 0], [0, 0.5, 0]], [0, 0, 0, math.log(2)]),
    # It reads along a frame turned clockwise: the picture turns back.
    ([[math.cos(0.5), -math.sin(0.5), 0], [math.sin(0.5), math.cos(0.5), 0]], [-math.degrees(0.5), 0, 0, 0]),
])  # fmt: skip
def test_predicted_pose_is_how_the_picture_moves(theta: list[list[float]], expected: list[float]) -> None:
    _, predicted = picture_poses(placed(), Affine()(torch.tensor([theta], dtype=torch.float32)), (42, 42))
    torch.testing.assert_close(predicted, torch.tensor([expected], dtype=torch.float32), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["r", "rts", "tc"])
def test_a_perfect_aligner_lies_on_minus_the_true_pose(kind: str) -> None:
    batch = drawn(kind)
    side = DISTORTIONS[kind].size
    own = torch.tensor([10.0, -25.0, 0.0, 5.0, 40.0, -8.0, 15.0, 3.0, -12.0, 30.0])  # each class has its own upright
    turns = torch.deg2rad(own[LABELS])
    cos, sin, zero = torch.cos(turns), torch.sin(turns), torch.zeros(COUNT)
    upright = Affine()(torch.stack([cos, -sin, zero, sin, cos, zero], dim=1))
    true, predicted = picture_poses(batch.map, batch.map.inverse().then(upright), (side, side))
    constant = predicted + true
    constant[:, 0] = (constant[:, 0] + own[LABELS] + 180) % 360 - 180
    assert constant[:, :3].abs().max() < 0.02
    assert constant[:, 3].std() < 1e-3
    if kind != "tc":
        assert true[:, 0].std() > 20


@pytest.mark.parametrize("kind", list(DISTORTIONS))
def test_poses_of_every_set_are_finite_and_within_its_range(kind: str) -> None:
    batch = drawn(kind)
    side = DISTORTIONS[kind].size
    true, predicted = picture_poses(batch.map, Affine()(torch.eye(2, 3)[None].expand(COUNT, -1, -1)), (side, side))
    assert true.shape == predicted.shape == (COUNT, 4)
    assert torch.isfinite(true).all()
    assert predicted.abs().max() < 1e-3
    reach = {"plain": 1e-3, "r": 90, "rts": 45, "tc": 1e-3}.get(kind, 60)
    assert true[:, 0].abs().max() <= reach + 1e-3
    assert true[:, 1:3].abs().max() <= side / 2


def test_bent_and_projective_transformers_have_poses_too() -> None:
    batch = drawn("rts")
    spline, homography = ThinPlateSpline(4), Projective()
    bent = spline((spline.control_points + 0.05 * torch.randn(16, 2))[None].expand(COUNT, -1, -1))
    tilted = homography(torch.tensor([[1.0, 0, 0.1, 0, 1, 0, 0.1, 0.05]]).expand(COUNT, -1))
    for transformer in (bent, tilted):
        _, predicted = picture_poses(batch.map, transformer, (42, 42))
        assert torch.isfinite(predicted).all()
        assert torch.isfinite(digit_pose(batch.map.then(transformer), (42, 42))).all()
