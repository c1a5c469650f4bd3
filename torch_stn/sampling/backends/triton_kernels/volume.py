"""The gradient of trilinear reading to a volume without atomics: every voxel gathers through the inverse of its map.

As gather.py does for images, with blocks of 2 x 2 x 2 voxels and affine maps: |u|, |v| and |w| < 1.5 about the
middle of a block. Layers and rows of output points come from the box about the block's preimage, the points of a row
from the bounds themselves. theta's gradient is the slope kernel's: its twelve sums do not fit beside eight voxels.
"""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_kernels.facts import FAR, NUMBERS, REACH
from torch_stn.sampling.backends.triton_kernels.gather import hats
from torch_stn.sampling.backends.triton_kernels.sources import centre

MOST_CANDIDATES = tl.constexpr(1024)  # points that may read one block, beyond which a map is flagged


@triton.jit
def _run_of(slope, room):
    """Of u = slope q + ...: 1 / slope, and how far from u = 0 a point of a row may lie; no bound where u stays."""
    bounds = tl.abs(slope) > 1e-8
    rate = tl.where(bounds, 1.0 / tl.where(bounds, slope, 1.0), 0.0)
    return rate, tl.where(bounds, tl.abs(rate) * (REACH + room) + 1e-3, FAR)


@triton.jit(do_not_specialize=["maps", "W", "H", "D", "OW", "OH", "OD"])
def volume_facts_kernel(
    source, facts, flags, rx, ry, rz, hx, hy, hz, sx, sy, sz, maps, W, H, D, OW, OH, OD, BLOCK: tl.constexpr
):  # fmt: skip
    """(maps, NUMBERS): the map in pixels about the centres, its inverse, and how many points may read a block."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < maps
    half = (hx, hy, hz)
    ratio = (rx, ry, rz)
    step = (sx, sy, sz)
    m = ()
    shift = ()
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            scale = ratio[i] if i == j else half[i] * step[j]
            m = m + (tl.load(source + n * 12 + (i * 4 + j), mask=there, other=0.0) * scale,)
        shift = shift + (tl.load(source + n * 12 + (i * 4 + 3), mask=there, other=0.0) * half[i],)
    # Row i, column j of the adjugate, and the size of what was subtracted for it.
    adjugate = ()
    sizes = ()
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            first = m[(j + 1) % 3 * 3 + (i + 1) % 3] * m[(j + 2) % 3 * 3 + (i + 2) % 3]
            second = m[(j + 1) % 3 * 3 + (i + 2) % 3] * m[(j + 2) % 3 * 3 + (i + 1) % 3]
            adjugate = adjugate + (first - second,)
            sizes = sizes + (tl.abs(first) + tl.abs(second),)
    det = m[0] * adjugate[0] + m[1] * adjugate[3] + m[2] * adjugate[6]
    size = tl.abs(m[0]) * sizes[0] + tl.abs(m[1]) * sizes[3] + tl.abs(m[2]) * sizes[6]
    regular = tl.abs(det) > 1e-6 * size  # False for NaN
    inverse = 1.0 / tl.where(regular, det, 1.0)
    sides = (W.to(tl.float32), H.to(tl.float32), D.to(tl.float32))
    ends = (OW.to(tl.float32), OH.to(tl.float32), OD.to(tl.float32))
    at = facts + n.to(tl.int64) * NUMBERS
    for k in tl.static_range(9):
        tl.store(at + k, m[k], mask=there)
        tl.store(at + (12 + k), adjugate[k] * inverse, mask=there)
    count = tl.zeros([BLOCK], tl.float32) + 1.0
    columns = tl.zeros([BLOCK], tl.float32) + FAR
    for i in tl.static_range(3):
        tl.store(at + (9 + i), shift[i], mask=there)
        # Room for rounding, generous: what it lets in besides has weight zero.
        reach = tl.zeros([BLOCK], tl.float32)
        lost = 1e-6 * ends[i]
        room = 1e-6 * (sides[i] + tl.abs(shift[i]))
        for j in tl.static_range(3):
            reach += tl.abs(adjugate[i * 3 + j] * inverse) * REACH
            lost += 2e-6 * sizes[i * 3 + j] * tl.abs(inverse) * (sides[j] + tl.abs(shift[j]))
            room += 1e-6 * tl.abs(m[i * 3 + j]) * ends[j]
        tl.store(at + (21 + i), reach + lost + 1e-3, mask=there)
        tl.store(at + (24 + i), room, mask=there)
        rate, run = _run_of(m[i * 3], room)
        columns = tl.minimum(columns, run)
        if i > 0:
            rows = tl.minimum(2.0 * (reach + lost + 1e-3), ends[i] - 1.0).to(tl.int32) + 1
            tl.store(at + (27 + i), rows.to(tl.float32), mask=there)
            count = count * rows.to(tl.float32)
    columns = (tl.minimum(2.0 * columns, ends[0] - 1.0).to(tl.int32) + 1).to(tl.float32)
    tl.store(at + 27, columns, mask=there)
    tl.store(flags + n, tl.where(regular & (count * columns <= MOST_CANDIDATES), 0, 1), mask=there)


@triton.jit(
    do_not_specialize=["z0", "groups", "rounds", "tiles_y", "channels", "W", "H", "D", "OW", "OH", "OD", "flags_n"]
)  # fmt: skip
def volume_gather_kernel(
    grad, result, sums, facts, flags, z0, groups, rounds, tiles_y, channels, W, H, D, OW, OH, OD, flags_n,
    U: tl.constexpr, LINEAR: tl.constexpr, LX: tl.constexpr, RX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The image gradient of one sample to U channels at a time, `rounds` times.

    Where the map is flagged, `sums`, into which the other kernels add, becomes 0.
    """
    F32: tl.constexpr = tl.float32
    z = tl.program_id(2) + z0
    n = (z // groups).to(tl.int64)
    first = (z % groups) * (rounds * U)
    turns = tl.minimum(rounds, (channels - first) // U)
    flagged = tl.load(flags + n * flags_n) != 0
    fact = facts + n * flags_n * NUMBERS
    m = ()
    for k in tl.static_range(9):
        m = m + (tl.load(fact + k),)
    columns = tl.load(fact + 27).to(tl.int32)
    rows = tl.load(fact + 28).to(tl.int32)
    layers = tl.where(flagged, 0, tl.load(fact + 29).to(tl.int32))
    half_y, half_z = tl.load(fact + 22), tl.load(fact + 23)
    cx, cy, cz = centre(OW, F32), centre(OH, F32), centre(OD, F32)
    width = OW.to(F32)
    lane = tl.arange(0, BLOCK)
    MAGIC: tl.constexpr = 12582912.0  # 1.5 * 2^23: added to a float, it makes the nearest whole number of it
    if LINEAR:
        blocks_x = (W + 1) // 2
        blocks_y = (H + 1) // 2
        block = tl.program_id(0) * BLOCK + lane
        row = block // blocks_x
        ix = (block - row * blocks_x) * 2
        iz = row // blocks_y
        iy = (row - iz * blocks_y) * 2
        iz = iz * 2
    else:
        layer = tl.program_id(1) // tiles_y
        ix = (tl.program_id(0) * LX + lane % LX) * 2
        iy = ((tl.program_id(1) - layer * tiles_y) * (BLOCK // LX) + lane // LX) * 2
        iz = tl.zeros_like(ix) + layer * 2
    there = (ix < W) & (iy < H) & (iz < D)
    # The middle of a block, counted from where the middle of the output reads.
    ux = ix.to(F32) + 0.5 - centre(W, F32) - tl.load(fact + 9)
    uy = iy.to(F32) + 0.5 - centre(H, F32) - tl.load(fact + 10)
    uz = iz.to(F32) + 0.5 - centre(D, F32) - tl.load(fact + 11)
    mid_y = cy + tl.load(fact + 15) * ux + tl.load(fact + 16) * uy + tl.load(fact + 17) * uz
    mid_z = cz + tl.load(fact + 18) * ux + tl.load(fact + 19) * uy + tl.load(fact + 20) * uz
    low_y = tl.minimum(tl.ceil(tl.maximum(mid_y - half_y, 0.0)), cy * 2.0).to(tl.int32)
    low_z = tl.minimum(tl.ceil(tl.maximum(mid_z - half_z, 0.0)), cz * 2.0).to(tl.int32)
    end_y = tl.minimum(mid_y + half_y, cy * 2.0)
    end_z = tl.where(there, tl.minimum(mid_z + half_z, cz * 2.0), -1.0)
    rate_u, run_u = _run_of(m[0], tl.load(fact + 24))
    rate_v, run_v = _run_of(m[3], tl.load(fact + 25))
    rate_w, run_w = _run_of(m[6], tl.load(fact + 26))
    voxel = (iz * H + iy) * W + ix
    for turn in range(0, turns):
        plane = n * channels + first + turn * U
        totals = ()
        for _ in tl.static_range(8 * U):
            totals = totals + (tl.zeros([BLOCK], F32),)
        for dz in range(0, layers):
            qz = low_z + dz
            pz = qz.to(F32) - cz
            u_layer, v_layer, w_layer = m[2] * pz - ux, m[5] * pz - uy, m[8] * pz - uz
            in_layer = qz.to(F32) <= end_z
            for dy in range(0, rows):
                qy = low_y + dy
                py = qy.to(F32) - cy
                u_row, v_row, w_row = m[1] * py + u_layer, m[4] * py + v_layer, m[7] * py + w_layer
                start = tl.maximum(-u_row * rate_u - run_u, -v_row * rate_v - run_v)
                start = cx + tl.maximum(start, -w_row * rate_w - run_w)
                start = tl.minimum(tl.maximum(start, 0.0), width)
                whole = (start + 0.4999) + MAGIC
                q0 = whole.to(tl.int32, bitcast=True) - 0x4B400000
                qx = (whole - MAGIC) - cx
                u = m[0] * qx + u_row
                v = m[3] * qx + v_row
                w = m[6] * qx + w_row
                limit = tl.where(in_layer & (qy.to(F32) <= end_y), OW, 0) - q0
                at = (qz * OH + qy) * OW + q0
                for k0 in range(0, columns, RX):
                    for k in tl.static_range(RX):
                        near = tl.maximum(tl.maximum(tl.abs(u), tl.abs(v)), tl.abs(w)) < 1.5
                        reads = near & (k0 + k < limit)
                        wx = hats(u)
                        wy = hats(v)
                        wz = hats(w)
                        pulled = ()
                        for c in tl.static_range(U):
                            up = grad + (plane + c) * (OW * OH * OD) + (at + (k0 + k))
                            pulled = pulled + (tl.load(up, mask=reads, other=0.0).to(F32),)
                        more = ()
                        for j in tl.static_range(8):
                            weight = wx[j % 2] * wy[j // 2 % 2] * wz[j // 4]
                            for c in tl.static_range(U):
                                more = more + (totals[j * U + c] + weight * pulled[c],)
                        totals = more
                        u += m[0]
                        v += m[3]
                        w += m[6]
        for j in tl.static_range(8):
            inside = there & (ix + j % 2 < W) & (iy + j // 2 % 2 < H) & (iz + j // 4 < D)
            offset = voxel + (j // 4 * H + j // 2 % 2) * W + j % 2
            for c in tl.static_range(U):
                to = (plane + c) * (W * H * D) + offset
                tl.store(result + to, totals[j * U + c].to(result.dtype.element_ty), mask=inside)
                if flagged:
                    tl.store(sums + to, tl.zeros([BLOCK], tl.int64), mask=inside)
