"""Kernels of the Triton backend that run over output points: read, and the gradient to what says where, for any map.

`flags`, with FLAGGED: the maps, and only those, that the gathering kernel of gather.py leaves to these.
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_kernels.cells import ZEROS, slopes_of, tap_at, taps_of
from torch_stn.sampling.backends.triton_kernels.sources import (
    AFFINE,
    BASIS,
    FIELD,
    PROJECTIVE,
    cells_of,
    centred,
    geometry,
    homography,
    normalized,
    output_points,
)  # fmt: skip

# No specialisation: an axis of one pixel must not become another kernel, and one thread reads one number at a time,
# so divisibility by 16 buys nothing.
SIZES = [
    "z0", "groups", "turns", "tiles", "tiles_y", "W", "H", "D", "OW", "OH", "OD", "K", "image_n", "image_c", "image_p",
    "source_n", "source_p", "source_i", "result_n", "result_c", "result_p", "channels", "images",
    "flags_n", "bits_n", "maps_n", "parts_n", "budget", "length", "chunks", "points",
]  # fmt: skip


@triton.jit
def offset(pixel, step, LAST: tl.constexpr):
    """Of an output point in its plane: 64 bits only where channels lie between pixels."""
    return pixel.to(tl.int64) * step if LAST else pixel


@triton.jit
def share_of(z0, groups, SPLIT: tl.constexpr, U: tl.constexpr):
    """The sample of a program, and the first of its channels."""
    n = tl.program_id(2) + z0
    first = n * 0
    if SPLIT:  # a division that most calls need not make
        z = n
        n = z // groups
        first = (z - n * groups) * U
    return n.to(tl.int64), first.to(tl.int64)


@triton.jit(do_not_specialize=SIZES)
def read_kernel(
    image, source, basis, result, fill_high, fill_low, rx, ry, rz, hx, hy, hz, sx, sy, sz, z0, groups, tiles_y,
    W, H, D, OW, OH, OD, K, image_n, image_c, image_p, source_n, source_p, source_i,
    result_n, result_c, result_p,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr, LAST: tl.constexpr, FILLED: tl.constexpr, SPLIT: tl.constexpr, U: tl.constexpr,
    TILES: tl.constexpr, LINEAR: tl.constexpr, LX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """V = sum over taps of weight times pixel: U channels of one sample at TILES tiles in a program."""
    n, first = share_of(z0, groups, SPLIT, U)
    size = (W, H, D)
    out = (OW, OH, OD)
    scales = geometry(((rx, ry, rz), (hx, hy, hz), (sx, sy, sz)), size, out, ALIGN, ACC)
    fill = tl.zeros([BLOCK], ACC) + fill_high + fill_low
    COUNT: tl.constexpr = TAPS * TAPS * TAPS if DIMS == 3 else TAPS * TAPS
    picture = image + n * image_n + first * image_c
    totals = ()
    places = ()
    for t in tl.static_range(TILES):
        o, ox, oy, oz, there = output_points(
            tl.program_id(0) * TILES + t, out, tiles_y, LINEAR, LX, BLOCK, DIMS
        )  # fmt: skip
        q = centred(ox, oy, oz, out, ACC)
        before, fraction, slope, real = cells_of(
            source + n * source_n, basis, o, there, q, size, out, scales, K, source_p, source_i,
            FORM, DIMS, TAPS, PADDING, ALIGN, ACC,
        )  # fmt: skip
        rows, columns, inside, weights = taps_of(before, fraction, size, DIMS, TAPS, PADDING, ALIGN)
        plane = picture
        for c in tl.static_range(U):
            total = tl.zeros([BLOCK], ACC)
            for k in tl.static_range(COUNT):
                good = inside[k] if PADDING == ZEROS else inside[k] & real
                value = tl.load(tap_at(plane, rows[k], columns[k], image_p, LAST), mask=good, other=0.0).to(ACC)
                if FILLED:
                    value = tl.where(good, value, fill)
                total += weights[k] * value
            totals = totals + (total,)
            plane += image_c
        places = places + ((o, there),)
    # All loads stand before the first store, over which the compiler would not move a load.
    for t in tl.static_range(TILES):
        plane = result + n * result_n + first * result_c
        for c in tl.static_range(U):
            at = plane + offset(places[t][0], result_p, LAST)
            tl.store(at, totals[t * U + c].to(result.dtype.element_ty), mask=places[t][1])
            plane += result_c


@triton.jit
def _products(
    sums, up, plane, places, real, fill, image_c, image_p, result_c,
    DIMS: tl.constexpr, TAPS: tl.constexpr, ACC: tl.constexpr, LAST: tl.constexpr, FILLED: tl.constexpr,
    U: tl.constexpr,
):  # fmt: skip
    """For every tap, gradient times pixel over U channels, added to `sums`; all loads stand before the first sum."""
    rows, columns, inside = places
    COUNT: tl.constexpr = TAPS * TAPS * TAPS if DIMS == 3 else TAPS * TAPS
    pulled = ()
    values = ()
    for c in tl.static_range(U):
        pulled = pulled + (tl.load(up, mask=real, other=0.0).to(ACC),)
        for k in tl.static_range(COUNT):
            good = inside[k] & real
            value = tl.load(tap_at(plane, rows[k], columns[k], image_p, LAST), mask=good, other=0.0).to(ACC)
            if FILLED:
                value = tl.where(good, value, fill)
            values = values + (value,)
        plane += image_c
        up += result_c
    more = ()
    for k in tl.static_range(COUNT):
        total = sums[k]
        for c in tl.static_range(U):
            total += pulled[c] * values[c * COUNT + k]
        more = more + (total,)
    return more


@triton.jit
def _pulls(
    grad, image, places, real, fraction, fill, images, channels, image_n, image_c, image_p, result_n, result_c,
    DIMS: tl.constexpr, TAPS: tl.constexpr, ACC: tl.constexpr, LAST: tl.constexpr, FILLED: tl.constexpr,
    ONCE: tl.constexpr, U: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """d loss / d pixel coordinate of a tile's points, along each axis, over all channels and images."""
    COUNT: tl.constexpr = TAPS * TAPS * TAPS if DIMS == 3 else TAPS * TAPS
    # For every tap, over all channels, gradient times pixel; the slopes of its weight come after.
    sums = ()
    for _ in tl.static_range(COUNT):
        sums = sums + (tl.zeros([BLOCK], ACC),)
    if ONCE:
        sums = _products(
            sums, grad, image, places, real, fill, image_c, image_p, result_c, DIMS, TAPS, ACC, LAST, FILLED, U
        )  # fmt: skip
    else:
        for r in range(0, images):
            for c in range(0, channels, U):
                up = grad + r * result_n + tl.full([], c, tl.int64) * result_c
                plane = image + r * image_n + tl.full([], c, tl.int64) * image_c
                sums = _products(
                    sums, up, plane, places, real, fill, image_c, image_p, result_c, DIMS, TAPS, ACC, LAST, FILLED, U
                )  # fmt: skip
    return slopes_of(fraction, sums, DIMS, TAPS)


@triton.jit(do_not_specialize=SIZES)
def slope_kernel(
    grad, image, source, basis, result, flags, fill_high, fill_low, rx, ry, rz, hx, hy, hz, sx, sy, sz, z0, turns,
    tiles, tiles_y, W, H, D, OW, OH, OD, K, channels, images, flags_n, image_n, image_c, image_p,
    source_n, source_p, source_i, result_n, result_c, result_p, parts_n,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr, LAST: tl.constexpr, FILLED: tl.constexpr, FLAGGED: tl.constexpr, ONCE: tl.constexpr,
    U: tl.constexpr, LINEAR: tl.constexpr, LX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient to the source of one map, over all channels and over the `images` that share it, at `turns` tiles.

    A matrix: the sums over this program's points, (samples, programs, numbers), 0 for a map that is not flagged. Else
    each point's: (maps, points, d).
    """
    n = (tl.program_id(2) + z0).to(tl.int64)
    COLUMNS: tl.constexpr = DIMS + 1
    ROWS: tl.constexpr = DIMS + 1 if FORM == PROJECTIVE else DIMS
    MATRIX: tl.constexpr = FORM == AFFINE or FORM == PROJECTIVE
    program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    sheet = result + n * parts_n + program * (ROWS * COLUMNS)
    if FLAGGED:
        if tl.load(flags + n * flags_n) == 0:
            for k in tl.static_range(ROWS * COLUMNS):
                tl.store(sheet + k, 0.0)
            return
    size = (W, H, D)
    out = (OW, OH, OD)
    scales = geometry(((rx, ry, rz), (hx, hy, hz), (sx, sy, sz)), size, out, ALIGN, ACC)
    ratio, half, step = scales
    fill = tl.zeros([BLOCK], ACC) + fill_high + fill_low
    here = source + n * source_n
    totals = ()
    if MATRIX:
        for _ in tl.static_range(ROWS * COLUMNS):
            totals = totals + (tl.zeros([BLOCK], ACC),)
    begin = tl.program_id(0) * turns
    for tile in range(begin, tl.minimum(begin + turns, tiles)):
        o, ox, oy, oz, there = output_points(tile, out, tiles_y, LINEAR, LX, BLOCK, DIMS)
        q = centred(ox, oy, oz, out, ACC)
        before, fraction, slope, real = cells_of(
            here, basis, o, there, q, size, out, scales, K, source_p, source_i,
            FORM, DIMS, TAPS, PADDING, ALIGN, ACC,
        )  # fmt: skip
        rows, columns, inside, weights = taps_of(before, fraction, size, DIMS, TAPS, PADDING, ALIGN)
        along = _pulls(
            grad + n * images * result_n + offset(o, result_p, LAST), image + n * images * image_n,
            (rows, columns, inside), real, fraction, fill, images, channels, image_n, image_c, image_p,
            result_n, result_c, DIMS, TAPS, ACC, LAST, FILLED, ONCE, U, BLOCK,
        )  # fmt: skip
        pull = ()
        for i in tl.static_range(DIMS):
            pull = pull + (tl.where(real, along[i] * slope[i], 0.0),)
        if FORM == AFFINE:
            more = ()
            for i in tl.static_range(DIMS):
                for j in tl.static_range(DIMS):
                    more = more + (totals[i * COLUMNS + j] + pull[i] * q[j],)
                more = more + (totals[i * COLUMNS + DIMS] + pull[i],)
            totals = more
        elif FORM == PROJECTIVE:
            p = normalized(q, step, DIMS)
            moved, one_over_w, in_front = homography(here, p, DIMS, ACC)
            last = tl.zeros([BLOCK], ACC)
            more = ()
            for i in tl.static_range(DIMS):
                part = pull[i] * half[i] * one_over_w
                last = last - part * (p[i] + moved[i])
                for j in tl.static_range(DIMS):
                    more = more + (totals[i * COLUMNS + j] + part * p[j],)
                more = more + (totals[i * COLUMNS + DIMS] + part,)
            for j in tl.static_range(DIMS):
                more = more + (totals[DIMS * COLUMNS + j] + last * p[j],)
            totals = more + (totals[DIMS * COLUMNS + DIMS] + last,)
        else:
            for i in tl.static_range(DIMS):
                given = pull[i]
                if FORM == FIELD or FORM == BASIS:
                    given = given * half[i]
                at = result + n * parts_n + o.to(tl.int64) * DIMS + i
                tl.store(at, given.to(result.dtype.element_ty), mask=there)
    if MATRIX:  # one sum over the threads, for all the tiles
        for i in tl.static_range(ROWS):
            for j in tl.static_range(COLUMNS):
                total = tl.sum(totals[i * COLUMNS + j])
                if FORM == AFFINE:
                    total = total * (half[i] if j == DIMS else (ratio[i] if i == j else half[i] * step[j]))
                tl.store(sheet + (i * COLUMNS + j), total)


@triton.jit(do_not_specialize=SIZES)
def coefficient_kernel(
    pull, basis, result, K, points, chunks,
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
            column = tl.zeros([BLOCK], tl.int32) + (k0 + k)
            at = basis + tl.full([], k0 + k, tl.int64) * points + o
            b = tl.load(at, mask=there & (column < K), other=0.0).to(ACC)
            for i in tl.static_range(DIMS):
                more = more + (sums[k * DIMS + i] + b * g[i],)
        sums = more
    for k in tl.static_range(KB):
        for i in tl.static_range(DIMS):
            at = result + ((n * chunks + chunk) * tl.num_programs(1) * KB + k0 + k) * DIMS + i
            tl.store(at, tl.sum(sums[k * DIMS + i]))
