"""Kernels of the Triton backend for points sorted by the cell that they read: the cells, and the sums over them."""

import triton
import triton.language as tl

from torch_stn.sampling.backends.triton_kernels.passes import SIZES, offset, share_of
from torch_stn.sampling.backends.triton_kernels.sources import cells_of, centred, geometry, output_points


@triton.jit(do_not_specialize=SIZES)
def cell_kernel(
    source, basis, keys, fractions, rx, ry, rz, hx, hy, hz, sx, sy, sz, z0, tiles_y, W, H, D, OW, OH, OD, K,
    source_n, source_p, source_i,
    FORM: tl.constexpr, DIMS: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr,
    ACC: tl.constexpr, LAST: tl.constexpr, LINEAR: tl.constexpr, LX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of each point its cell, numbered through all samples, and how far it lies in it along each axis.

    Cells begin one pixel before the image; a sample's last number stands for all points that read nothing.
    """
    n = (tl.program_id(2) + z0).to(tl.int64)
    size = (W, H, D)
    out = (OW, OH, OD)
    scales = geometry(((rx, ry, rz), (hx, hy, hz), (sx, sy, sz)), size, out, ALIGN, ACC)
    o, ox, oy, oz, there = output_points(tl.program_id(0), out, tiles_y, LINEAR, LX, BLOCK, DIMS)
    before, fraction, slope, real = cells_of(
        source + n * source_n, basis, o, there, centred(ox, oy, oz, out, ACC), size, out, scales, K, source_p, source_i,
        FORM, DIMS, TAPS, PADDING, ALIGN, ACC,
    )  # fmt: skip
    cells = (W + 1).to(tl.int64) * (H + 1)
    cell = ((before[1] + 1) * (W + 1) + before[0] + 1).to(tl.int64)
    real = real & (before[1] >= -1) & (before[1] < H) & (before[0] >= -1) & (before[0] < W)
    if DIMS == 3:
        cell = cell + (before[2] + 1) * cells
        real = real & (before[2] >= -1) & (before[2] < D)
        cells = cells * (D + 1)
    at = n * OW * OH * OD + o
    tl.store(keys + at, (n * (cells + 1) + tl.where(real, cell, cells)).to(keys.dtype.element_ty), mask=there)
    for i in tl.static_range(DIMS):
        tl.store(fractions + at * DIMS + i, fraction[i], mask=there)


@triton.jit(do_not_specialize=SIZES)
def collect_kernel(
    grad, result, order, starts, fractions, z0, groups, W, H, D, points, maps_n, image_n, image_c, image_p,
    result_n, result_c, result_p,
    DIMS: tl.constexpr, ACC: tl.constexpr, LAST: tl.constexpr, SPLIT: tl.constexpr, U: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """sum over the points that read a pixel of weight times gradient: U channels of one sample.

    maps_n: 0 where all samples have the points of the first.
    """
    n, first = share_of(z0, groups, SPLIT, U)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = pixel // W
    ix = pixel - row * W
    iy = row
    iz = tl.zeros_like(row)
    cells = (W + 1).to(tl.int64) * (H + 1)
    if DIMS == 3:
        iz = row // H
        iy = row - iz * H
        cells = cells * (D + 1)
    there = (iz < D) & (iy < H)
    totals = ()
    for _ in tl.static_range(U):
        totals = totals + (tl.zeros([BLOCK], ACC),)
    LAYERS: tl.constexpr = 2 if DIMS == 3 else 1
    plane = grad + n * result_n + first * result_c
    for kz in tl.static_range(LAYERS):
        for ky in tl.static_range(2):
            # The cells that end at the pixel along x, and beside them those that begin there: one run of points.
            cell = ((iz + kz).to(tl.int64) * (H + 1) + iy + ky) * (W + 1) + ix + n * maps_n * (cells + 1)
            begin = tl.load(starts + cell, mask=there, other=0)
            change = tl.load(starts + cell + 1, mask=there, other=0)
            end = tl.load(starts + cell + 2, mask=there, other=0)
            for j in range(0, tl.max(end - begin, axis=0)):
                good = begin + j < end
                p = tl.load(order + begin + j, mask=good, other=0)
                x = tl.load(fractions + p * DIMS, mask=good, other=0.0)
                y = tl.load(fractions + p * DIMS + 1, mask=good, other=0.0)
                weight = tl.where(begin + j < change, x, 1.0 - x) * (1.0 - y if ky == 1 else y)
                if DIMS == 3:
                    z = tl.load(fractions + p * DIMS + 2, mask=good, other=0.0)
                    weight = weight * (1.0 - z if kz == 1 else z)
                up = plane + (p - n * maps_n * points) * result_p
                more = ()
                for c in tl.static_range(U):
                    more = more + (totals[c] + weight * tl.load(up, mask=good, other=0.0).to(ACC),)
                    up += result_c
                totals = more
    to = result + n * image_n + first * image_c + offset(pixel, image_p, LAST)
    for c in tl.static_range(U):
        tl.store(to, totals[c].to(result.dtype.element_ty), mask=there)
        to += image_c
