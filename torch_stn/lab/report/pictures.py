"""Images as small files, and sampling frames as SVG paths over them: what the page's pictures are made of."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

# A frame may reach outside the picture: this share of the larger side is shown around it, black as it reads there.
MARGIN = 0.2
# A line whose points stay this close to its chord is written as two points (affine frames: most of the bytes).
STRAIGHT = 0.04
# Beyond this many pixels a projective frame is on its way to infinity: not drawn.
FAR = 1e5


@dataclass(frozen=True)
class Frame:
    """SVG path data, in input pixels: inner grid lines, border, and the edge that becomes the top of the output."""

    grid: str
    border: str
    top: str


@dataclass(frozen=True)
class Picture:
    """One image, for the `digit` macro of the template: the pixels, the margin around them, the frames over them."""

    uri: str
    width: int
    height: int
    margin: float
    alt: str
    frame: Frame | None = None
    further: tuple[Frame, ...] = ()  # of transformers beside the first

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All frames."""
        return () if self.frame is None else (self.frame, *self.further)

    @property
    def view_box(self) -> str:
        """The SVG view box, in pixels of the picture with pixel centres at integers."""
        m = self.margin
        return f"{-0.5 - m:g} {-0.5 - m:g} {self.width + 2 * m:g} {self.height + 2 * m:g}"


def picture(image: np.ndarray, alt: str, lines: np.ndarray | None = None, *, top: float = 1.0) -> Picture:
    """The picture of an (H, W) or (H, W, C) image, `top` as white; lines (L, P, 2), or (count, L, P, 2) of several
    transformers, give it a margin and the frames.
    """
    height, width = image.shape[:2]
    margin = 0.0 if lines is None else round(MARGIN * max(height, width), 1)
    frames = [] if lines is None else [frame(each) for each in (lines if lines.ndim == 4 else lines[None])]
    first = frames[0] if frames else None
    return Picture(uri(image / top), width, height, margin, alt, first, tuple(frames[1:]))


def uri(image: np.ndarray) -> str:
    """An image in [0, 1] in a data URI: (H, W) and (H, W, 1) as a grey PNG, (H, W, 3) as a small JPEG."""
    buffer = io.BytesIO()
    if image.ndim == 3 and image.shape[2] == 3:
        Image.fromarray(to_bytes(image)).save(buffer, "jpeg", quality=88)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    Image.fromarray(to_bytes(image.reshape(image.shape[:2]))).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def to_bytes(image: np.ndarray) -> np.ndarray:
    """An image in [0, 1] as uint8; NaN becomes black."""
    return (np.clip(np.nan_to_num(image, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def frame(lines: np.ndarray) -> Frame:
    """The paths of L poly-lines: horizontal ones, then vertical ones; first and last of each family are the border."""
    half = len(lines) // 2
    edges = {0, half - 1, half, len(lines) - 1}
    inner = [line for index, line in enumerate(lines) if index not in edges]
    return Frame(_path(inner), _path(lines[sorted(edges)]), _path(lines[:1]))


def _path(lines: Iterable[np.ndarray]) -> str:
    """SVG path data of poly-lines (P, 2)."""
    return "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in straightened(piece))
        for line in lines
        for piece in finite_pieces(line)
    )


def finite_pieces(line: np.ndarray) -> list[np.ndarray]:
    """The stretches of a (P, 2) poly-line that lie at finite, drawable places."""
    good = (np.abs(line) < FAR).all(axis=1)  # NaN compares false
    pieces = np.split(line, np.flatnonzero(np.diff(good)) + 1)
    return [piece for piece in pieces if len(piece) > 1 and np.abs(piece).max() < FAR]


def straightened(line: np.ndarray) -> np.ndarray:
    """The two ends of a line that is straight, else the line itself."""
    start, end = line[0].astype(np.float64), line[-1].astype(np.float64)
    chord = end - start
    length = float(np.hypot(*chord))
    if length == 0.0:
        return line
    offset = line - start
    distance = np.abs(offset[:, 0] * chord[1] - offset[:, 1] * chord[0]) / length
    along = offset @ chord / length
    # A line that runs past its own end and back is straight too, but not its chord.
    inside = along.min() >= -STRAIGHT and along.max() <= length + STRAIGHT
    return line[[0, -1]] if distance.max() <= STRAIGHT and inside else line
