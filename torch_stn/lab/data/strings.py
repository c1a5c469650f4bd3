"""Digit strings: one to five digits of MNIST in a row, in colour, distorted as a whole, over crops of photographs.

They stand beside the street view's house numbers, which have to be fetched. Every number drawn is a function of (seed,
global sample number). On 64 pixels a string fills most of the picture, as house numbers do in crops around their
boxes; on 128 it has the same size in pixels, lies about the middle, and pieces of other digits lie anywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_stn.lab.data.draws import integers, uniform
from torch_stn.transforms import Projective
from torch_stn.warping import warp

LONGEST = 5  # digits of a string
NONE = 10  # the label of the places behind a string's end
LENGTHS = (0.25, 0.4, 0.25, 0.07, 0.03)  # shares of the lengths 1 to 5: house numbers are short
SIDE = 28
BOX = 64  # pixels of the window that a string fills
PITCH = (18, 22)  # pixels from digit to digit, before scaling
APART, HIGHER = 1, 3  # by how many pixels at most a digit leaves its place in the row, along and across it
ROW = (SIDE + 2 * HIGHER, (LONGEST - 1) * PITCH[1] + SIDE + 2 * APART)
INK = (24.0, 22.0)  # height and width of a digit's ink, about
FILL = (0.7, 0.88)  # share of the window's width that a string takes
TALL = 0.62  # at most, of the window's height: strings of one digit
STRETCH = (1.0, 1.5)  # height over width, as squares cut around flat boxes and made square have it
DEGREES = 12.0
PERSPECTIVE = 0.1  # by how much the homography's w differs from 1 at the string's ends
ROAM = 0.4  # on 128 pixels, of the way from the middle to the border: crops are cut around their number
CONTRAST = 0.45  # at least, between the string's brightness and its background's mean
FADE = (0.3, 0.8)  # the background's own contrast is multiplied by this
TINT = 0.4
PIECES, PIECE = 6, 8  # of other digits, on 128 pixels

# One stream a purpose.
LENGTH, OTHERS, SPACING, PLACES, POSE, PHOTO, CROP, COLOUR, PIECE_OF, CUT, PASTE = range(60, 71)


def draw_strings(
    digits: Tensor,  # (n, 28, 28) uint8
    labels: Tensor,  # (n,) int64
    indices: Tensor,  # (B,) int64, which digit comes first; the others are drawn
    samples: Tensor,  # (B,) int64, global sample numbers
    seed: int,
    size: int,  # 64 or 128
    backgrounds: Tensor,  # (p, 3, h, w) uint8, h and w at least size
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, size, size) float32 in [0, 1], and the digits from left to right, (B, 5) int64, 10 for none."""
    members = torch.cat([indices[:, None], integers(seed, samples, OTHERS, LONGEST - 1, len(digits))], dim=1)
    shares = torch.tensor(LENGTHS, device=samples.device).cumsum(0)[:-1]
    length = 1 + (uniform(seed, samples, LENGTH, 1) >= shares).sum(dim=1)
    there = torch.arange(LONGEST, device=samples.device) < length[:, None]
    row, middle, width = _row(digits, members, there, samples, seed)
    ink = warp(row, Projective()(_pose(middle, width, samples, seed, size)), (size, size))
    assert isinstance(ink, Tensor)  # a pair only with return_mask
    if size > BOX:
        _litter(ink, digits, samples, seed)
    images = _composed(ink.clamp_(0, 1), samples, seed, backgrounds)
    return images, torch.where(there, labels[members], NONE)


def _row(
    digits: Tensor, members: Tensor, there: Tensor, samples: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor]:  # (B, 1, *ROW) in [0, 1]; (B,), (B,)
    """The digits side by side, and the middle and the width of their ink in pixels of the row."""
    height, wide = ROW
    pitch = integers(seed, samples, SPACING, 1, PITCH[1] + 1, PITCH[0])
    jitter = integers(seed, samples, PLACES, 2 * LONGEST, 1 << 16).unflatten(1, (LONGEST, 2))
    along = torch.arange(LONGEST, device=samples.device) * pitch + jitter[..., 0] % (2 * APART + 1)
    across = jitter[..., 1] % (2 * HIGHER + 1)
    steps = torch.arange(SIDE, device=samples.device)
    inside = (steps[:, None] * wide + steps).flatten()
    row = torch.zeros(len(samples), height * wide, device=samples.device)
    for k in range(LONGEST):  # one by one: no two writes meet, so the sum has one order on a GPU too
        ink = digits[members[:, k]].flatten(1).float() * (there[:, k, None] / 255)
        row.scatter_add_(1, (across[:, k] * wide + along[:, k])[:, None] + inside, ink)
    reach = (there.sum(dim=1) - 1) * pitch[:, 0]
    return row.clamp_(max=1).view(-1, 1, height, wide), APART + (reach + SIDE) / 2, reach + INK[1]


def _pose(middle: Tensor, width: Tensor, samples: Tensor, seed: int, size: int) -> Tensor:  # (B, 3, 3)
    """The homography canvas -> row, both in [-1, 1]: shift, perspective, rotation, scale, in the order of reading."""
    unit = uniform(seed, samples, POSE, 7, -1.0, 1.0)
    across = torch.minimum(
        _between(unit[:, 0], FILL) * BOX / width * _between(unit[:, 1], STRETCH),
        torch.full_like(width, TALL * BOX / INK[0]),
    )
    along = torch.minimum(_between(unit[:, 0], FILL) * BOX / width, across)
    angle = math.radians(DEGREES) * unit[:, 2]
    cos, sin = torch.cos(angle), torch.sin(angle)
    half = torch.stack([along * width, across * INK[0]], dim=1) / 2  # of the string on the canvas, pixels
    box = torch.stack([half[:, 0] * cos + half[:, 1] * sin.abs(), half[:, 0] * sin.abs() + half[:, 1] * cos], dim=1)
    room = (size / 2 - (1 + PERSPECTIVE) * box).clamp(min=0)
    shift = (ROAM if size > BOX else 1.0) * room * unit[:, 3:5]
    bend = PERSPECTIVE * unit[:, 5:7] / half.amax(dim=1, keepdim=True)

    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    place = _matrix(one * size / 2, zero, -shift[:, 0], zero, one * size / 2, -shift[:, 1], zero, zero, one)
    perspective = _matrix(one, zero, zero, zero, one, zero, bend[:, 0], bend[:, 1], one)
    x, y = ROW[1] / 2, ROW[0] / 2
    read = _matrix(
        cos / along / x, sin / along / x, middle / x - 1,
        -sin / across / y, cos / across / y, zero,
        zero, zero, one,
    )  # fmt: skip
    return read @ perspective @ place


def _litter(ink: Tensor, digits: Tensor, samples: Tensor, seed: int) -> None:
    """Pieces of digits, anywhere, added to the ink (B, 1, S, S) in place."""
    size = ink.shape[-1]
    members = integers(seed, samples, PIECE_OF, PIECES, len(digits))
    cut = integers(seed, samples, CUT, 2 * PIECES, SIDE - PIECE + 1).unflatten(1, (PIECES, 2))
    paste = integers(seed, samples, PASTE, 2 * PIECES, size - PIECE + 1).unflatten(1, (PIECES, 2))
    steps = torch.arange(PIECE, device=ink.device)
    flat = ink.flatten(1)  # a view: ink is contiguous
    for k in range(PIECES):
        source = (cut[:, k, 1] * SIDE + cut[:, k, 0])[:, None] + (steps[:, None] * SIDE + steps).flatten()
        target = (paste[:, k, 1] * size + paste[:, k, 0])[:, None] + (steps[:, None] * size + steps).flatten()
        flat.scatter_add_(1, target, digits.flatten(1)[members[:, k, None], source].float() / 255)


def _composed(ink: Tensor, samples: Tensor, seed: int, backgrounds: Tensor) -> Tensor:
    """A crop of a photograph, faded, and the ink over it in a colour that is clearly brighter or darker."""
    photos, size = len(backgrounds), ink.shape[-1]
    height, width = backgrounds.shape[2:]
    photo = integers(seed, samples, PHOTO, 1, photos)[:, 0]
    place = uniform(seed, samples, CROP, 2)
    top = (place[:, 0] * (height - size + 1)).long()
    left = (place[:, 1] * (width - size + 1)).long()
    windows = backgrounds.unfold(2, size, 1).unfold(3, size, 1)  # a view (p, 3, h', w', size, size)
    crop = windows[photo, :, top, left].float().div_(255)
    mean = crop.mean(dim=(1, 2, 3))
    unit = uniform(seed, samples, COLOUR, 5)
    shown = crop.sub_(mean[:, None, None, None]).mul_(_between(2 * unit[:, 0] - 1, FADE)[:, None, None, None])
    shown.add_(mean[:, None, None, None])
    dark, bright = (mean - CONTRAST) * unit[:, 1], 1 - (1 - mean - CONTRAST) * unit[:, 1]
    brightness = torch.where(mean > 0.5, dark, bright)
    colour = (brightness[:, None] + TINT * (unit[:, 2:] - unit[:, 2:].mean(dim=1, keepdim=True))).clamp_(0, 1)
    return shown.add_(ink * (colour[:, :, None, None] - shown)).clamp_(0, 1)


def _between(unit: Tensor, limits: tuple[float, float]) -> Tensor:
    """[-1, 1] -> limits."""
    low, high = limits
    return (low + high) / 2 + (high - low) / 2 * unit


def _matrix(*entries: Tensor) -> Tensor:
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))
