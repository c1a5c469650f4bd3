"""Launches of the gathering kernel: which calls it serves, how the work is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_stn.sampling.backends.triton_facts import NUMBERS, facts_kernel
from torch_stn.sampling.backends.triton_gather import gather_kernel
from torch_stn.sampling.backends.triton_words import FORMS

if TYPE_CHECKING:
    from torch_stn.sampling.backends.triton_call import Call

RUN = 4  # candidates looked at together
TILES = 4  # tiles of a program: their sums for theta are added up once
REGISTERS = 128  # of a thread at most, so that four programs fit a multiprocessor; none is spilled
LONGEST_AXIS = 2**22  # the trick that makes whole numbers of floats counts no further


def serves(call: Call) -> bool:
    """Whether the call is of the kind that this file gathers for."""
    how, sizes = call.how, (*call.image.shape[2:], *call.how.size)
    kind = (call.dims, how.interpolation, how.padding) == (2, "bilinear", "zeros") and how.form in FORMS[:2]
    mine = call.acc == torch.float32 and not call.last and call.images == call.batch
    return kind and mine and max(sizes) < LONGEST_AXIS


def backward(call: Call, grad: Tensor, source_wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The gradients to the image and, if wanted, to theta."""
    (h, w), (oh, ow), device = call.image.shape[2:], call.how.size, grad.device
    facts = torch.empty(call.maps, NUMBERS.value, dtype=torch.float32, device=device)
    flags = torch.empty(call.maps, dtype=torch.int32, device=device)
    bent = call.how.form == "projective"
    scales = [call.scales[i] for i in (0, 1, 3, 4, 6, 7)]
    facts_kernel[(-(-call.maps // 128),)](
        call.source, facts, flags, *scales, call.maps, w, h, ow, oh, BENT=bent, BLOCK=128,
        num_warps=4,
    )  # fmt: skip
    result = call.empty(call.images, (h, w), call.image.dtype)
    sums = call.empty(call.images, (h, w), torch.int64)  # touched for flagged maps alone
    wide, high, row = -(-w // 2), -(-h // 2), 16
    linear = w <= 64
    block, most = (64, 16) if linear and call.channels > 4 else (128, 4)
    each = next(u for u in (4, 3, 2, 1) if call.channels % u == 0)
    rounds = max(1, min(most, call.channels) // each)
    groups = -(-call.channels // (rounds * each))
    together = 1 if linear else TILES
    tiles = -(-wide * high // block) if linear else -(-wide // row)
    grid = (-(-tiles // together), 1 if linear else -(-high // (block // row)))
    depth = call.batch * groups
    parts = torch.empty(call.batch, groups * grid[0] * grid[1], 9 if bent else 6, dtype=torch.float32, device=device)
    for z0 in range(0, depth, 65535):
        gather_kernel[(*grid, min(depth - z0, 65535))](
            call.image, grad, result, sums, facts, flags, parts, *call.fill, *scales, z0, groups, rounds, tiles,
            call.channels, w, h, ow, oh, int(call.maps > 1), BENT=bent, SLOPES=source_wanted, U=each, LINEAR=linear,
            LX=row, RX=RUN, KT=together, BLOCK=block, num_warps=block // 32, maxnreg=REGISTERS,
        )  # fmt: skip
    call.settle(grad, sums, result, flags)
    if not source_wanted:
        return result, None
    return result, call.of_maps(parts) + call.source_gradient(grad, flags)
