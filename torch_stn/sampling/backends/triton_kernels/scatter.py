"""Kernels of the Triton backend that give back to the image, from any map: the transpose of reading, by atomics.

An image gradient is added up in 64-bit fixed point: whole numbers give the same sum in any order, so the bits are the
same every time. Its unit is a power of two, chosen for each sample from the greatest gradient that comes in, such that
no sum can overflow. Where a sample's gradient is not finite its image gradient is NaN.

`flags`, with FLAGGED: the maps, and only those, that the gathering kernel of gather.py leaves to these.
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_kernels.cells import tap_at, taps_of
from torch_stn.sampling.backends.triton_kernels.passes import SIZES, offset, share_of
from torch_stn.sampling.backends.triton_kernels.sources import cells_of, centred, geometry, output_points


@triton.jit(do_not_specialize=SIZES)
def greatest_kernel(
    grad, bits, flags, length, chunks, flags_n,
    ACC: tl.constexpr, FLAGGED: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The bits of the greatest |gradient| of each sample: as whole numbers they have the order of the floats.

    NaN lies above infinity.
    """
    n = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = (tl.program_id(0) % chunks).to(tl.int64)
    if FLAGGED:
        if tl.load(flags + n * flags_n) == 0:
            return
    WORD: tl.constexpr = tl.int64 if ACC == tl.float64 else tl.int32
    most = tl.zeros([BLOCK], WORD)
    for r in range(0, ROUNDS):
        o = (chunk * ROUNDS + r) * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(grad + n * length + o, mask=o < length, other=0.0).to(ACC)
        most = tl.maximum(most, tl.abs(g).to(WORD, bitcast=True))
    tl.atomic_max(bits + n, tl.max(most, axis=0), sem="relaxed")


@triton.jit
def _exponent(bits, budget, ACC: tl.constexpr):
    """s such that `budget` bits hold anything below the greatest gradient times 2^s, as far as 2^s is a number."""
    if ACC == tl.float64:
        s = tl.minimum(budget.to(tl.int64) - ((bits >> 52) - 1022), 1022)
    else:
        s = tl.minimum(budget - ((bits >> 23) - 126), 126)
    return s


@triton.jit(do_not_specialize=SIZES)
def scatter_kernel(
    grad, source, basis, sums, bits, flags, rx, ry, rz, hx, hy, hz, sx, sy, sz, z0, groups, turns, tiles, tiles_y,
    W, H, D, OW, OH, OD, K, budget, bits_n, flags_n, image_n, image_c, image_p,
    source_n, source_p, source_i, result_n, result_c, result_p,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr, LAST: tl.constexpr, FIXED: tl.constexpr, FLAGGED: tl.constexpr, SPLIT: tl.constexpr,
    U: tl.constexpr, LINEAR: tl.constexpr, LX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sums[tap] += weight times gradient, at `turns` tiles: in fixed point (FIXED) or, in any order, in floats."""
    n, first = share_of(z0, groups, SPLIT, U)
    if FLAGGED:
        if tl.load(flags + n * flags_n) == 0:
            return
    size = (W, H, D)
    out = (OW, OH, OD)
    scales = geometry(((rx, ry, rz), (hx, hy, hz), (sx, sy, sz)), size, out, ALIGN, ACC)
    COUNT: tl.constexpr = TAPS * TAPS * TAPS if DIMS == 3 else TAPS * TAPS
    if FIXED:
        s = _exponent(tl.load(bits + n * bits_n), budget, ACC)
        if ACC == tl.float64:
            unit = ((s + 1023) << 52).to(tl.float64, bitcast=True)
        else:
            unit = ((s + 127) << 23).to(tl.float32, bitcast=True)
    begin = tl.program_id(0) * turns
    for tile in range(begin, tl.minimum(begin + turns, tiles)):
        o, ox, oy, oz, there = output_points(tile, out, tiles_y, LINEAR, LX, BLOCK, DIMS)
        q = centred(ox, oy, oz, out, ACC)
        before, fraction, slope, real = cells_of(
            source + n * source_n, basis, o, there, q, size, out, scales, K, source_p, source_i,
            FORM, DIMS, TAPS, PADDING, ALIGN, ACC,
        )  # fmt: skip
        rows, columns, inside, weights = taps_of(before, fraction, size, DIMS, TAPS, PADDING, ALIGN)
        up = grad + n * result_n + first * result_c + offset(o, result_p, LAST)
        plane = sums + n * image_n + first * image_c
        pulled = ()
        for c in tl.static_range(U):  # all loads before the first addition, over which none would be moved
            pulled = pulled + (tl.load(up, mask=there, other=0.0).to(ACC),)
            up += result_c
        for c in tl.static_range(U):
            for k in tl.static_range(COUNT):
                share = pulled[c] * weights[k]
                at = tap_at(plane, rows[k], columns[k], image_p, LAST)
                if FIXED:
                    tl.atomic_add(at, (share * unit).to(tl.int64), mask=inside[k] & real, sem="relaxed")
                else:
                    tl.atomic_add(at, share, mask=inside[k] & real, sem="relaxed")
            plane += image_c


@triton.jit(do_not_specialize=SIZES)
def settle_kernel(
    sums, result, bits, flags, budget, length, chunks, flags_n,
    ACC: tl.constexpr, FLAGGED: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From fixed point to the image gradient."""
    n = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = (tl.program_id(0) % chunks).to(tl.int64)
    if FLAGGED:
        if tl.load(flags + n * flags_n) == 0:
            return
    greatest = tl.load(bits + n)
    s = _exponent(greatest, budget, ACC).to(tl.int64)
    unit = ((1023 - s) << 52).to(tl.float64, bitcast=True)
    finite = (greatest >> 52) < 2047 if ACC == tl.float64 else (greatest >> 23) < 255
    for r in range(0, ROUNDS):
        o = (chunk * ROUNDS + r) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(sums + n * length + o, mask=o < length, other=0).to(tl.float64) * unit
        value = tl.where(finite, value, float("nan")).to(ACC)  # no path leads from 64 bits to bfloat16 in one step
        tl.store(result + n * length + o, value.to(result.dtype.element_ty), mask=o < length)
