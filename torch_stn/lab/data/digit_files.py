"""A picture of a digit from a file, onto the canvas of a set."""

from __future__ import annotations

import numpy as np
from PIL import Image


def place(image: Image.Image, size: int) -> Image.Image:
    """A grey picture as the sets are: light on black, on a canvas of size x size.

    What fits on the canvas keeps its size, so that pictures of the set itself come through as they are; what is larger
    is reduced, keeping its shape, until it fits. It stands in the middle, in black. The median of its border is taken
    for the background: one that is not black is subtracted (a light one with the picture turned to its negative), and
    what is left is stretched to the full range.
    """
    image = _on_black(image)
    longest = max(image.size)
    if longest > size:
        width, height = (max(1, round(side * size / longest)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)  # averages over all that a pixel covers
    canvas = Image.new("L", (size, size), 0)
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas


def _on_black(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = float(np.median(border))
    if background == 0:
        return image
    ink = (background - pixels if background > 127.5 else pixels - background).clip(min=0)
    return Image.fromarray((ink * (255 / max(ink.max(), 1.0)) + 0.5).astype(np.uint8))
