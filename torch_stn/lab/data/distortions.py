"""The distorted digits of the paper: rotated (R), posed (RTS), projective (P), elastic (E), cluttered (TC).

Every number drawn is a function of (seed, global sample number), so a batch can be drawn anywhere, in any order and
in any slices. Lengths below are pixels of the digit, whose half side is 14; angles turn x towards y, clockwise on a
screen. A map says where each point of the canvas reads in the digit, as everywhere in the library.

Source: Jaderberg et al. 2015, section 4.1 and appendix A.4; what it leaves open (canvas, order, cut corners, how
clutter adds) is decided here and told at each set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from torch_stn.lab.data.draws import integers, normal, uniform
from torch_stn.lab.errors import UserError
from torch_stn.transforms import Affine, Map, Projective, ThinPlateSpline
from torch_stn.warping import warp

SIDE, HALF, RTS_CANVAS = 28, 14.0, 42
R_DEGREES, RTS_DEGREES = 90.0, 45.0
RTS_SCALE, SMALLER = (0.7, 1.2), (0.75, 1.0)
CORNER_PX, CONTROL_PX = 5.0, 1.5
CANDIDATES = 4  # quads drawn for P; the first convex one counts
PATCHES, PATCH = 6, 6

# One stream a purpose: numbers of different purposes are independent.
R_ANGLE, RTS_POSE, P_SCALE, P_CORNERS, E_SCALE, E_POINTS, TC_PLACE, TC_OTHER, TC_CUT, TC_PASTE = range(1, 11)


class Distorted(NamedTuple):
    """A batch of distorted digits and how each was distorted."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1]
    map: Map  # canvas -> digit


class Distortion(NamedTuple):
    """One set: how it is drawn, and the side of its canvas."""

    draw: Callable[[Tensor, Tensor, Tensor, int, int], Distorted]  # (digits, indices, samples, seed, size)
    size: int
    name: str  # as a report prints it


def distort(
    kind: str,
    digits: Tensor,  # (n, 28, 28) uint8, or float in [0, 1]
    indices: Tensor,  # (B,) int64, which digit
    samples: Tensor,  # (B,) int64, global sample numbers: which draw
    seed: int,
) -> Distorted:
    """Distort a batch on the device of the digits.

    Args: kind, a key of DISTORTIONS.
    Returns: images (B, 1, S, S) float32 in [0, 1], black 0; the map canvas -> digit, without the clutter of TC.
    Raises: UserError for an unknown kind; ValueError for shapes.
    """
    if kind not in DISTORTIONS:
        raise UserError(f"data: {kind!r} came, wanted one of {', '.join(DISTORTIONS)}")
    if digits.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"digits: shape {tuple(digits.shape)} came, wanted (n, {SIDE}, {SIDE})")
    if indices.dim() != 1 or indices.shape != samples.shape:
        raise ValueError(f"indices {tuple(indices.shape)} and samples {tuple(samples.shape)} came, wanted (B,) both")
    distortion = DISTORTIONS[kind]
    device = digits.device
    return distortion.draw(digits, indices.to(device), samples.to(device), seed, distortion.size)


def _unit(pixels: Tensor) -> Tensor:
    """float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else pixels.to(torch.float32)


def _warped(draw_map: Callable[[Tensor, int], Map]) -> Callable[[Tensor, Tensor, Tensor, int, int], Distorted]:
    """A set that is one warp of the digit."""

    def draw(digits: Tensor, indices: Tensor, samples: Tensor, seed: int, size: int) -> Distorted:
        drawn = draw_map(samples, seed)
        images = warp(_unit(digits[indices])[:, None], drawn, (size, size))
        assert isinstance(images, Tensor)  # a pair only with return_mask
        return Distorted(images.clamp_(0, 1), drawn)  # interpolation rounds to a hair above 1

    return draw


def placed(angle: Tensor, scale: Tensor, shift: Tensor, size: int) -> Map:
    """A digit turned by angle [rad], scaled, then shifted (B, 2) [px] from the middle of a canvas:
    source = R(-angle) (p - shift) / scale.
    """
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    turn = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))
    offset = -(turn * shift[:, None, :]).sum(dim=-1)
    return Affine()(torch.cat([turn * (size / 2), offset[..., None]], dim=-1) / HALF)


def _r(samples: Tensor, seed: int) -> Map:
    """R: turned in place by U(-90, 90) degrees on the digit's own 28 x 28."""
    angle = torch.deg2rad(uniform(seed, samples, R_ANGLE, 1, -R_DEGREES, R_DEGREES)[:, 0])
    return placed(angle, torch.ones_like(angle), torch.zeros_like(angle)[:, None].expand(-1, 2), SIDE)


def _rts(samples: Tensor, seed: int) -> Map:
    """RTS: turned by U(-45, 45) degrees, scaled by s = U(0.7, 1.2), placed anywhere on 42 x 42 where the upright box of
    side 28 s stays inside; the turn may cut its corners, which are black in MNIST.
    """
    unit = uniform(seed, samples, RTS_POSE, 4, -1.0, 1.0)
    low, high = RTS_SCALE
    scale = (low + high) / 2 + (high - low) / 2 * unit[:, 1]
    room = RTS_CANVAS / 2 - HALF * scale
    return placed(unit[:, 0] * math.radians(RTS_DEGREES), scale, room[:, None] * unit[:, 2:], RTS_CANVAS)


def _p(samples: Tensor, seed: int) -> Map:
    """P: scaled by U(0.75, 1), then each corner of that square moved by N(0, 5 px) along x and y; the homography that
    does it. A quad that is not convex (1.4 % of them), which no homography reaches with all of the digit in sight, is
    redrawn, up to three times; after that (once in 10^7) the corners stay.
    """
    quads = _quads(samples, seed)
    first = convex(quads).to(torch.uint8).argmax(dim=1)  # the first of equal ones
    return Projective()(square_to_quad(quads[torch.arange(len(first), device=first.device), first])).inverse()


def _quads(samples: Tensor, seed: int) -> Tensor:  # (B, CANDIDATES + 1, 4, 2)
    """The candidates of P, normalised; the last one has its corners unmoved, hence is convex."""
    scale = uniform(seed, samples, P_SCALE, 1, *SMALLER)
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], device=samples.device)
    moved = normal(seed, samples, P_CORNERS, CANDIDATES * 8, 0.0, CORNER_PX / HALF).unflatten(1, (CANDIDATES, 4, 2))
    return scale[:, None, None] * square + torch.nn.functional.pad(moved, (0, 0, 0, 0, 0, 1))


def _e(samples: Tensor, seed: int) -> Map:
    """E: scaled by U(0.75, 1), then bent by a thin-plate spline whose 4 x 4 grid over the whole canvas is moved by
    N(0, 1.5 px) along x and y.
    """
    spline = _spline(samples.device)
    scale = uniform(seed, samples, E_SCALE, 1, *SMALLER)
    moved = normal(seed, samples, E_POINTS, 32, 0.0, CONTROL_PX / HALF).unflatten(1, (16, 2))
    # Scaling after a spline scales its theta: one map for both.
    return spline((spline.control_points + moved) / scale[..., None])


def _plain(digits: Tensor, indices: Tensor, samples: Tensor, seed: int, size: int) -> Distorted:
    """The digit as it is, to the bit."""
    still = torch.eye(2, 3, device=samples.device).expand(len(samples), -1, -1)
    return Distorted(_unit(digits[indices])[:, None], Affine()(still))


def translated(
    digits: Tensor, indices: Tensor, samples: Tensor, seed: int, size: int, patches: int = PATCHES
) -> Distorted:
    """TC: the digit anywhere on black, in whole pixels, and 6 x 6 pieces cut anywhere from other digits and pasted
    anywhere; brightness adds and is clamped at 1. The paper's TC has size 60 and six pieces.
    """
    batch, device = len(samples), samples.device
    corner = integers(seed, samples, TC_PLACE, 2, size - SIDE + 1)
    others = (indices[:, None] + 1 + integers(seed, samples, TC_OTHER, patches, len(digits) - 1)) % len(digits)
    cut = integers(seed, samples, TC_CUT, 2 * patches, SIDE - PATCH + 1).unflatten(1, (patches, 2))
    paste = integers(seed, samples, TC_PASTE, 2 * patches, size - PATCH + 1).unflatten(1, (patches, 2))
    pieces = _unit(digits.flatten(1)[others[..., None], _window(cut, PATCH, SIDE)])
    canvas = torch.zeros(batch, size * size, device=device)
    canvas.scatter_(1, _window(corner, SIDE, size), _unit(digits[indices]).flatten(1))
    for piece, place in zip(pieces.unbind(1), _window(paste, PATCH, size).unbind(1), strict=True):
        canvas.scatter_add_(1, place, piece)  # one by one: no two writes meet, so the sum has one order on a GPU too
    shift = corner.to(torch.float32) - (size - SIDE) / 2
    still = torch.zeros(batch, device=device)
    return Distorted(canvas.clamp_(max=1).view(batch, 1, size, size), placed(still, still + 1, shift, size))


def _window(corner: Tensor, side: int, width: int) -> Tensor:
    """Flat indices of the side x side windows with their top left pixel at (x, y) = corner (..., 2)."""
    steps = torch.arange(side, device=corner.device)
    inside = (steps[:, None] * width + steps).flatten()
    return (corner[..., 1] * width + corner[..., 0])[..., None] + inside


def convex(quads: Tensor) -> Tensor:  # (..., 4, 2) -> (...)
    """Whether the corners turn the same way as those of the square (-1, -1), (1, -1), (1, 1), (-1, 1) at all four."""
    edge = quads.roll(-1, dims=-2) - quads
    return (_cross(edge, edge.roll(-1, dims=-2)) > 0).all(dim=-1)


def square_to_quad(quad: Tensor) -> Tensor:  # (B, 4, 2) -> (B, 3, 3)
    """The homography of the square [-1, 1]^2 to a convex quad, corners in the order of `convex`; w > 0 on the square.

    Source: Heckbert 1989, section 2.2.3, multiplied through by its denominator.
    """
    first, second, third, fourth = quad.unbind(-2)
    a, b, total = third - second, third - fourth, first - second + third - fourth
    scale = _cross(b, a)  # > 0 where convex
    g, h = _cross(total, b), _cross(a, total)
    # Columns of the homography of the unit square, (u, v) in [0, 1].
    u = torch.cat([(second - first) * scale[:, None] + second * g[:, None], g[:, None]], dim=-1)
    v = torch.cat([(fourth - first) * scale[:, None] + fourth * h[:, None], h[:, None]], dim=-1)
    one = torch.cat([first * scale[:, None], scale[:, None]], dim=-1)
    return torch.stack([u / 2, v / 2, one + (u + v) / 2], dim=-1)  # u = (x + 1) / 2


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """a_x b_y - a_y b_x."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@lru_cache(maxsize=8)
def _spline(device: torch.device) -> ThinPlateSpline:
    """One spline a device, since it keeps the basis of its canvas."""
    return ThinPlateSpline(4, span=1.0).to(device)


DISTORTIONS: dict[str, Distortion] = {
    "plain": Distortion(_plain, 28, "plain"),
    "r": Distortion(_warped(_r), 28, "R"),
    "rts": Distortion(_warped(_rts), RTS_CANVAS, "RTS"),
    "p": Distortion(_warped(_p), 28, "P"),
    "e": Distortion(_warped(_e), 28, "E"),
    "tc": Distortion(translated, 60, "TC"),
}
