"""Device functions of the Triton backend: a pixel coordinate -> the pixels that it reads and their weights.

The rules are those of csrc/cells.h. Everything is written for a block of points, one a thread; tuples are unrolled.
"""

import triton
import triton.language as tl

ZEROS, BORDER, REFLECTION = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def divided(a, b):
    """a / b, rounded right: what is n / n must be 1."""
    if a.dtype == tl.float32:
        quotient = tl.div_rn(a, b)
    else:
        quotient = a / b
    return quotient


@triton.jit
def _reflected(x, size, ALIGN: tl.constexpr):
    """A coordinate mirrored into the image as often as needed, and the slope of that."""
    low: tl.constexpr = 0.0 if ALIGN else -0.5
    span = size - 1.0 if ALIGN else size
    period = tl.where(span > 0.0, span, 1.0)
    shifted = x - low
    distance = tl.abs(shifted)
    flips = tl.floor(divided(distance, period + tl.zeros_like(x)))
    within = distance - flips * period
    odd = (flips - 2.0 * tl.floor(flips * 0.5)) != 0.0
    slope = tl.where((shifted < 0.0) ^ odd, -1.0, 1.0).to(x.dtype)
    mirrored = tl.where(odd, span - within, within) + low
    # Far out, where floats are sparser than pixels, rounding may leave the span.
    mirrored = tl.minimum(tl.maximum(mirrored, low), low + span)
    one_pixel = span + tl.zeros_like(x) <= 0.0
    return tl.where(one_pixel, 0.0, mirrored), tl.where(one_pixel, 0.0, slope)


@triton.jit
def _rounded(x):
    """The nearest whole number, halves to the even one."""
    below = tl.floor(x)
    rest = x - below
    odd = (below - 2.0 * tl.floor(below * 0.5)) != 0.0
    return tl.where((rest > 0.5) | ((rest == 0.5) & odd), below + 1.0, below)


@triton.jit
def cell(x, n, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr):
    """Of finite coordinates: the pixel before each, how far behind it, and the slope of the padding rule there."""
    size = n.to(x.dtype)
    slope = tl.zeros_like(x) + 1.0
    if PADDING == REFLECTION:
        x, slope = _reflected(x, size, ALIGN)
    # Brought near before it becomes a whole number; so far outside every tap is outside.
    if TAPS == 4:
        x = tl.minimum(tl.maximum(x, -3.0), size + 1.0)
    elif PADDING == ZEROS:
        x = tl.minimum(tl.maximum(x, -2.0), size)
    else:
        last = size - 1.0
        slope = tl.where((x > 0.0) & (x < last), slope, 0.0)
        x = tl.minimum(tl.maximum(x, 0.0), last)
    if TAPS == 1:
        before = _rounded(x)
    else:
        before = tl.floor(x)
        if TAPS == 2:
            if PADDING != ZEROS:
                # A point on the last pixel belongs to the cell before it, so that no tap lies outside.
                before = tl.where(x >= tl.maximum(size - 1.0, 1.0), size - 2.0, before)
    return before.to(tl.int32), x - before, slope


@triton.jit
def _mirrored(i, n, ALIGN: tl.constexpr):
    """A pixel index mirrored into the image."""
    if ALIGN:
        period = tl.maximum(2 * (n - 1), 1)
        i = ((i % period) + period) % period
        mirrored = tl.where(i < n, i, period - i)
    else:
        period = 2 * n
        i = ((i % period) + period) % period
        mirrored = tl.where(i < n, i, period - 1 - i)
    return mirrored


@triton.jit
def _tap(before, k: tl.constexpr, n, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr):
    """The pixel that tap k reads along one axis, and whether it lies in the image."""
    at = before + k
    if TAPS == 4:
        at = at - 1
        if PADDING == BORDER:
            at = tl.minimum(tl.maximum(at, 0), n - 1)
        if PADDING == REFLECTION:
            at = _mirrored(at, n, ALIGN)
    # One comparison for both ends: below zero is far above, without the sign.
    return at, at.to(tl.uint32, bitcast=True) < n.to(tl.uint32)


@triton.jit
def _distance(t, k: tl.constexpr):
    """From a point at the fraction t to the pixel of tap k, of four."""
    return t + (1.0 - k) if k < 2 else (k - 1.0) - t


@triton.jit
def _weight(t, k: tl.constexpr, TAPS: tl.constexpr):
    """Of tap k at the fraction t; cubic is Keys' with a = -0.75, as F.grid_sample's."""
    if TAPS == 1:
        w = tl.zeros_like(t) + 1.0
    elif TAPS == 2:
        w = t if k == 1 else 1.0 - t
    else:
        x = _distance(t, k)
        if k == 0 or k == 3:
            w = ((x - 5.0) * x + 8.0) * x * -0.75 + 3.0
        else:
            w = (1.25 * x - 2.25) * x * x + 1.0
    return w


@triton.jit
def _steepness(t, k: tl.constexpr, TAPS: tl.constexpr):
    """The slope of `_weight` in t."""
    if TAPS == 1:
        s = tl.zeros_like(t)
    elif TAPS == 2:
        s = tl.zeros_like(t) + (2.0 * k - 1.0)
    else:
        x = _distance(t, k)
        if k == 0 or k == 3:
            s = ((3.0 * x - 10.0) * x + 8.0) * -0.75
        else:
            s = (3.75 * x - 4.5) * x
        if k >= 2:
            s = -s
    return s


@triton.jit
def taps_of(before, fraction, size, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr):
    """Of every tap of the points: its pixel in the plane, in two summands, whether it lies inside, its weight.

    The second summand is a plain number wherever taps are neighbours: an address's own offset, which costs nothing.
    """
    LAYERS: tl.constexpr = TAPS if DIMS == 3 else 1
    rows = ()
    columns = ()
    inside = ()
    weights = ()
    for kz in tl.static_range(LAYERS):
        for ky in tl.static_range(TAPS):
            for kx in tl.static_range(TAPS):
                x, good = _tap(before[0], kx, size[0], TAPS, PADDING, ALIGN)
                y, in_y = _tap(before[1], ky, size[1], TAPS, PADDING, ALIGN)
                row = y * size[0]
                good = good & in_y
                weight = _weight(fraction[0], kx, TAPS) * _weight(fraction[1], ky, TAPS)
                if DIMS == 3:
                    z, in_z = _tap(before[2], kz, size[2], TAPS, PADDING, ALIGN)
                    row = row + z * (size[0] * size[1])
                    good = good & in_z
                    weight = weight * _weight(fraction[2], kz, TAPS)
                if TAPS == 4:
                    rows = rows + (row,)
                    columns = columns + (x,)
                else:
                    rows = rows + (row + before[0],)
                    columns = columns + (kx,)
                inside = inside + (good,)
                weights = weights + (weight,)
    return rows, columns, inside, weights


@triton.jit
def tap_at(plane, row, column, step, LAST: tl.constexpr):
    """Where a tap lies: 64 bits only where channels lie between pixels."""
    if LAST:
        at = plane + row.to(tl.int64) * step + column * step
    else:
        at = plane + row + column
    return at


@triton.jit
def slopes_of(fraction, sums, DIMS: tl.constexpr, TAPS: tl.constexpr):
    """sum over taps of sums[tap] times the slope of its weight, along each axis."""
    LAYERS: tl.constexpr = TAPS if DIMS == 3 else 1
    along_x = tl.zeros_like(fraction[0])
    along_y = tl.zeros_like(fraction[0])
    along_z = tl.zeros_like(fraction[0])
    for kz in tl.static_range(LAYERS):
        for ky in tl.static_range(TAPS):
            for kx in tl.static_range(TAPS):
                part = sums[(kz * TAPS + ky) * TAPS + kx]
                wx = _weight(fraction[0], kx, TAPS)
                wy = _weight(fraction[1], ky, TAPS)
                in_x = part * _steepness(fraction[0], kx, TAPS) * wy
                in_y = part * _steepness(fraction[1], ky, TAPS) * wx
                if DIMS == 3:
                    wz = _weight(fraction[2], kz, TAPS)
                    in_x = in_x * wz
                    in_y = in_y * wz
                    along_z = along_z + part * wx * wy * _steepness(fraction[2], kz, TAPS)
                along_x = along_x + in_x
                along_y = along_y + in_y
    return along_x, along_y, along_z
