"""One image file -> size x size pixels of 8 bits: any size and depth, EXIF orientation, and files that mean harm."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Named, so that Pillow tries no other: its EPS reader runs a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 64_000_000  # decoded; a JPEG is decoded smaller where it is much larger than what is wanted
SIXTEEN = 257  # 65535 / 255


class NotAnImageError(Exception):
    """A file that cannot be used; the message is the reason, a few words."""


@contextmanager
def hostile_files() -> Iterator[None]:
    """Pillow's own alarm at a decompression bomb is an error inside; no other warning of a foreign file is shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def stretch(image: Image.Image, size: int) -> Image.Image:
    """size x size pixels; the aspect ratio is not kept."""
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)


def decode(
    file: Path | BytesIO,
    size: int,
    *,
    grey: bool = False,
    fit: Callable[[Image.Image, int], Image.Image] = stretch,
) -> tuple[np.ndarray[Any, Any], tuple[int, int]]:  # (size, size, 3 or 1) uint8; width and height in the file
    """Read an image, turn it as its EXIF data says, lay transparency on white, and bring it to size x size by ``fit``.

    16 bits become 8 by division; the first frame of several is taken. To be called inside :func:`hostile_files`.
    Raises: NotAnImageError with the reason.
    """
    try:
        with Image.open(file, formats=_formats()) as image:
            whole = image.size
            image.draft("RGB", (2 * size, 2 * size))  # JPEG only: decodes at a half, a quarter or an eighth
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise NotAnImageError(f"{width} x {height} pixels, at most {MOST_PIXELS // 10**6} million are read")
            upright = eight_bits(ImageOps.exif_transpose(image))
        mode = "L" if grey else "RGB"
        small = fit(upright.convert(mode), size)
    except NotAnImageError:
        raise
    except UnidentifiedImageError:
        raise NotAnImageError("empty" if _empty(file) else "no image, whatever its name") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise NotAnImageError("a decompression bomb") from None
    except MemoryError:
        raise NotAnImageError("too large for the memory") from None
    # Whatever a broken file makes Pillow do.
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, ArithmeticError,
            AttributeError, RuntimeError, AssertionError, struct.error) as error:  # fmt: skip
        raise NotAnImageError(f"broken: {_reason(error)}") from None
    return np.asarray(small).reshape(size, size, -1), whole


def _empty(file: Path | BytesIO) -> bool:
    return (file.getbuffer().nbytes if isinstance(file, BytesIO) else file.stat().st_size) == 0


def eight_bits(image: Image.Image) -> Image.Image:
    """The image in 8 bits a channel, without transparency."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise NotAnImageError(f"mode {image.mode}: wanted 8 or 16 bits a channel")
        # Pillow holds 16 bits of some formats in 32, so the mode tells nothing of the range.
        return Image.fromarray((values / SIXTEEN + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        white.alpha_composite(layer)
        return white.convert("RGB")
    return image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 80 else f"{line[:79]}…"
