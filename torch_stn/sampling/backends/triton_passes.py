"""Kernels of the Triton backend that run over output points: read, and give back to points and image, for any map.

An image gradient is added up in 64-bit fixed point: whole numbers give the same sum in any order, so atomic additions
give the same bits every time. Its unit is a power of two, chosen for each sample from the greatest gradient that comes
in, such that no sum can overflow. Where a sample's gradient is not finite its image gradient is NaN.

`flags`, with FLAGGED: the maps, and only those, that the gathering kernel of triton_gather.py leaves to these.
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_cells import slopes_of, taps_of
from torch_stn.sampling.backends.triton_sources import (
    AFFINE,
    BASIS,
    FIELD,
    PROJECTIVE,
    cells_of,
    centred,
    half_extent,
    homography,
    normalized,
    output_points,
    ratio,
)  # fmt: skip

# No specialisation: an axis of one pixel must not become another kernel, and one thread reads one number at a time,
# so divisibility by 16 buys nothing.
SIZES = [
    "z0", "groups", "tiles_y", "W", "H", "D", "OW", "OH", "OD", "K", "image_n", "image_c", "image_p", "source_n",
    "source_p", "source_i", "basis_p", "basis_k", "result_n", "result_c", "result_p", "channels", "images", "flags_n",
    "bits_n", "budget", "length", "chunks", "points",
]  # fmt: skip


@triton.jit
def _in_plane(pixel, step, LAST: tl.constexpr):
    """The offset of a pixel: 64 bits only where channels lie between pixels."""
    return pixel.to(tl.int64) * step if LAST else pixel


@triton.jit(do_not_specialize=SIZES)
def read_kernel(
    image, source, basis, result, fill_high, fill_low, z0, groups, tiles_y, W, H, D, OW, OH, OD, K,
    image_n, image_c, image_p, source_n, source_p, source_i, basis_p, basis_k, result_n, result_c, result_p,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr, LAST: tl.constexpr, FILLED: tl.constexpr, U: tl.constexpr, LINEAR: tl.constexpr,
    LX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """V = sum over taps of weight times pixel: U channels of one sample in a program."""
    z = tl.program_id(2) + z0
    n = (z // groups).to(tl.int64)
    first = ((z % groups) * U).to(tl.int64)
    size = (W, H, D)
    out = (OW, OH, OD)
    o, ox, oy, oz, there = output_points(out, tiles_y, LINEAR, LX, BLOCK, DIMS)
    q = centred(ox, oy, oz, out, ACC)
    before, fraction, slope, real = cells_of(
        source + n * source_n, basis, o, there, q, size, out, K, source_p, source_i, basis_p, basis_k,
        FORM, DIMS, TAPS, PADDING, ALIGN, ACC,
    )  # fmt: skip
    pixels, inside, weights = taps_of(before, fraction, real, size, DIMS, TAPS, PADDING, ALIGN)
    fill = tl.zeros([BLOCK], ACC) + fill_high + fill_low
    COUNT: tl.constexpr = TAPS * TAPS * TAPS if DIMS == 3 else TAPS * TAPS
    totals = ()
    for c in tl.static_range(U):
        plane = image + n * image_n + (first + c) * image_c
        total = tl.zeros([BLOCK], ACC)
        for t in tl.static_range(COUNT):
            value = tl.load(plane + _in_plane(pixels[t], image_p, LAST), mask=inside[t], other=0.0).to(ACC)
            if FILLED:
                value = tl.where(inside[t], value, fill)
            total += weights[t] * value
        totals = totals + (total,)
    # All loads stand before the first store, over which the compiler would not move a load.
    for c in tl.static_range(U):
        plane = result + n * result_n + (first + c) * result_c
        tl.store(plane + _in_plane(o, result_p, LAST), totals[c].to(result.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=SIZES)
def slope_kernel(
    grad, image, source, basis, result, flags, fill_high, fill_low, z0, tiles_y, W, H, D, OW, OH, OD, K,
    channels, images, flags_n, image_n, image_c, image_p, source_n, source_p, source_i, basis_p, basis_k,
    result_n, result_c, result_p,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr, LAST: tl.constexpr, FILLED: tl.constexpr, FLAGGED: tl.constexpr, LINEAR: tl.constexpr,
    LX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient to the source of one map, over all channels and over the `images` that share it.

    A matrix: the sums over this program's points, (samples, programs, numbers). Else each point's: (maps, points, d).
    """
    n = (tl.program_id(2) + z0).to(tl.int64)
    if FLAGGED:
        if tl.load(flags + n * flags_n) == 0:
            return
    size = (W, H, D)
    out = (OW, OH, OD)
    o, ox, oy, oz, there = output_points(out, tiles_y, LINEAR, LX, BLOCK, DIMS)
    q = centred(ox, oy, oz, out, ACC)
    before, fraction, slope, real = cells_of(
        source + n * source_n, basis, o, there, q, size, out, K, source_p, source_i, basis_p, basis_k,
        FORM, DIMS, TAPS, PADDING, ALIGN, ACC,
    )  # fmt: skip
    pixels, inside, weights = taps_of(before, fraction, real, size, DIMS, TAPS, PADDING, ALIGN)
    fill = tl.zeros([BLOCK], ACC) + fill_high + fill_low
    COUNT: tl.constexpr = TAPS * TAPS * TAPS if DIMS == 3 else TAPS * TAPS
    # For every tap, over all channels, gradient times pixel; the slopes of its weight come after.
    sums = ()
    for t in tl.static_range(COUNT):
        sums = sums + (tl.zeros([BLOCK], ACC),)
    for r in range(0, images):
        plane = image + (n + r) * image_n
        up = grad + (n + r) * result_n
        for _ in range(0, channels):
            g = tl.load(up + _in_plane(o, result_p, LAST), mask=there, other=0.0).to(ACC)
            more = ()
            for t in tl.static_range(COUNT):
                value = tl.load(plane + _in_plane(pixels[t], image_p, LAST), mask=inside[t], other=0.0).to(ACC)
                if FILLED:
                    value = tl.where(inside[t], value, fill)
                more = more + (sums[t] + g * value,)
            sums = more
            plane += image_c
            up += result_c
    along = slopes_of(fraction, sums, DIMS, TAPS)
    pull = ()
    for i in tl.static_range(DIMS):
        pull = pull + (tl.where(real, along[i] * slope[i], 0.0),)
    if FORM == AFFINE or FORM == PROJECTIVE:
        program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        programs = tl.num_programs(0) * tl.num_programs(1)
        ROWS: tl.constexpr = DIMS + 1 if FORM == PROJECTIVE else DIMS
        sheet = result + (n * programs + program) * (ROWS * (DIMS + 1))
        if FORM == AFFINE:
            for i in tl.static_range(DIMS):
                for j in tl.static_range(DIMS):
                    tl.store(sheet + (i * (DIMS + 1) + j), tl.sum(pull[i] * q[j]) * ratio(size[i], out[j], ALIGN, ACC))
                tl.store(sheet + (i * (DIMS + 1) + DIMS), tl.sum(pull[i]) * half_extent(size[i], ALIGN, ACC))
        else:
            p = normalized(q, out, DIMS, ALIGN, ACC)
            moved, one_over_w, in_front = homography(source + n * source_n, p, DIMS, ACC)
            last = tl.zeros([BLOCK], ACC)
            for i in tl.static_range(DIMS):
                part = pull[i] * half_extent(size[i], ALIGN, ACC) * one_over_w
                last = last - part * (p[i] + moved[i])
                for j in tl.static_range(DIMS):
                    tl.store(sheet + (i * (DIMS + 1) + j), tl.sum(part * p[j]))
                tl.store(sheet + (i * (DIMS + 1) + DIMS), tl.sum(part))
            for j in tl.static_range(DIMS):
                tl.store(sheet + (DIMS * (DIMS + 1) + j), tl.sum(last * p[j]))
            tl.store(sheet + (DIMS * (DIMS + 1) + DIMS), tl.sum(last))
    else:
        for i in tl.static_range(DIMS):
            given = pull[i]
            if FORM == FIELD or FORM == BASIS:
                given = given * half_extent(size[i], ALIGN, ACC)
            at = result + (n * OW * OH * OD + o) * DIMS + i
            tl.store(at, given.to(result.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=SIZES)
def coefficient_kernel(
    pull, basis, result, K, basis_p, basis_k, points, chunks,
    DIMS: tl.constexpr, ACC: tl.constexpr, ROUNDS: tl.constexpr, KB: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of one map, KB coefficients and ROUNDS * BLOCK points: sum of basis times gradient.

    The result is (maps, chunks, K rounded up to KB, d).
    """
    n = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = tl.program_id(0) % chunks
    k0 = tl.program_id(1) * KB
    sums = ()
    for j in tl.static_range(KB * DIMS):
        sums = sums + (tl.zeros([BLOCK], ACC),)
    for r in range(0, ROUNDS):
        o = ((chunk * ROUNDS + r) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
        there = o < points
        g = ()
        for i in tl.static_range(DIMS):
            g = g + (tl.load(pull + (n * points + o) * DIMS + i, mask=there, other=0.0).to(ACC),)
        more = ()
        for k in tl.static_range(KB):
            at = basis + o * basis_p + (k0 + k) * basis_k
            column = tl.zeros([BLOCK], tl.int32) + (k0 + k)
            b = tl.load(at, mask=there & (column < K), other=0.0).to(ACC)
            for i in tl.static_range(DIMS):
                more = more + (sums[k * DIMS + i] + b * g[i],)
        sums = more
    for k in tl.static_range(KB):
        for i in tl.static_range(DIMS):
            at = result + ((n * chunks + chunk) * tl.num_programs(1) * KB + k0 + k) * DIMS + i
            tl.store(at, tl.sum(sums[k * DIMS + i]))


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
    grad, source, basis, sums, bits, flags, z0, groups, tiles_y, W, H, D, OW, OH, OD, K, budget, bits_n, flags_n,
    image_n, image_c, image_p, source_n, source_p, source_i, basis_p, basis_k, result_n, result_c, result_p,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr, LAST: tl.constexpr, FIXED: tl.constexpr, FLAGGED: tl.constexpr, U: tl.constexpr,
    LINEAR: tl.constexpr, LX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sums[tap] += weight times gradient, in fixed point (FIXED) or, in any order, in floats."""
    z = tl.program_id(2) + z0
    n = (z // groups).to(tl.int64)
    first = ((z % groups) * U).to(tl.int64)
    if FLAGGED:
        if tl.load(flags + n * flags_n) == 0:
            return
    size = (W, H, D)
    out = (OW, OH, OD)
    o, ox, oy, oz, there = output_points(out, tiles_y, LINEAR, LX, BLOCK, DIMS)
    q = centred(ox, oy, oz, out, ACC)
    before, fraction, slope, real = cells_of(
        source + n * source_n, basis, o, there, q, size, out, K, source_p, source_i, basis_p, basis_k,
        FORM, DIMS, TAPS, PADDING, ALIGN, ACC,
    )  # fmt: skip
    pixels, inside, weights = taps_of(before, fraction, real, size, DIMS, TAPS, PADDING, ALIGN)
    COUNT: tl.constexpr = TAPS * TAPS * TAPS if DIMS == 3 else TAPS * TAPS
    if FIXED:
        s = _exponent(tl.load(bits + n * bits_n), budget, ACC)
        if ACC == tl.float64:
            unit = ((s + 1023) << 52).to(tl.float64, bitcast=True)
        else:
            unit = ((s + 127) << 23).to(tl.float32, bitcast=True)
    for c in tl.static_range(U):
        up = grad + n * result_n + (first + c) * result_c
        plane = sums + n * image_n + (first + c) * image_c
        g = tl.load(up + _in_plane(o, result_p, LAST), mask=there, other=0.0).to(ACC)
        for t in tl.static_range(COUNT):
            share = g * weights[t]
            at = plane + _in_plane(pixels[t], image_p, LAST)
            if FIXED:
                tl.atomic_add(at, (share * unit).to(tl.int64), mask=inside[t], sem="relaxed")
            else:
                tl.atomic_add(at, share, mask=inside[t], sem="relaxed")


@triton.jit(do_not_specialize=SIZES)
def settle_kernel(
    sums, result, bits, flags, budget, length, chunks, flags_n,
    ACC: tl.constexpr, FLAGGED: tl.constexpr, BLOCK: tl.constexpr,
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
    o = chunk * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(sums + n * length + o, mask=o < length, other=0).to(tl.float64) * unit
    finite = (greatest >> 52) < 2047 if ACC == tl.float64 else (greatest >> 23) < 255
    value = tl.where(finite, value, float("nan"))
    tl.store(result + n * length + o, value.to(result.dtype.element_ty), mask=o < length)
