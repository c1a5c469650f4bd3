"""The image gradient of bilinear reading without atomics: every pixel gathers through the inverse of a matrix.

One pass over 2 x 2 blocks of input pixels. A block looks at the output points that read it, row by row: those for which
|u| and |v| < 1.5, u and v being where the point reads, counted from the middle of the block. The sums for theta are
exchanged too: each pixel brings its own value, so the image is read once and in order. Every program adds up its sums,
which are added in a fixed order.

A map that is too wild (facts.py) is flagged on the device, with no look from the host: the kernels that serve
any map take it instead, and leave at once where the flag is not set.
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_kernels.facts import FAR, NUMBERS, REACH, columns_of
from torch_stn.sampling.backends.triton_kernels.sources import centre


@triton.jit
def _bound(slope, bend, room):
    """Of u w = slope q + ... the lowest q of a row that reads a block, as -(u w at q = 0) by - w least - spare."""
    sign = tl.where(slope >= 0.0, 1.0, -1.0)
    rate = tl.abs(slope) + REACH * bend
    bounds = rate > 1e-8
    rest = tl.where(bounds, 1.0 / tl.where(bounds, rate, 1.0), 0.0)
    return sign * rest, REACH * rest, tl.where(bounds, 1e-3 + rest * room, FAR)


@triton.jit
def _sides(k):
    """The slopes of the weights of a block's two pixels, for a point k = -1, 0 or 1 cells from the first of them."""
    return tl.where(k < 0.0, 1.0, tl.where(k < 1.0, -1.0, 0.0)), tl.where(k < 0.0, 0.0, tl.where(k < 1.0, 1.0, -1.0))


@triton.jit
def hats(u):
    """Of the two pixels at -1/2 and 1/2."""
    return tl.maximum(1.0 - tl.abs(u + 0.5), 0.0), tl.maximum(1.0 - tl.abs(u - 0.5), 0.0)


@triton.jit(
    do_not_specialize=["z0", "groups", "rounds", "tiles", "channels", "W", "H", "OW", "OH", "flags_n", "parts_n"]
)  # fmt: skip
def gather_kernel(
    image, grad, result, sums, facts, flags, parts, fill_high, fill_low, rx, ry, hx, hy, sx, sy, z0, groups, rounds,
    tiles, channels, W, H, OW, OH, flags_n, parts_n,
    BENT: tl.constexpr, SLOPES: tl.constexpr, U: tl.constexpr, LINEAR: tl.constexpr, LX: tl.constexpr,
    RX: tl.constexpr, KT: tl.constexpr, BLOCK: tl.constexpr,
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
    a, b, c = tl.load(fact), tl.load(fact + 1), tl.load(fact + 2)
    d, e, f = tl.load(fact + 3), tl.load(fact + 4), tl.load(fact + 5)
    a00, a01, a02 = tl.load(fact + 9), tl.load(fact + 10), tl.load(fact + 11)
    a10, a11, a12 = tl.load(fact + 12), tl.load(fact + 13), tl.load(fact + 14)
    room_x, room_y = tl.load(fact + 18), tl.load(fact + 19)
    reach_xx, reach_xy = tl.load(fact + 20), tl.load(fact + 21)
    reach_yx, reach_yy = tl.load(fact + 22), tl.load(fact + 23)
    room_u, room_v = tl.load(fact + 24), tl.load(fact + 25)
    g, h, i = 0.0, 0.0, 1.0
    a20, a21, a22, least = 0.0, 0.0, 1.0, 1.0
    if BENT:
        g, h, i = tl.load(fact + 6), tl.load(fact + 7), tl.load(fact + 8)
        a20, a21, a22 = tl.load(fact + 15), tl.load(fact + 16), tl.load(fact + 17)
        least = tl.load(fact + 26)
    rows_of_all = tl.where(flagged, 0, tl.load(fact + 27).to(tl.int32))
    columns = tl.load(fact + 28).to(tl.int32)
    mx, my = centre(W, F32), centre(H, F32)
    cx, cy = centre(OW, F32), centre(OH, F32)
    width = OW.to(F32)
    lane = tl.arange(0, BLOCK)
    MAGIC: tl.constexpr = 12582912.0  # 1.5 * 2^23: added to a float, it makes the nearest whole number of it
    NUMBER: tl.constexpr = 9 if BENT else 6
    shares_of_theta = ()
    for _ in tl.static_range(NUMBER):
        shares_of_theta = shares_of_theta + (tl.zeros([BLOCK], F32),)
    t0 = tl.program_id(0) * KT
    for t in range(t0, tl.minimum(t0 + KT, tiles)):
        rows = rows_of_all
        if LINEAR:
            half_width = (W + 1) // 2
            block = t * BLOCK + lane
            iy = block // half_width
            ix = (block - iy * half_width) * 2
            iy = iy * 2
        else:
            ix = (t * LX + lane % LX) * 2
            iy = (tl.program_id(1) * (BLOCK // LX) + lane // LX) * 2
            wide: tl.constexpr = LX * 1.0  # of the tile about its centre
            high: tl.constexpr = (BLOCK // LX) * 1.0
            tx = t * (2.0 * wide) + (wide - 0.5) - mx
            ty = tl.program_id(1) * (2.0 * high) + (high - 0.5) - my
            there_d = 1.0
            if BENT:
                there_d = a20 * tx + a21 * ty + a22
                lowest = tl.maximum(there_d - tl.abs(a20) * (wide + 1.0) - tl.abs(a21) * (high + 1.0), least)
                widest = 1.0 / lowest
                bend = tl.abs(g)
                slope_u = tl.abs(a - tx * g) - bend * (wide + REACH)
                slope_v = tl.abs(d - ty * g) - bend * (high + REACH)
                columns = columns_of(slope_u, slope_v, widest, room_u, room_v)
                columns = tl.minimum(columns, width - 1.0).to(tl.int32) + 1
                rows = tl.minimum(2.0 * (REACH * (reach_yx + reach_yy) * widest + room_y), cy * 2.0).to(tl.int32) + 1
                rows = tl.where(flagged, 0, rows)
            # No point reads any block of the tile: the tile is taken back to the output, and that misses it.
            off_x = cx * there_d + reach_xx * (wide + 1.0) + reach_xy * (high + 1.0) + room_x * there_d
            off_y = cy * there_d + reach_yx * (wide + 1.0) + reach_yy * (high + 1.0) + room_y * there_d
            missed = (tl.abs(a00 * tx + a01 * ty + a02) > off_x) | (tl.abs(a10 * tx + a11 * ty + a12) > off_y)
            rows = tl.where(missed & (there_d >= least), 0, rows)
        there = (ix < W) & (iy < H)
        left, top = ix.to(F32), iy.to(F32)
        ux = left + 0.5 - mx
        uy = top + 0.5 - my
        middle = a10 * ux + a11 * uy + a12
        half_rows = REACH * (reach_yx + reach_yy)
        # u w = at_u qx + bt_u qy + ct_u, v w likewise
        at_u, at_v, bt_u, bt_v, ct_u, ct_v = a, d, b, e, c - ux, f - uy
        if BENT:
            once = 1.0 / (a20 * ux + a21 * uy + a22)
            middle = middle * once
            half_rows = half_rows * once
            at_u, bt_u, ct_u = a - ux * g, b - ux * h, c - ux * i
            at_v, bt_v, ct_v = d - uy * g, e - uy * h, f - uy * i
        by_u, reach_u, spare_u = _bound(at_u, g, room_u)
        by_v, reach_v, spare_v = _bound(at_v, g, room_v)
        middle = middle + cy
        half_rows = half_rows + room_y
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
                for k in tl.static_range(U):
                    totals = totals + (tl.zeros([BLOCK], F32),)
                    if SLOPES:
                        value = tl.load(image + (plane + k) * (W * H) + offset[j], mask=inside[j], other=0.0).to(F32)
                        # Weights sum to 1: what lies outside is the fill, so count from there. And 0 * NaN is not 0,
                        # though most points do not read the pixel that is NaN: it has no slope.
                        good = inside[j] & (tl.abs(value) < float("inf"))
                        own = own + (tl.where(good, value - fill_high - fill_low, 0.0),)
            for dy in range(0, rows):
                qy = low + dy
                row = qy.to(F32)
                r = row - cy
                u_row = bt_u * r + ct_u
                v_row = bt_v * r + ct_v
                w_row = i
                if BENT:
                    w_row = h * r + i
                start = tl.maximum(-u_row * by_u - w_row * reach_u - spare_u, -v_row * by_v - w_row * reach_v - spare_v)
                start = tl.minimum(tl.maximum(cx + start, 0.0), width)
                whole = (start + 0.4999) + MAGIC
                q0 = whole.to(tl.int32, bitcast=True) - 0x4B400000
                qx = (whole - MAGIC) - cx
                # Where a point of the row reads, times w, without its part along the row: alike for all blocks.
                x_row = b * r + (c if BENT else c + mx)
                y_row = e * r + (f if BENT else f + my)
                limit = tl.where(row <= high_end, OW, 0) - q0
                at = qy * OW + q0
                of_row = (tl.zeros([BLOCK], F32), tl.zeros([BLOCK], F32), tl.zeros([BLOCK], F32))
                for k0 in range(0, columns, RX):
                    for k in tl.static_range(RX):
                        x = a * qx + x_row
                        y = d * qx + y_row
                        if BENT:
                            w = g * qx + w_row
                            ahead = w > 1e-6  # before the camera
                            over = tl.where(ahead, 1.0 / w, 0.0)
                            x = x * over + mx
                            y = y * over + my
                        u = x - (left + 0.5)
                        v = y - (top + 0.5)
                        near = tl.maximum(tl.abs(u), tl.abs(v)) < 1.5
                        if SLOPES:
                            # The cell decides, not the distance, which each block would round its own way: the slopes
                            # of a point's four pixels must be those of one cell.
                            ku = tl.floor(x) - left
                            kv = tl.floor(y) - top
                            near = tl.maximum(tl.abs(ku), tl.abs(kv)) < 1.5
                        if BENT:
                            near = near & ahead
                        reads = near & (k0 + k < limit)
                        wx = hats(u)
                        wy = hats(v)
                        pulled = ()
                        for m in tl.static_range(U):
                            up = grad + (plane + m) * (OW * OH) + (at + (k0 + k))
                            pulled = pulled + (tl.load(up, mask=reads, other=0.0).to(F32),)
                        more = ()
                        for j in tl.static_range(4):
                            for m in tl.static_range(U):
                                more = more + (totals[j * U + m] + wx[j % 2] * wy[j // 2] * pulled[m],)
                        totals = more
                        if SLOPES:
                            shares = ()
                            for j in tl.static_range(4):
                                share = pulled[0] * own[j * U]
                                for m in tl.static_range(1, U):
                                    share += pulled[m] * own[j * U + m]
                                shares = shares + (share,)
                            ex = _sides(ku)
                            ey = _sides(kv)
                            gx = (shares[0] * ex[0] + shares[1] * ex[1]) * wy[0]
                            gx += (shares[2] * ex[0] + shares[3] * ex[1]) * wy[1]
                            gy = (shares[0] * wx[0] + shares[1] * wx[1]) * ey[0]
                            gy += (shares[2] * wx[0] + shares[3] * wx[1]) * ey[1]
                            s = shares_of_theta
                            if BENT:
                                gx = gx * over
                                gy = gy * over
                                gw = gx * (x - mx) + gy * (y - my)
                                of_row = (of_row[0] + gx, of_row[1] + gy, of_row[2] + gw)
                                shares_of_theta = (
                                    s[0] + gx * qx, s[1], s[2], s[3] + gy * qx, s[4], s[5], s[6] + gw * qx, s[7], s[8]
                                )  # fmt: skip
                            else:
                                of_row = (of_row[0] + gx, of_row[1] + gy, of_row[2])
                                shares_of_theta = (s[0] + gx * qx, s[1], s[2], s[3] + gy * qx, s[4], s[5])
                        qx += 1.0
                if SLOPES:
                    more = ()
                    for k in tl.static_range(NUMBER // 3):
                        s = shares_of_theta
                        more = more + (s[3 * k], s[3 * k + 1] + of_row[k] * r, s[3 * k + 2] + of_row[k])
                    shares_of_theta = more
            for j in tl.static_range(4):
                for k in tl.static_range(U):
                    to = (plane + k) * (W * H) + offset[j]
                    tl.store(result + to, totals[j * U + k].to(result.dtype.element_ty), mask=inside[j])
                    if flagged:
                        tl.store(sums + to, tl.zeros([BLOCK], tl.int64), mask=inside[j])
    if SLOPES:
        programs = tl.num_programs(0) * tl.num_programs(1)
        program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        to = parts + n * parts_n + (z % groups * programs + program) * NUMBER
        scales = (rx, hx * sy, hx, hy * sx, ry, hy, -sx, -sy, -1.0)
        for k in tl.static_range(NUMBER):
            tl.store(to + k, tl.sum(shares_of_theta[k]) * scales[k])
