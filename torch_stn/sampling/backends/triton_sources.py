"""Device functions of the Triton backend: where output points read, from a lowered map, in registers.

Coordinates are counted from the centres, of the output (q) and of the image: at the identity they are exact, and one
form serves both meanings of align_corners. Tuples run along x, y[, z].
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_cells import REFLECTION, cell, divided

AFFINE, PROJECTIVE, BASIS, FIELD, POINTS = [tl.constexpr(i) for i in range(5)]


@triton.jit
def output_points(out, tiles_y, LINEAR: tl.constexpr, LX: tl.constexpr, BLOCK: tl.constexpr, DIMS: tl.constexpr):
    """The output points of a program, one a thread: flat index, index along x, y, z, and which of them are there."""
    lane = tl.arange(0, BLOCK)
    if LINEAR:
        o = tl.program_id(0) * BLOCK + lane
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
        tile = tl.program_id(1)
        layer = tile * 0
        if DIMS == 3:
            layer = tile // tiles_y
            tile = tile - layer * tiles_y
        x = tl.program_id(0) * LX + lane % LX
        y = tile * (BLOCK // LX) + lane // LX
        z = tl.zeros_like(y) + layer
        there = (x < out[0]) & (y < out[1])
        o = (z * out[1] + y) * out[0] + x
    return o, x, y, z, there


@triton.jit
def half_extent(n, ALIGN: tl.constexpr, ACC: tl.constexpr):
    """Pixels per normalised unit."""
    pixels = n.to(ACC)
    return (pixels - 1.0) * 0.5 if ALIGN else pixels * 0.5


@triton.jit
def centre(n, ACC: tl.constexpr):
    """Half-way between the first pixel and the last."""
    return (n.to(ACC) - 1.0) * 0.5


@triton.jit
def span(n, ALIGN: tl.constexpr, ACC: tl.constexpr):
    """Pixels of an output axis in two normalised units."""
    pixels = n.to(ACC)
    return tl.maximum(pixels - 1.0, 1.0) if ALIGN else pixels


@triton.jit
def ratio(n, m, ALIGN: tl.constexpr, ACC: tl.constexpr):
    """Pixels of an image axis for one of an output axis, where the map is the identity; exactly 1 for n = m."""
    pixels = n.to(ACC)
    if ALIGN:
        pixels = pixels - 1.0
    return divided(pixels, span(m, ALIGN, ACC))


@triton.jit
def _affine(source, q, size, out, DIMS: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr):
    points = ()
    for i in tl.static_range(DIMS):
        constant = tl.load(source + (i * (DIMS + 1) + DIMS)).to(ACC)
        x = constant * half_extent(size[i], ALIGN, ACC) + centre(size[i], ACC) + tl.zeros_like(q[0])
        for j in tl.static_range(DIMS):
            slope = tl.load(source + (i * (DIMS + 1) + j)).to(ACC)
            x = x + q[j] * (slope * ratio(size[i], out[j], ALIGN, ACC))
        points = points + (x,)
    return points


@triton.jit
def normalized(q, out, DIMS: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr):
    """Output coordinates in [-1, 1]."""
    values = ()
    for i in tl.static_range(DIMS):
        width = span(out[i], ALIGN, ACC)
        values = values + (q[i] * divided(tl.zeros_like(width) + 2.0, width),)
    return values


@triton.jit
def homography(source, p, DIMS: tl.constexpr, ACC: tl.constexpr):
    """Of normalised output points p: T(p) - p, 1 / w, and whether they lie before the camera."""
    w = tl.load(source + (DIMS * (DIMS + 1) + DIMS)).to(ACC) - 1.0 + tl.zeros_like(p[0])
    for j in tl.static_range(DIMS):
        w = w + p[j] * tl.load(source + (DIMS * (DIMS + 1) + j)).to(ACC)
    before = w + 1.0 > 1e-6
    one_over_w = divided(tl.zeros_like(w) + 1.0, tl.where(before, w + 1.0, 1.0))
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
def _displaced(q, moved, size, out, DIMS: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr):
    """Where the identity reads plus a normalised displacement, in pixels."""
    points = ()
    for i in tl.static_range(DIMS):
        base = q[i] * ratio(size[i], out[i], ALIGN, ACC) + centre(size[i], ACC)
        points = points + (base + moved[i] * half_extent(size[i], ALIGN, ACC),)
    return points


@triton.jit
def _locate(
    source, basis, o, there, q, size, out, K, source_p, source_i, basis_p, basis_k,
    FORM: tl.constexpr, DIMS: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Pixel coordinates of a program's points."""
    if FORM == AFFINE:
        points = _affine(source, q, size, out, DIMS, ALIGN, ACC)
    elif FORM == PROJECTIVE:
        moved, one_over_w, before = homography(source, normalized(q, out, DIMS, ALIGN, ACC), DIMS, ACC)
        points = ()
        displaced = _displaced(q, moved, size, out, DIMS, ALIGN, ACC)
        for i in tl.static_range(DIMS):
            points = points + (tl.where(before, displaced[i], float("inf")),)
    elif FORM == BASIS:
        moved = ()
        for i in tl.static_range(DIMS):
            moved = moved + (tl.zeros_like(q[0]),)
        for k in range(0, K):
            b = tl.load(basis + o.to(tl.int64) * basis_p + k * basis_k, mask=there, other=0.0).to(ACC)
            more = ()
            for i in tl.static_range(DIMS):
                more = more + (moved[i] + b * tl.load(source + (k * DIMS + i)).to(ACC),)
            moved = more
        points = _displaced(q, moved, size, out, DIMS, ALIGN, ACC)
    else:
        given = ()
        for i in tl.static_range(DIMS):
            at = source + o.to(tl.int64) * source_p + i * source_i
            given = given + (tl.load(at, mask=there, other=0.0).to(ACC),)
        points = given
        if FORM == FIELD:
            points = _displaced(q, given, size, out, DIMS, ALIGN, ACC)
    return points


@triton.jit
def cells_of(
    source, basis, o, there, q, size, out, K, source_p, source_i, basis_p, basis_k,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Along each axis the cell, the fraction and the slope of the padding rule; and which points are anywhere."""
    points = _locate(
        source, basis, o, there, q, size, out, K, source_p, source_i, basis_p, basis_k, FORM, DIMS, ALIGN, ACC
    )
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
        b, f, s = cell(tl.where(there, points[i], 0.0), size[i], TAPS, PADDING, ALIGN)
        before = before + (b,)
        fraction = fraction + (f,)
        slope = slope + (s,)
    return before, fraction, slope, there


@triton.jit
def centred(x, y, z, out, ACC: tl.constexpr):
    """Output indices counted from the centre of the output."""
    return (x.to(ACC) - centre(out[0], ACC), y.to(ACC) - centre(out[1], ACC), z.to(ACC) - centre(out[2], ACC))
