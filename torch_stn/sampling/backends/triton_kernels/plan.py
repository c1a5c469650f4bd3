"""How a call of the Triton kernels is cut into programs, and what all its launches say alike: worked out once for each
kind of call and remembered, since on a small image that takes longer than the rest.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton.language as tl

from torch_stn.sampling.backends.triton_kernels.words import FORMS, GIVEN, INTERPOLATIONS, PADDINGS, How

BLOCK = 128  # points of a program, one a thread: of two the compiler would choose vectors of its own, and lose
ROW = 16  # points of a warp side by side, 2 rows of them: the best of 8x4, 16x2, 32x1 on large images
NARROW = 64  # outputs up to this width are cut into runs of points instead, patches would be half empty
MOST_PROGRAMS = 65535  # along the second and third axis of a launch
# Channels of a program at most, by taps per axis: more would not fit the registers.
CHANNELS = {2: {1: 8, 2: 8, 4: 2}, 3: {1: 8, 2: 4, 4: 1}}
VALUES = 8  # that a program reads at once, of all its channels and tiles
TURNS = 8  # tiles at most of a program that sums over points: its threads are summed up once, not for each
ENOUGH = 2048  # programs to keep a GPU busy: no more tiles each than leave so many
FLAGGED_TURNS = 64  # the same where most programs have nothing to do: the fewer there are, the sooner they are through


class Cut(NamedTuple):
    """How the output points are shared out: tiles along the first axis of a launch, rows of them along the second."""

    tiles: int
    rows: int
    tiles_y: int
    linear: bool


class Plan:
    """A call without its tensors."""

    def __init__(
        self, how: How, shape: tuple[int, ...], dtype: torch.dtype, last: bool, maps: int, coefficients: int
    ) -> None:
        self.how, self.dims, self.last, self.maps, self.coefficients = how, len(shape) - 2, last, maps, coefficients
        self.images, self.channels, self.in_size = shape[0], shape[1], shape[2:]
        if self.images != maps and 1 not in (self.images, maps):
            raise ValueError(f"map: wanted the batch size of image, {self.images}, or 1, its lowered form has {maps}")
        self.batch = max(self.images, maps)
        self.points = math.prod(how.size)
        self.matrix = how.form not in (*GIVEN, "basis")
        self.acc = torch.float64 if dtype == torch.float64 else torch.float32
        self.taps = (1, 2, 4)[INTERPOLATIONS.index(how.interpolation)]
        high = struct.unpack("f", struct.pack("f", how.fill))[0]
        self.fill = (high, how.fill - high)  # arguments of a kernel are float32: two of them make a float64
        self.cut = _cut(how.size)
        self.sizes = (*_xyz(self.in_size), *_xyz(how.size), coefficients)
        self.scales = _scales(self.sizes[:3], self.sizes[3:6], how.align_corners)
        self.image_steps = self._steps(self.images, self.in_size)
        self.result_steps = self._steps(self.batch, how.size)
        self.each = self.together(8)
        self.groups = self.channels // self.each
        self.words: dict[str, Any] = {
            "FORM": FORMS.index(how.form),
            "DIMS": self.dims,
            "TAPS": self.taps,
            "PADDING": PADDINGS.index(how.padding),
            "ALIGN": how.align_corners,
            "ACC": tl.float64 if self.acc == torch.float64 else tl.float32,
            "LAST": last,
            "LINEAR": self.cut.linear,
            "LX": ROW,
            "BLOCK": BLOCK,
            "num_warps": BLOCK // 32,
        }
        channels = {"SPLIT": self.groups > 1, "U": self.each}
        self.read_words = {"TILES": self._tiles_together(), "FILLED": how.fill != 0.0, **channels, **self.words}
        self.scatter_words = {**channels, **self.words}

    @property
    def format(self) -> torch.memory_format:
        """Of image, result and their gradients."""
        if not self.last:
            return torch.contiguous_format
        return torch.channels_last if self.dims == 2 else torch.channels_last_3d

    def together(self, most: int) -> int:
        """Channels of a program, a divisor of all."""
        most = min(most, CHANNELS[self.dims][self.taps], self.channels)
        return next(u for u in range(most, 0, -1) if self.channels % u == 0)

    def programs(self, flagged: bool = False) -> int:
        """How many add up over the points of a sample."""
        return -(-self.cut.tiles // self.turns(flagged)) * self.cut.rows

    def turns(self, flagged: bool) -> int:
        """Tiles of each of them."""
        if flagged:
            return min(self.cut.tiles, FLAGGED_TURNS)
        spare = self.cut.tiles * self.cut.rows * self.batch // ENOUGH
        return max(1, min(self.cut.tiles, TURNS, spare))

    def budget(self) -> int:
        """Bits for one gradient, such that the sum of all that may fall on one pixel fits 62."""
        shares = self.points * (self.batch // self.images)
        # Cubic weights of a point may sum to 1.375 an axis in absolute value.
        return 62 - (shares - 1).bit_length() - (2 if self.taps == 4 else 0)

    def _steps(self, n: int, size: tuple[int, ...]) -> tuple[int, int, int]:
        """From sample to sample, 0 where there is one for all; from channel to channel; from pixel to pixel."""
        plane = math.prod(size)
        between = self.channels * plane if n > 1 else 0
        return (between, 1, self.channels) if self.last else (between, plane, 1)

    def _tiles_together(self) -> int:
        """Tiles that a program reads at once: all of a small image, of which one for each tile would do little."""
        if self.taps == 4:
            return 1
        most = max(1, VALUES // self.each)
        return self.cut.tiles if self.cut.linear and self.cut.tiles <= most else min(2, most)


plan_of = lru_cache(maxsize=1024)(Plan)


def _cut(size: tuple[int, ...]) -> Cut:
    w, h, d = _xyz(size)
    tiles_y = -(-h // (BLOCK // ROW))
    if w <= NARROW or h == 1 or tiles_y * d > MOST_PROGRAMS:
        return Cut(-(-w * h * d // BLOCK), 1, 1, True)
    return Cut(-(-w // ROW), tiles_y * d, tiles_y, False)


def _scales(size: tuple[int, ...], out: tuple[int, ...], align_corners: bool) -> tuple[float, ...]:
    """Along x, y, z: image pixels per output pixel at the identity, and per normalised unit; units per output pixel."""
    pixels = [n - 1 if align_corners else n for n in size]
    points = [max(n - 1, 1) if align_corners else n for n in out]
    ratios = [n / m for n, m in zip(pixels, points, strict=True)]
    return (*ratios, *(n / 2 for n in pixels), *(2 / m for m in points))


def _xyz(size: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W) or (D, H, W) as three numbers along x, y, z."""
    return (size[1], size[0], 1) if len(size) == 2 else (size[2], size[1], size[0])
