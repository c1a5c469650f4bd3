"""Scenes for co-localisation, T and TC: a digit somewhere on 84 x 84 pixels, alone or among clutter; and the digits
that the encoder learns from.

Source: Jaderberg et al. 2015, appendix A.2; the 16 patches of TC are from memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torch_stn.lab.data.distortions import SIDE, translated
from torch_stn.lab.data.draws import epoch_order

SCENE = 84  # pixels a side
SCENE_PATCHES = {"t84": 0, "tc84": 16}
SCENES = 100  # of a class
NUDGE, NUDGE_CLUTTER = 4, 4  # pixels at most; patches


class Scenes(NamedTuple):
    """The scenes of one class."""

    images: Tensor  # (100, 1, 84, 84) float32 in [0, 1]
    frames: Tensor  # (100, 4) x_min, y_min, x_max, y_max of the digit's 28 x 28 pixels; centres count from 0


def draw_scenes(digits: Tensor, labels: Tensor, digit: int, patches: int, seed: int) -> Scenes:
    """100 scenes of one class, a function of (seed, digit); the clutter is cut from digits of any class.

    Args: digits (n, 28, 28) uint8, labels (n,) int64; patches, a number of SCENE_PATCHES.
    """
    of = torch.nonzero(labels == digit).flatten()
    chosen = of[epoch_order(seed, digit, len(of), digits.device)[:SCENES]]
    samples = torch.arange(len(chosen), device=digits.device) + digit * SCENES
    images, drawn = translated(digits, chosen, samples, seed, SCENE, patches)
    whole = torch.tensor([[[-1.0, -1.0, 1.0, 1.0]]], device=digits.device)
    return Scenes(images, (drawn.boxes(whole)[:, 0] + 1) * (SCENE / 2) - 0.5)


def draw_nudged(digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Images (B, 1, 28, 28) of digits moved by up to 4 whole pixels along x and y, among four patches on 36 x 36 of
    which the middle is kept, and labels: who learns from these forgives clutter, and a box that is a little off.
    """
    images = translated(digits, indices, samples, seed, SIDE + 2 * NUDGE, NUDGE_CLUTTER).images
    return images[..., NUDGE:-NUDGE, NUDGE:-NUDGE].contiguous(), labels[indices]
