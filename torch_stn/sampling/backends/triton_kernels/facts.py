"""What gathering through the inverse of a matrix needs to know of each map: its facts, and whether it is too wild.

In pixels about the centres, of the output (q) and of the image (s). A homography M maps q to s w, where w = g qx + h qy
+ i; its inverse A maps s back to q D, where D = 1 / w at that point. An affine map is one of w = D = 1.

How far may a point q that reads near s lie from A(s)? With s off by at most (dx, dy), |q - A(s)| along an axis is at
most (|A_x - q A_w| dx + |A_y - q A_w'| dy) / D(s), exactly: D is taken where s is known, and q lies in the output.
"""

import triton
import triton.language as tl

NUMBERS = tl.constexpr(32)  # of a map, in `facts`
# Points that may read one block of 2 x 2 pixels, beyond which a map is flagged; of a homography, only its worst block.
MOST_CANDIDATES, MOST_OF_WORST = tl.constexpr(256), tl.constexpr(1024)
FAR = tl.constexpr(1e7)  # points, where nothing bounds a row: more than the longest axis served has
REACH = tl.constexpr(1.5)  # pixels from the middle of a block to a point that still reads it


@triton.jit
def _row(source, n, there, i: tl.constexpr, ROWS: tl.constexpr, k0, k1, k2):
    at = source + n * (ROWS * 3) + i * 3
    first = tl.load(at, mask=there, other=0.0) * k0
    return first, tl.load(at + 1, mask=there, other=0.0) * k1, tl.load(at + 2, mask=there, other=0.0) * k2


@triton.jit
def _minor(a, b, c, d):
    """ad - bc, and the size of what was subtracted."""
    return a * d - b * c, tl.abs(a * d) + tl.abs(b * c)


@triton.jit
def columns_of(slope_u, slope_v, widest, room_u, room_v):
    """Points of a row that may read a block: from one to the next u w changes by slope_u at least, v w by slope_v; and
    w is at most `widest`.
    """
    by_u = tl.where(slope_u > 1e-8, 2.0 * (REACH * widest + room_u) / tl.maximum(slope_u, 1e-8), FAR)
    by_v = tl.where(slope_v > 1e-8, 2.0 * (REACH * widest + room_v) / tl.maximum(slope_v, 1e-8), FAR)
    return tl.minimum(by_u, by_v) + 2e-3


@triton.jit(do_not_specialize=["maps", "W", "H", "OW", "OH"])
def facts_kernel(
    source, facts, flags, rx, ry, hx, hy, sx, sy, maps, W, H, OW, OH, BENT: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """(maps, NUMBERS) facts of affine or (BENT) projective maps, and a flag for each that is too wild to gather."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < maps
    ROWS: tl.constexpr = 3 if BENT else 2
    a, b, c = _row(source, n, there, 0, ROWS, rx, hx * sy, hx)
    d, e, f = _row(source, n, there, 1, ROWS, hy * sx, ry, hy)
    g = tl.zeros_like(a)
    h = g
    i = g + 1.0
    if BENT:
        g, h, i = _row(source, n, there, 2, ROWS, sx, sy, 1.0)
    wide, high = W.to(tl.float32) * 0.5 + REACH, H.to(tl.float32) * 0.5 + REACH  # of the image about its centre
    cx, cy = OW.to(tl.float32) * 0.5, OH.to(tl.float32) * 0.5
    a00, m00 = _minor(e, f, h, i)
    a01, m01 = _minor(c, b, i, h)
    a02, m02 = _minor(b, c, e, f)
    a10, m10 = _minor(f, d, i, g)
    a11, m11 = _minor(a, c, g, i)
    a12, m12 = _minor(c, a, f, d)
    a20, m20 = _minor(d, e, g, h)
    a21, m21 = _minor(b, a, h, g)
    a22, m22 = _minor(a, b, d, e)
    det = a * a00 + b * a10 + c * a20
    size = tl.abs(a) * m00 + tl.abs(b) * m10 + tl.abs(c) * m20
    # For an affine map the three products are one, a e - b d, and what rounding leaves of the others is not there.
    if not BENT:
        det, size = a22, m22
    regular = tl.abs(det) > 1e-6 * size  # False for NaN
    inverse = 1.0 / tl.where(regular, det, 1.0)
    a00, a01, a02, a10, a11, a12 = (
        a00 * inverse, a01 * inverse, a02 * inverse, a10 * inverse, a11 * inverse, a12 * inverse
    )  # fmt: skip
    a20, a21, a22 = a20 * inverse, a21 * inverse, a22 * inverse
    least = i  # D anywhere on the image, at least
    widest = i
    if BENT:
        least = a22 - tl.abs(a20) * wide - tl.abs(a21) * high
        # Not beyond the horizon nor near it, where the whole of a distant plane reads one pixel.
        regular = regular & (least > 1e-3 * tl.abs(a22))
        widest = 1.0 / tl.where(regular, least, 1.0)
    reach_xx, reach_xy = tl.abs(a00) + cx * tl.abs(a20), tl.abs(a01) + cx * tl.abs(a21)
    reach_yx, reach_yy = tl.abs(a10) + cy * tl.abs(a20), tl.abs(a11) + cy * tl.abs(a21)
    # Room for rounding, generous: what it lets in besides has weight zero.
    lost = 2e-6 * tl.abs(inverse) * widest
    in_w = m20 * wide + m21 * high + m22
    room_x = 1e-3 + lost * (m00 * wide + m01 * high + m02 + cx * in_w) + 1e-6 * cx
    room_y = 1e-3 + lost * (m10 * wide + m11 * high + m12 + cy * in_w) + 1e-6 * cy
    in_w = tl.abs(g) * cx + tl.abs(h) * cy + tl.abs(i)
    room_u = 2e-6 * (tl.abs(a) * cx + tl.abs(b) * cy + tl.abs(c) + wide * in_w)
    room_v = 2e-6 * (tl.abs(d) * cx + tl.abs(e) * cy + tl.abs(f) + high * in_w)
    rows = 2.0 * (REACH * (reach_yx + reach_yy) * widest + room_y)
    rows = tl.minimum(rows, OH.to(tl.float32) - 1.0).to(tl.int32) + 1
    bend = tl.abs(g)
    slope_u, slope_v = tl.abs(a) - bend * (wide + REACH), tl.abs(d) - bend * (high + REACH)
    columns = columns_of(slope_u, slope_v, widest, room_u, room_v)
    columns = tl.minimum(columns, OW.to(tl.float32) - 1.0).to(tl.int32) + 1
    few = rows.to(tl.float32) * columns.to(tl.float32) <= (MOST_OF_WORST if BENT else MOST_CANDIDATES)
    tl.store(flags + n, tl.where(regular & few, 0, 1), mask=there)
    at = facts + n.to(tl.int64) * NUMBERS
    numbers = (
        a, b, c, d, e, f, g, h, i, a00, a01, a02, a10, a11, a12, a20, a21, a22, room_x, room_y,
        reach_xx, reach_xy, reach_yx, reach_yy, room_u, room_v, least, rows.to(tl.float32), columns.to(tl.float32),
    )  # fmt: skip
    for k in tl.static_range(29):
        tl.store(at + k, numbers[k], mask=there)
