"""One call of the Triton kernels: tensors in the form that they read, how the work is cut, and the launches."""

import math
import struct
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from torch_stn.sampling.backends import triton_inverse, triton_sorted
from torch_stn.sampling.backends.triton_passes import coefficient_kernel, read_kernel, slope_kernel
from torch_stn.sampling.backends.triton_scatter import greatest_kernel, scatter_kernel, settle_kernel
from torch_stn.sampling.backends.triton_words import FORMS, GIVEN, INTERPOLATIONS, PADDINGS, How

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


class Call:
    """The tensors of a call as the kernels want them, and what all launches say alike."""

    def __init__(self, image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> None:
        self.how, self.dims = how, image.dim() - 2
        self.format = _format(image)
        self.image = image.contiguous(memory_format=self.format)
        self.last = self.format != torch.contiguous_format
        given = how.form in GIVEN
        self.source = source.reshape(source.shape[0], -1, source.shape[-1]) if given else source.contiguous()
        # (K, points), neighbours in memory side by side; splines keep theirs so, which makes this a view.
        self.basis = self.source if basis is None else basis.movedim(-1, 0).contiguous()
        self.coefficients = 0 if basis is None else self.basis.shape[0]
        self.images, self.maps, self.channels = image.shape[0], source.shape[0], image.shape[1]
        self.batch = max(self.images, self.maps)
        self.points = math.prod(how.size)
        self.acc = torch.float64 if image.dtype == torch.float64 else torch.float32
        self.taps = (1, 2, 4)[INTERPOLATIONS.index(how.interpolation)]
        high = struct.unpack("f", struct.pack("f", how.fill))[0]
        self.fill = (high, how.fill - high)  # arguments of a kernel are float32: two of them make a float64
        self.cut = _cut(how.size)
        self.sizes = (*_xyz(tuple(image.shape[2:])), *_xyz(how.size), self.coefficients)
        self.scales = _scales(self.sizes[:3], self.sizes[3:6], how.align_corners)
        strides = self.source.stride() if given else (self.source.stride(0), 0, 0)
        self.where = (strides[0] if self.maps > 1 else 0, *strides[1:])
        self.words: dict[str, Any] = {
            "FORM": FORMS.index(how.form),
            "DIMS": self.dims,
            "TAPS": self.taps,
            "PADDING": PADDINGS.index(how.padding),
            "ALIGN": how.align_corners,
            "ACC": accumulator(self.acc),
            "LAST": self.last,
            "LINEAR": self.cut.linear,
            "LX": ROW,
            "BLOCK": BLOCK,
            "num_warps": BLOCK // 32,
        }

    def steps(self, tensor: Tensor) -> tuple[int, int, int]:
        """From sample to sample, 0 where there is one for all; from channel to channel; from pixel to pixel."""
        plane = math.prod(tensor.shape[2:])
        n = self.channels * plane if tensor.shape[0] > 1 else 0
        return (n, 1, self.channels) if self.last else (n, plane, 1)

    def empty(self, n: int, size: tuple[int, ...], dtype: torch.dtype, zero: bool = False) -> Tensor:
        """(n, C, *size) in the memory format of the image."""
        made = torch.empty(n, self.channels, *size, dtype=dtype, device=self.image.device, memory_format=self.format)
        return made.zero_() if zero else made

    def together(self, most: int = 8) -> int:
        """Channels of a program."""
        most = min(most, CHANNELS[self.dims][self.taps], self.channels)
        return next(u for u in range(most, 0, -1) if self.channels % u == 0)

    def launch(
        self, kernel: Any, depth: int, first: tuple[Any, ...], last: tuple[Any, ...], turns: int, **words: Any
    ) -> None:
        """Over all points, `turns` tiles a program, and `depth` of what lies behind them."""
        for z0 in range(0, depth, MOST_PROGRAMS):
            grid = (-(-self.cut.tiles // turns), self.cut.rows, min(depth - z0, MOST_PROGRAMS))
            kernel[grid](*first, *self.scales, z0, *last, **self.words, **words)

    def read(self) -> Tensor:
        """(max(n, m), C, *size)."""
        result = self.empty(self.batch, self.how.size, self.image.dtype)
        each = self.together()
        groups = self.channels // each
        tiles = self.tiles_together(each)
        self.launch(
            read_kernel,
            self.batch * groups,
            (self.image, self.source, self.basis, result, *self.fill),
            (groups, self.cut.tiles_y, *self.sizes, *self.steps(self.image), *self.where, *self.steps(result)),
            tiles, TILES=tiles, FILLED=self.how.fill != 0.0, SPLIT=groups > 1, U=each,
        )  # fmt: skip
        return result

    def tiles_together(self, channels: int) -> int:
        """Tiles that a program reads at once: all of a small image, of which one for each tile would do little."""
        if self.taps == 4:
            return 1
        most = max(1, VALUES // channels)
        if self.cut.linear and self.cut.tiles <= most:
            return self.cut.tiles
        return min(2, most)

    def source_gradient(self, grad: Tensor) -> Tensor:
        """The gradient to the source, in its shape up to the size."""
        matrix = self.how.form not in (*GIVEN, "basis")
        numbers = self.source.shape[-2] * self.source.shape[-1] if matrix else self.dims
        rows = self.programs() if matrix else self.points
        result = torch.empty(
            self.batch if matrix else self.maps, rows, numbers, dtype=self.acc, device=self.image.device
        )
        self.slopes(grad, result, None)
        if matrix:
            return self.of_maps(result)
        return self.of_coefficients(result) if self.how.form == "basis" else result

    def slopes(self, grad: Tensor, result: Tensor, flags: Tensor | None) -> None:
        """A matrix: each program's sums, (batch, programs, numbers); with flags, 0 but for the maps that they name.
        Else each point's gradient, (maps, points, d).
        """
        matrix = self.how.form not in (*GIVEN, "basis")
        turns, images = (self.turns(flags), 1) if matrix else (1, self.batch // self.maps)
        each = self.together(4)
        self.launch(
            slope_kernel,
            result.shape[0],
            (grad, self.image, self.source, self.basis, result, result if flags is None else flags, *self.fill),
            (
                turns, self.cut.tiles, self.cut.tiles_y, *self.sizes, self.channels, images, int(self.maps > 1),
                *self.steps(self.image), *self.where, *self.steps(grad), result.stride(0),
            ),
            turns, FILLED=self.how.fill != 0.0, FLAGGED=flags is not None,
            ONCE=images == 1 and each == self.channels, U=each,
        )  # fmt: skip

    def programs(self, flags: Tensor | None = None) -> int:
        """How many add up over the points of a sample."""
        return -(-self.cut.tiles // self.turns(flags)) * self.cut.rows

    def turns(self, flags: Tensor | None) -> int:
        """Tiles of each of them."""
        if flags is not None:
            return min(self.cut.tiles, FLAGGED_TURNS)
        spare = self.cut.tiles * self.cut.rows * self.batch // ENOUGH
        return max(1, min(self.cut.tiles, TURNS, spare))

    def of_maps(self, parts: Tensor) -> Tensor:
        """Sums over programs, (samples, programs, numbers), to one matrix for each map."""
        axes = (0, 1) if self.maps == 1 else (1,)
        total = parts.sum(axes, dtype=torch.float64).reshape(self.source.shape)
        return total.to(self.source.dtype)

    def of_coefficients(self, pull: Tensor) -> Tensor:
        """A displacement's gradient (m, M, d) -> that of what made it from the basis, (m, K, d)."""
        rounds, each = 8, 8
        chunks = -(-self.points // (rounds * BLOCK))
        columns = -(-self.coefficients // each)
        parts = pull.new_empty(self.maps, chunks, columns * each, self.dims)
        coefficient_kernel[(self.maps * chunks, columns)](
            pull, self.basis, parts, self.coefficients, self.points, chunks,
            DIMS=self.dims, ACC=accumulator(self.acc), ROUNDS=rounds, KB=each, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
        return parts.sum(1, dtype=torch.float64)[:, : self.coefficients].to(self.source.dtype)

    def scatter(self, grad: Tensor) -> Tensor:
        """The image gradient by atomic additions: in fixed point, the same bits every time, or in floats."""
        size = tuple(self.image.shape[2:])
        fixed = self.how.deterministic
        sums = self.empty(self.images, size, torch.int64 if fixed else self.acc, zero=True)
        if not fixed:
            self.add(grad, sums, sums, None)
            return sums.to(self.image.dtype)
        result = self.empty(self.images, size, self.image.dtype)
        self.settle(grad, sums, result, None)
        return result

    def settle(self, grad: Tensor, sums: Tensor, result: Tensor, flags: Tensor | None) -> None:
        """Add up in fixed point, `sums` being 0, and turn that into the image gradient; with flags, of those alone."""
        bits = torch.zeros(
            self.images, dtype=torch.int64 if self.acc == torch.float64 else torch.int32, device=grad.device
        )
        words = {"ACC": self.words["ACC"], "FLAGGED": flags is not None, "num_warps": 4}
        flag = (bits if flags is None else flags, int(self.maps > 1))
        block, rounds = 1024, 16
        length = grad.numel() // self.images
        chunks = -(-length // (block * rounds))
        greatest_kernel[(self.images * chunks,)](
            grad, bits, flag[0], length, chunks, flag[1], ROUNDS=rounds, BLOCK=block, **words
        )
        self.add(grad, sums, bits, flags)
        length = sums.numel() // self.images
        chunks = -(-length // (block * rounds))
        settle_kernel[(self.images * chunks,)](
            sums, result, bits, flag[0], self.budget(), length, chunks, flag[1], ROUNDS=rounds, BLOCK=block, **words
        )

    def budget(self) -> int:
        """Bits for one gradient, such that the sum of all that may fall on one pixel fits 62."""
        shares = self.points * (self.batch // self.images)
        # Cubic weights of a point may sum to 1.375 an axis in absolute value.
        return 62 - (shares - 1).bit_length() - (2 if self.taps == 4 else 0)

    def add(self, grad: Tensor, sums: Tensor, bits: Tensor, flags: Tensor | None) -> None:
        """sums += the transpose of reading."""
        each = self.together()
        groups, turns = self.channels // each, 1 if flags is None else self.turns(flags)
        self.launch(
            scatter_kernel,
            self.batch * groups,
            (grad, self.source, self.basis, sums, bits, bits if flags is None else flags),
            (
                groups, turns, self.cut.tiles, self.cut.tiles_y, *self.sizes, self.budget(), int(self.images > 1),
                int(self.maps > 1), *self.steps(sums), *self.where, *self.steps(grad),
            ),
            turns, FIXED=sums.dtype == torch.int64, FLAGGED=flags is not None, SPLIT=groups > 1, U=each,
        )  # fmt: skip


def forward(image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> Tensor:
    """(n, C, *in) through m maps or at m sets of points: (max(n, m), C, *size)."""
    with _on(image):
        return Call(image, source, basis, how).read()


def backward(
    grad: Tensor, image: Tensor, source: Tensor, basis: Tensor | None, how: How, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients to image and source, those that are wanted."""
    with _on(image):
        call = Call(image, source, basis, how)
        grad = grad.contiguous(memory_format=call.format)
        if wanted[0] and triton_inverse.serves(call):
            return triton_inverse.backward(call, grad, wanted[1])
        to_image = None
        if wanted[0]:
            to_image = triton_sorted.backward(call, grad) if triton_sorted.serves(call) else call.scatter(grad)
        to_source = call.source_gradient(grad).reshape(source.shape) if wanted[1] else None
    return to_image, to_source


def accumulator(dtype: torch.dtype) -> Any:
    """The device's word for the dtype of coordinates and sums."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def _on(image: Tensor) -> AbstractContextManager[Any]:
    """Kernels start on the current device: make it the image's."""
    if not image.is_cuda or image.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(image.device)


def _format(image: Tensor) -> torch.memory_format:
    last = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
    return last if not image.is_contiguous() and image.is_contiguous(memory_format=last) else torch.contiguous_format


def _cut(size: tuple[int, ...]) -> Cut:
    w, h, d = _xyz(size)
    tiles_y = -(-h // (BLOCK // ROW))
    if w <= NARROW or h == 1 or tiles_y * d > MOST_PROGRAMS:
        return Cut(-(-w * h * d // BLOCK), 1, 1, True)
    return Cut(-(-w // ROW), tiles_y * d, tiles_y, False)


@lru_cache(maxsize=1024)
def _scales(size: tuple[int, ...], out: tuple[int, ...], align_corners: bool) -> tuple[float, ...]:
    """Along x, y, z: image pixels per output pixel at the identity, and per normalised unit; units per output pixel."""
    pixels = [n - 1 if align_corners else n for n in size]
    points = [max(n - 1, 1) if align_corners else n for n in out]
    ratios = [n / m for n, m in zip(pixels, points, strict=True)]
    return (*ratios, *(n / 2 for n in pixels), *(2 / m for m in points))


def _xyz(size: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W) or (D, H, W) as three numbers along x, y, z."""
    return (size[1], size[0], 1) if len(size) == 2 else (size[2], size[1], size[0])
