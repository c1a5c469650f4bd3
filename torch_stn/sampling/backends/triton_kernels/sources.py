"""Device functions of the Triton backend: where output points read, from a lowered map, in registers.

Coordinates are counted from the centres, of the output (q) and of the image: at the identity they are exact, and one
form serves both meanings of align_corners. Tuples run along x, y[, z].
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_kernels.cells import REFLECTION, ZEROS, cell

AFFINE, PROJECTIVE, BASIS, FIELD, POINTS = [tl.constexpr(i) for i in range(5)]


@triton.jit
def geometry(scales, size, out, ALIGN: tl.constexpr, ACC: tl.constexpr):
    """Along each axis: image pixels for one of the output at the identity, exactly 1 for sizes alike; image pixels per
    normalised unit; normalised units per output pixel.

    `scales` has them in float32, made on the host: four divisions a thread are a third of all that a point costs.
    """
    ratio, half, step = scales
    if ACC == tl.float64:
        ratios = ()
        halves = ()
        steps = ()
        for i in tl.static_range(3):
            pixels, points = size[i].to(ACC), out[i].to(ACC)
            if ALIGN:
                pixels = pixels - 1.0
                points = tl.maximum(points - 1.0, 1.0)
            ratios = ratios + (pixels / points,)
            halves = halves + (pixels * 0.5,)
            steps = steps + (2.0 / points,)
        ratio, half, step = ratios, halves, steps
    return ratio, half, step


@triton.jit
def centre(n, ACC: tl.constexpr):
    """Half-way between the first pixel and the last."""
    return (n.to(ACC) - 1.0) * 0.5


@triton.jit
def centred(x, y, z, out, ACC: tl.constexpr):
    """Output indices counted from the centre of the output."""
    return (x.to(ACC) - centre(out[0], ACC), y.to(ACC) - centre(out[1], ACC), z.to(ACC) - centre(out[2], ACC))


@triton.jit
def output_points(
    tile, out, tiles_y, LINEAR: tl.constexpr, LX: tl.constexpr, BLOCK: tl.constexpr, DIMS: tl.constexpr
):  # fmt: skip
    """The output points of a tile, one a thread: flat index, index along x, y, z, and which of them are there.

    `tile` counts runs of BLOCK points where LINEAR, else patches along x; the second axis of the launch has the others.
    """
    lane = tl.arange(0, BLOCK)
    if LINEAR:
        o = tile * BLOCK + lane
        row = o // out[0]
        x = o - row * out[0]
        y = row
        z = tl.zeros_like(row)
        if DIMS == 3:
            z = row // out[1]
            y = row - z * out[1]
        there = o < out[0] * out[1] * out[2]
    else:
        # The 32 points of a warp are a patch LX wide, the warps of a program stand one below the other.
        down = tl.program_id(1)
        layer = down * 0
        if DIMS == 3:
            layer = down // tiles_y
            down = down - layer * tiles_y
        x = tile * LX + lane % LX
        y = down * (BLOCK // LX) + lane // LX
        z = tl.zeros_like(y) + layer
        there = (x < out[0]) & (y < out[1])
        o = (z * out[1] + y) * out[0] + x
    return o, x, y, z, there


@triton.jit
def _affine(source, q, size, scales, DIMS: tl.constexpr, ACC: tl.constexpr):
    ratio, half, step = scales
    points = ()
    for i in tl.static_range(DIMS):
        x = tl.load(source + (i * (DIMS + 1) + DIMS)).to(ACC) * half[i] + centre(size[i], ACC)
        for j in tl.static_range(DIMS):
            slope = tl.load(source + (i * (DIMS + 1) + j)).to(ACC)
            # Along its own axis a pixel is a pixel at the identity, exactly.
            x = x + q[j] * (slope * (ratio[i] if i == j else half[i] * step[j]))
        points = points + (x,)
    return points


@triton.jit
def normalized(q, step, DIMS: tl.constexpr):
    """Output coordinates in [-1, 1]."""
    values = ()
    for i in tl.static_range(DIMS):
        values = values + (q[i] * step[i],)
    return values


@triton.jit
def homography(source, p, DIMS: tl.constexpr, ACC: tl.constexpr):
    """Of normalised output points p: T(p) - p, 1 / w, and whether they lie before the camera."""
    w = tl.load(source + (DIMS * (DIMS + 1) + DIMS)).to(ACC) - 1.0 + tl.zeros_like(p[0])
    for j in tl.static_range(DIMS):
        w = w + p[j] * tl.load(source + (DIMS * (DIMS + 1) + j)).to(ACC)
    before = w + 1.0 > 1e-6
    one_over_w = 1.0 / tl.where(before, w + 1.0, 1.0)
    moved = ()
    for i in tl.static_range(DIMS):
        row = tl.load(source + (i * (DIMS + 1) + DIMS)).to(ACC) + tl.zeros_like(p[0])
        for j in tl.static_range(DIMS):
            entry = tl.load(source + (i * (DIMS + 1) + j)).to(ACC)
            if i == j:
                entry = entry - 1.0
            row = row + p[j] * entry
        moved = moved + ((row - p[i] * w) * one_over_w,)
    return moved, one_over_w, before


@triton.jit
def _displaced(q, moved, size, scales, DIMS: tl.constexpr, ACC: tl.constexpr):
    """Where the identity reads plus a normalised displacement, in pixels."""
    ratio, half, step = scales
    points = ()
    for i in tl.static_range(DIMS):
        points = points + (q[i] * ratio[i] + centre(size[i], ACC) + moved[i] * half[i],)
    return points


@triton.jit
def _combined(source, basis, o, there, K, count, DIMS: tl.constexpr, ACC: tl.constexpr, TOGETHER: tl.constexpr):
    """sum over k of basis (K, count) times coefficients; TOGETHER loads wait at once, not one after the other."""
    moved = ()
    for i in tl.static_range(DIMS):
        moved = moved + (tl.zeros([o.shape[0]], ACC),)
    for k0 in range(0, K, TOGETHER):
        row = basis + tl.full([], k0, tl.int64) * count + o
        b = ()
        for k in tl.static_range(TOGETHER):
            column = tl.zeros_like(o) + (k0 + k)
            b = b + (tl.load(row, mask=there & (column < K), other=0.0).to(ACC),)
            row += count
        more = moved
        for k in tl.static_range(TOGETHER):
            last = more
            more = ()
            for i in tl.static_range(DIMS):
                c = tl.load(source + (tl.minimum(k0 + k, K - 1) * DIMS + i)).to(ACC)  # beyond the last b is 0
                more = more + (last[i] + b[k] * c,)
        moved = more
    return moved


@triton.jit
def _locate(
    source, basis, o, there, q, size, out, scales, K, source_p, source_i,
    FORM: tl.constexpr, DIMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Pixel coordinates of a program's points."""
    if FORM == AFFINE:
        points = _affine(source, q, size, scales, DIMS, ACC)
    elif FORM == PROJECTIVE:
        moved, one_over_w, before = homography(source, normalized(q, scales[2], DIMS), DIMS, ACC)
        points = ()
        displaced = _displaced(q, moved, size, scales, DIMS, ACC)
        for i in tl.static_range(DIMS):
            points = points + (tl.where(before, displaced[i], float("inf")),)
    elif FORM == BASIS:
        moved = _combined(source, basis, o, there, K, out[0] * out[1] * out[2], DIMS, ACC, 4)
        points = _displaced(q, moved, size, scales, DIMS, ACC)
    else:
        given = ()
        for i in tl.static_range(DIMS):
            at = source + o.to(tl.int64) * source_p + i * source_i
            given = given + (tl.load(at, mask=there, other=0.0).to(ACC),)
        points = given
        if FORM == FIELD:
            points = _displaced(q, given, size, scales, DIMS, ACC)
    return points


@triton.jit
def cells_of(
    source, basis, o, there, q, size, out, scales, K, source_p, source_i,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Along each axis the cell, the fraction and the slope of the padding rule; and which points are anywhere.

    Under zero padding one that is nowhere has a cell outside: who only reads need not ask.
    """
    points = _locate(source, basis, o, there, q, size, out, scales, K, source_p, source_i, FORM, DIMS, ACC)
    for i in tl.static_range(DIMS):
        if PADDING == REFLECTION:
            # Farther out rounding alone would say what a point reads: it counts as infinite.
            there = there & (tl.abs(points[i]) <= 1073741824.0)
        else:
            there = there & (tl.abs(points[i]) < float("inf"))  # False for NaN
    before = ()
    fraction = ()
    slope = ()
    for i in tl.static_range(DIMS):
        x = points[i] if PADDING == ZEROS else tl.where(there, points[i], 0.0)
        b, f, s = cell(x, size[i], TAPS, PADDING, ALIGN)
        before = before + (b,)
        fraction = fraction + (f,)
        slope = slope + (s,)
    return before, fraction, slope, there
