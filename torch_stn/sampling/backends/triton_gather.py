"""The image gradient of affine bilinear reading without atomics: every pixel gathers through the closed-form inverse.

One pass over 2 x 2 blocks of input pixels. A block looks at the output points that read it, row by row: those for which
|u| and |v| < 1.5, u and v being where the point reads, counted from the middle of the block. The sums for theta are
exchanged too: each pixel brings its own value, so the image is read once and in order. Every program adds up six sums,
which are added in a fixed order.

A map that is singular, or of which too many points may read one block, is flagged on the device, with no look from the
host: the kernels of triton_passes.py serve it instead, and leave at once where the flag is not set.
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_sources import centre

NUMBERS = tl.constexpr(32)  # of a map, in `facts`
MOST_CANDIDATES = tl.constexpr(256)  # points that may read one block, beyond which a map is flagged


@triton.jit(do_not_specialize=["maps", "W", "H", "OW", "OH"])
def facts_kernel(source, facts, flags, rx, ry, hx, hy, sx, sy, maps, W, H, OW, OH, BLOCK: tl.constexpr):
    """Of every affine map, what gathering through its inverse needs, in pixels about the centres; and its flag."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < maps
    kxx, kxy, kyx, kyy, kx, ky = rx, hx * sy, hy * sx, ry, hx, hy
    a = tl.load(source + n * 6, mask=there, other=0.0) * kxx
    b = tl.load(source + n * 6 + 1, mask=there, other=0.0) * kxy
    x0 = tl.load(source + n * 6 + 2, mask=there, other=0.0) * kx + centre(W, tl.float32)
    d = tl.load(source + n * 6 + 3, mask=there, other=0.0) * kyx
    e = tl.load(source + n * 6 + 4, mask=there, other=0.0) * kyy
    y0 = tl.load(source + n * 6 + 5, mask=there, other=0.0) * ky + centre(H, tl.float32)
    width, height = OW.to(tl.float32), OH.to(tl.float32)
    wide, high = W.to(tl.float32) + tl.abs(x0), H.to(tl.float32) + tl.abs(y0)
    det = a * e - b * d
    mag = tl.abs(a * e) + tl.abs(b * d)
    regular = tl.abs(det) > 1e-6 * mag  # False for NaN
    inverse = 1.0 / tl.where(regular, det, 1.0)
    # Points that read a block: qx = ia (x - x0) + ib (y - y0), qy = id (x - x0) + ie (y - y0), with room for rounding.
    ia, ib, id_, ie = e * inverse, -b * inverse, -d * inverse, a * inverse
    lost = 1e-6 * mag * tl.abs(inverse)
    room_x = 1e-3 + lost * (tl.abs(ia) * wide + tl.abs(ib) * high) + 1e-6 * width
    room_y = 1e-3 + lost * (tl.abs(id_) * wide + tl.abs(ie) * high) + 1e-6 * height
    half_rows = tl.minimum(1.5 * (tl.abs(id_) + tl.abs(ie)) + room_y, 2.0 * height)
    # In a row: |u| < 1.5 and |v| < 1.5, each of which bounds qx unless the map does not move along x with it.
    by_u, by_v = tl.abs(a) > 1e-8, tl.abs(d) > 1e-8
    ra = tl.where(by_u, 1.0 / tl.where(by_u, a, 1.0), 0.0)
    rd = tl.where(by_v, 1.0 / tl.where(by_v, d, 1.0), 0.0)
    room_u = 1e-3 + tl.abs(ra) * 1e-6 * (wide + tl.abs(b) * height)
    room_v = 1e-3 + tl.abs(rd) * 1e-6 * (high + tl.abs(e) * height)
    half_u = tl.where(by_u, tl.abs(ra) * 1.5 + room_u, 1e6)
    half_v = tl.where(by_v, tl.abs(rd) * 1.5 + room_v, 1e6)
    rows = tl.minimum(2.0 * half_rows, height - 1.0).to(tl.int32) + 1
    columns = tl.minimum(2.0 * tl.minimum(half_u, half_v), width - 1.0).to(tl.int32) + 1
    few = rows.to(tl.float32) * columns.to(tl.float32) <= MOST_CANDIDATES
    tl.store(flags + n, tl.where(regular & few, 0, 1), mask=there)
    at = facts + n.to(tl.int64) * NUMBERS
    numbers = (
        a, b, x0, d, e, y0, ia, ib, id_, ie, room_x, room_y, half_rows, ra, rd, half_u, half_v,
        rows.to(tl.float32), columns.to(tl.float32),
        kxx + tl.zeros_like(a), kxy + tl.zeros_like(a), kx + tl.zeros_like(a),
        kyx + tl.zeros_like(a), kyy + tl.zeros_like(a), ky + tl.zeros_like(a),
    )  # fmt: skip
    for i in tl.static_range(25):
        tl.store(at + i, numbers[i], mask=there)


@triton.jit(
    do_not_specialize=["z0", "groups", "rounds", "tiles", "channels", "W", "H", "OW", "OH", "flags_n"]
)  # fmt: skip
def gather_kernel(
    image, grad, result, sums, facts, flags, parts, fill_high, fill_low, z0, groups, rounds, tiles, channels,
    W, H, OW, OH, flags_n,
    SLOPES: tl.constexpr, U: tl.constexpr, LINEAR: tl.constexpr, LX: tl.constexpr, RX: tl.constexpr,
    KT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of one sample to U channels at a time, `rounds` times, and to theta where SLOPES is set.

    Where the map is flagged, `sums`, into which the other kernels add, becomes 0.
    """
    F32: tl.constexpr = tl.float32
    z = tl.program_id(2) + z0
    n = (z // groups).to(tl.int64)
    first = (z % groups) * (rounds * U)
    turns = tl.minimum(rounds, (channels - first) // U)
    flagged = tl.load(flags + n * flags_n) != 0
    fact = facts + n * flags_n * NUMBERS
    a, b, x0 = tl.load(fact), tl.load(fact + 1), tl.load(fact + 2)
    d, e, y0 = tl.load(fact + 3), tl.load(fact + 4), tl.load(fact + 5)
    ia, ib, id_, ie = tl.load(fact + 6), tl.load(fact + 7), tl.load(fact + 8), tl.load(fact + 9)
    room_x, room_y, half_rows = tl.load(fact + 10), tl.load(fact + 11), tl.load(fact + 12)
    ra, rd, half_u, half_v = tl.load(fact + 13), tl.load(fact + 14), tl.load(fact + 15), tl.load(fact + 16)
    all_rows = tl.where(flagged, 0, tl.load(fact + 17).to(tl.int32))
    columns = tl.load(fact + 18).to(tl.int32)
    cx = centre(OW, F32)
    cy = centre(OH, F32)
    width = OW.to(F32)
    lane = tl.arange(0, BLOCK)
    MAGIC: tl.constexpr = 12582912.0  # 1.5 * 2^23: added to a float, it makes the nearest whole number of it
    s0 = tl.zeros([BLOCK], F32)
    s1 = tl.zeros([BLOCK], F32)
    s2 = tl.zeros([BLOCK], F32)
    s3 = tl.zeros([BLOCK], F32)
    s4 = tl.zeros([BLOCK], F32)
    s5 = tl.zeros([BLOCK], F32)
    t0 = tl.program_id(0) * KT
    for t in range(t0, tl.minimum(t0 + KT, tiles)):
        rows = all_rows
        if LINEAR:
            half_width = (W + 1) // 2
            block = t * BLOCK + lane
            iy = block // half_width
            ix = (block - iy * half_width) * 2
            iy = iy * 2
        else:
            ix = (t * LX + lane % LX) * 2
            iy = (tl.program_id(1) * (BLOCK // LX) + lane // LX) * 2
            # No point reads any block of the tile: the tile is taken back to the output, and that misses it.
            wide: tl.constexpr = LX * 2.0
            high: tl.constexpr = (BLOCK // LX) * 2.0
            tx = t * wide + (wide - 1.0) * 0.5 - x0
            ty = tl.program_id(1) * high + (high - 1.0) * 0.5 - y0
            reach_x = cx + (tl.abs(ia) * (wide + 1.0) + tl.abs(ib) * (high + 1.0)) * 0.5 + room_x
            reach_y = cy + (tl.abs(id_) * (wide + 1.0) + tl.abs(ie) * (high + 1.0)) * 0.5 + room_y
            missed = (tl.abs(ia * tx + ib * ty) > reach_x) | (tl.abs(id_ * tx + ie * ty) > reach_y)
            rows = tl.where(missed, 0, rows)
        there = (ix < W) & (iy < H)
        ux = ix.to(F32) + 0.5 - x0
        uy = iy.to(F32) + 0.5 - y0
        middle = cy + id_ * ux + ie * uy
        low = tl.minimum(tl.ceil(tl.maximum(middle - half_rows, 0.0)), cy * 2.0).to(tl.int32)
        high_end = tl.where(there, tl.minimum(middle + half_rows, cy * 2.0), -1.0)
        pixel = iy * W + ix
        right = there & (ix + 1 < W)
        below = there & (iy + 1 < H)
        both = right & (iy + 1 < H)
        inside = (there, right, below, both)
        offset = (pixel, pixel + 1, pixel + W, pixel + W + 1)
        for turn in range(0, turns):
            plane = n * channels + first + turn * U
            totals = ()
            own = ()
            for j in tl.static_range(4):
                for c in tl.static_range(U):
                    totals = totals + (tl.zeros([BLOCK], F32),)
                    if SLOPES:
                        value = tl.load(image + (plane + c) * (W * H) + offset[j], mask=inside[j], other=0.0).to(F32)
                        # Weights sum to 1: what lies outside is the fill, so count from there.
                        own = own + (tl.where(inside[j], value - fill_high - fill_low, 0.0),)
            for dy in range(0, rows):
                qy = low + dy
                row = qy.to(F32)
                r = row - cy
                u_row = b * r - ux
                v_row = e * r - uy
                start = cx + tl.maximum(-u_row * ra - half_u, -v_row * rd - half_v)
                start = tl.minimum(tl.maximum(start, 0.0), width)
                whole = (start + 0.4999) + MAGIC
                q0 = whole.to(tl.int32, bitcast=True) - 0x4B400000
                qx = (whole - MAGIC) - cx
                u = a * qx + u_row
                v = d * qx + v_row
                limit = tl.where(row <= high_end, OW, 0) - q0
                at = qy * OW + q0
                h0 = tl.zeros([BLOCK], F32)
                h1 = tl.zeros([BLOCK], F32)
                for k0 in range(0, columns, RX):
                    for k in tl.static_range(RX):
                        # A hair to the left: at u = -1.5 the weight is 0, but its slope is not.
                        near = tl.maximum(tl.abs(u + 1.1920929e-07), tl.abs(v + 1.1920929e-07)) < 1.5
                        reads = near & (k0 + k < limit)
                        wx = (tl.maximum(1.0 - tl.abs(u + 0.5), 0.0), tl.maximum(1.0 - tl.abs(u - 0.5), 0.0))
                        wy = (tl.maximum(1.0 - tl.abs(v + 0.5), 0.0), tl.maximum(1.0 - tl.abs(v - 0.5), 0.0))
                        more = ()
                        pulled = ()
                        for c in tl.static_range(U):
                            g = tl.load(grad + (plane + c) * (OW * OH) + (at + (k0 + k)), mask=reads, other=0.0)
                            pulled = pulled + (g.to(F32),)
                        for j in tl.static_range(4):
                            for c in tl.static_range(U):
                                more = more + (totals[j * U + c] + wx[j % 2] * wy[j // 2] * pulled[c],)
                        totals = more
                        if SLOPES:
                            shares = ()
                            for j in tl.static_range(4):
                                share = pulled[0] * own[j * U]
                                for c in tl.static_range(1, U):
                                    share += pulled[c] * own[j * U + c]
                                shares = shares + (share,)
                            ex = (
                                tl.where(u < -0.5, 1.0, tl.where(u < 0.5, -1.0, 0.0)),
                                tl.where(u < -0.5, 0.0, tl.where(u < 0.5, 1.0, -1.0)),
                            )
                            ey = (
                                tl.where(v < -0.5, 1.0, tl.where(v < 0.5, -1.0, 0.0)),
                                tl.where(v < -0.5, 0.0, tl.where(v < 0.5, 1.0, -1.0)),
                            )
                            gx = (shares[0] * ex[0] + shares[1] * ex[1]) * wy[0]
                            gx += (shares[2] * ex[0] + shares[3] * ex[1]) * wy[1]
                            gy = (shares[0] * wx[0] + shares[1] * wx[1]) * ey[0]
                            gy += (shares[2] * wx[0] + shares[3] * wx[1]) * ey[1]
                            h0 += gx
                            h1 += gy
                            s0 += gx * qx
                            s3 += gy * qx
                        qx += 1.0
                        u += a
                        v += d
                if SLOPES:
                    s1 += h0 * r
                    s2 += h0
                    s4 += h1 * r
                    s5 += h1
            for j in tl.static_range(4):
                for c in tl.static_range(U):
                    to = (plane + c) * (W * H) + offset[j]
                    tl.store(result + to, totals[j * U + c].to(result.dtype.element_ty), mask=inside[j])
                    if flagged:
                        tl.store(sums + to, tl.zeros([BLOCK], tl.int64), mask=inside[j])
    if SLOPES:
        programs = tl.num_programs(0) * tl.num_programs(1)
        program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        to = parts + (z.to(tl.int64) * programs + program) * 6
        totals_of = (s0, s1, s2, s3, s4, s5)
        for i in tl.static_range(6):
            tl.store(to + i, tl.sum(totals_of[i]) * tl.load(fact + 19 + i))
