"""The image gradient of linear reading at any points, without atomics: points sorted by the cell that they read.

Points of one cell lie side by side then, in their own order, as the sort is stable; so do those of two cells beside
each other. A pixel adds up the points of the cells about it, always in the same order. Coordinates are computed once,
for all channels: it pays from some channels on, below which sorting costs more than 64-bit additions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_stn.sampling.backends.triton_kernels.collect import cell_kernel, collect_kernel
from torch_stn.sampling.backends.triton_kernels.plan import MOST_PROGRAMS, Plan

if TYPE_CHECKING:
    from torch_stn.sampling.backends.triton_kernels.call import Call

FEWEST_CHANNELS = 16  # measured on an H100: of 64, sorting and all, half the time of F.grid_sample's; of 3, a tie


def serves(plan: Plan) -> bool:
    """Whether sorting the points is the fastest way to the same bits every time.

    Under border padding all that lie outside read the pixels of the rim: one thread would add up thousands there.
    """
    return (
        plan.how.padding != "border"
        and plan.taps == 2
        and plan.channels >= FEWEST_CHANNELS
        and plan.images == plan.batch
        and plan.how.deterministic
    )


def backward(call: Call, grad: Tensor) -> Tensor:
    """The gradient to the image."""
    plan, size = call.plan, call.plan.in_size
    cells = math.prod(n + 1 for n in size)
    last = plan.maps * (cells + 1)
    word = torch.int32 if last < 2**31 else torch.int64
    keys = torch.empty(plan.maps * plan.points, dtype=word, device=grad.device)
    fractions = torch.empty(plan.maps * plan.points, plan.dims, dtype=plan.acc, device=grad.device)
    call.launch(
        cell_kernel, plan.maps, (call.source, call.basis, keys, fractions),
        (plan.cut.tiles_y, *plan.sizes, *call.where), 1, **plan.words,
    )  # fmt: skip
    keys, order = torch.sort(keys, stable=True)
    numbers = torch.arange(last + 1, dtype=word, device=grad.device)
    starts = torch.searchsorted(keys, numbers, out_int32=word == torch.int32)
    result = call.empty(plan.images, size, call.image.dtype)
    groups, block = plan.groups, 128
    for z0 in range(0, plan.batch * groups, MOST_PROGRAMS):
        grid = (-(-math.prod(size) // block), 1, min(plan.batch * groups - z0, MOST_PROGRAMS))
        collect_kernel[grid](
            grad, result, order, starts, fractions, z0, groups, *plan.sizes[:3], plan.points, int(plan.maps > 1),
            *plan.image_steps, *plan.result_steps, DIMS=plan.dims, ACC=plan.words["ACC"], LAST=plan.last,
            SPLIT=groups > 1, U=plan.each, BLOCK=block, num_warps=block // 32,
        )  # fmt: skip
    return result
