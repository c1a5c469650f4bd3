"""A picture of a digit from a file, onto the canvas of a set."""

from __future__ import annotations

import numpy as np
from PIL import Image

DIGIT = 20  # pixels of the longer side of a digit in MNIST
INK = 64  # of 255, at least: fainter is no part of the digit


def place(image: Image.Image, size: int) -> Image.Image:
    """A grey picture as the sets are: light on black, on a canvas of size x size.

    The median of its border is taken for the background: one that is not black is subtracted (a light one with the
    picture turned to its negative), and what is left is stretched to the full range. What fits on the canvas stands in
    its middle at its own size, so that pictures of the set itself come through as they are. What is larger is prepared
    as MNIST's digits were (LeCun et al. 1998, section III-A): the box around the ink is brought to 20 pixels on its
    longer side, and its centre of mass to the middle.
    """
    image = _on_black(image)
    canvas = Image.new("L", (size, size), 0)
    if max(image.size) <= size:
        canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        return canvas
    box = image.point(lambda value: value if value >= INK else 0).getbbox()
    if box is None:
        return canvas
    scale = DIGIT / max(box[2] - box[0], box[3] - box[1])
    width, height = (max(1, round((box[axis + 2] - box[axis]) * scale)) for axis in (0, 1))
    digit = image.crop(box).resize((width, height), Image.Resampling.BILINEAR)  # averages over all that a pixel covers
    pixels = np.asarray(digit).astype(np.float64)
    x, y = ((pixels.sum(axis=axis) @ np.arange(count)) / pixels.sum() for axis, count in ((0, width), (1, height)))
    middle = (size - 1) / 2
    canvas.paste(digit, (round(middle - x), round(middle - y)))
    return canvas


def _on_black(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = float(np.median(border))
    if background == 0:
        return image
    ink = (background - pixels if background > 127.5 else pixels - background).clip(min=0)
    return Image.fromarray((ink * (255 / max(ink.max(), 1.0)) + 0.5).astype(np.uint8))
