"""Augmentation of images: pose, mirror, colours, perspective. Every number is a function of (seed, global sample
number).
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_stn.lab.data.distortions import convex, square_to_quad
from torch_stn.lab.data.draws import normal, uniform
from torch_stn.transforms import Affine, Map, Projective
from torch_stn.warping import warp

POSE_STREAM, FLIP_STREAM, COLOUR_STREAM = 42, 43, 44
CORNER_STREAM = 2001
CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
GREY = (0.299, 0.587, 0.114)  # the weights of ITU-R BT.601, as Pillow's


def augment(
    images: Tensor,  # (B, C, H, W) float in [0, 1]
    samples: Tensor,  # (B,) int64, global sample numbers
    seed: int,
    *,
    jitter: float = 0.0,
    flip: bool = False,
    colour: float = 0.0,
    corners: float = 0.0,
) -> Tensor:  # (B, C, H, W)
    """Images moved, mirrored and recoloured a little; what comes in from beyond the border repeats the border.

    Args: jitter, of shift (share of the side), of log-scale and of the angle in radians, each in [-jitter, jitter];
    flip, mirrors every second image or so; colour, of brightness, contrast and saturation, each a factor in
    [1 - colour, 1 + colour]; corners, as :func:`perturbation`'s amount.
    """
    moved: Map | None = None
    if jitter or flip:
        moved = Affine()(poses(samples, seed, jitter, flip).to(images))
    if corners:
        perturbed = perturbation(samples, seed, corners)
        moved = perturbed if moved is None else perturbed.then(moved)  # one reading of both
    if moved is not None:
        images = warp(images, moved, padding_mode="border")
    return recolour(images, samples, seed, colour).clamp(0, 1) if colour else images.clamp(0, 1)


def poses(samples: Tensor, seed: int, jitter: float, flip: bool) -> Tensor:
    """theta of each sample, output -> input: (B, 2, 3)."""
    drawn = uniform(seed, samples, POSE_STREAM, 4, -jitter, jitter)
    angle, scale = drawn[:, 0], drawn[:, 1].exp()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    mirrored = uniform(seed, samples, FLIP_STREAM, 1)[:, 0] < 0.5 if flip else torch.zeros_like(angle, dtype=torch.bool)
    sign = 1.0 - 2.0 * mirrored.to(angle.dtype)
    # 2 x: from shares of the side to normalised units, in which the side is 2.
    rows = [sign * cos, -sin, 2 * drawn[:, 2], sign * sin, cos, 2 * drawn[:, 3]]
    return torch.stack(rows, dim=1).unflatten(1, (2, 3))


def perturbation(samples: Tensor, seed: int, amount: float) -> Map:
    """The four corners of the picture moved by N(0, amount) half sides along x and along y, and all of it by another
    such shift; the homography, picture -> original. A quad that is not convex, which shows no picture, keeps only its
    shift.

    Source: Lin and Lucey 2017, whose amount is 0.25.
    """
    moved = normal(seed, samples, CORNER_STREAM, 10, 0.0, amount)
    square = moved.new_tensor(CORNERS)
    shift, quad = moved[:, None, 8:], square + moved[:, :8].unflatten(1, (4, 2))
    quad = torch.where(convex(quad)[:, None, None], quad, square)
    return Projective()(square_to_quad(quad + shift))


def recolour(images: Tensor, samples: Tensor, seed: int, amount: float) -> Tensor:
    """Brightness, contrast about the image's mean, and saturation about its own grey."""
    factors = 1 + uniform(seed, samples, COLOUR_STREAM, 3, -amount, amount).to(images)
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    if images.shape[1] == 1:
        return images
    grey = (images * images.new_tensor(GREY)[:, None, None]).sum(dim=1, keepdim=True)
    return grey + saturation * (images - grey)
