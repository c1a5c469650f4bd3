"""Launches of the gathering kernel: which calls it serves, how the work is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from torch_stn.sampling.backends.triton_kernels.facts import NUMBERS, facts_kernel
from torch_stn.sampling.backends.triton_kernels.gather import gather_kernel
from torch_stn.sampling.backends.triton_kernels.plan import BLOCK, MOST_PROGRAMS, NARROW, ROW, Plan
from torch_stn.sampling.backends.triton_kernels.volume import volume_facts_kernel, volume_gather_kernel
from torch_stn.sampling.backends.triton_kernels.words import FORMS

if TYPE_CHECKING:
    from torch_stn.sampling.backends.triton_kernels.call import Call

RUN = 4  # candidates looked at together
TILES = 4  # tiles of a program: their sums for theta are added up once
REGISTERS = 128  # of a thread at most, so that four programs fit a multiprocessor; none is spilled
REGISTERS_OF_MANY = 168  # three programs fit: for homographies, and for eight voxels of four channels
LONGEST_AXIS = 2**22  # the trick that makes whole numbers of floats counts no further


def serves(plan: Plan) -> bool:
    """Whether calls of the plan are of the kind that this file gathers for."""
    how, sizes = plan.how, (*plan.in_size, *plan.how.size)
    forms = FORMS[:2] if plan.dims == 2 else FORMS[:1]
    kind = how.form in forms and (how.interpolation, how.padding) == ("bilinear", "zeros")
    mine = plan.acc == torch.float32 and not plan.last and plan.images == plan.batch
    return kind and mine and max(sizes) < LONGEST_AXIS


def backward(call: Call, grad: Tensor, source_wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The gradients to the image and, if wanted, to theta."""
    plan, device = call.plan, grad.device
    facts = torch.empty(plan.maps, NUMBERS.value, dtype=torch.float32, device=device)
    flags = torch.empty(plan.maps, dtype=torch.int32, device=device)
    result = call.empty(plan.images, plan.in_size, call.image.dtype)
    sums = call.empty(plan.images, plan.in_size, torch.int64)  # touched for flagged maps alone
    gathered = _Gathered(call, grad, result, sums, facts, flags)
    parts = None
    if plan.dims == 2:
        parts = _planes(gathered, source_wanted)
    else:
        _volumes(gathered)
    call.settle(grad, sums, result, flags)
    if not source_wanted:
        return result, None
    if parts is None:
        return result, call.source_gradient(grad)
    # The last rows are those of the kernels that serve any map: one sum takes all.
    call.slopes(grad, parts[:, -plan.programs(flagged=True) :], flags)
    return result, call.of_maps(parts)


class _Gathered(NamedTuple):
    """What both kinds of launches are given."""

    call: Call
    grad: Tensor
    result: Tensor
    sums: Tensor
    facts: Tensor
    flags: Tensor

    def groups(self, widest: int, most: int) -> tuple[int, int, int]:
        """Channels read at once, how often a program does so, and programs for all channels."""
        channels = self.call.plan.channels
        each = next(u for u in range(min(widest, channels), 0, -1) if channels % u == 0)
        rounds = max(1, min(most, channels) // each)
        return each, rounds, -(-channels // (rounds * each))


def _planes(given: _Gathered, source_wanted: bool) -> Tensor:
    """Images: the gradient to the pixels, and each program's sums for theta."""
    call, grad, result, sums, facts, flags = given
    plan = call.plan
    (h, w), (oh, ow), bent = plan.in_size, plan.how.size, plan.how.form == "projective"
    scales = [plan.scales[i] for i in (0, 1, 3, 4, 6, 7)]
    facts_kernel[(-(-plan.maps // 128),)](
        call.source, facts, flags, *scales, plan.maps, w, h, ow, oh, BENT=bent, BLOCK=128, num_warps=4
    )
    wide, high = -(-w // 2), -(-h // 2)
    linear = w <= NARROW or -(-high // (BLOCK // ROW)) > MOST_PROGRAMS
    block, most = (BLOCK // 2, 16) if linear and plan.channels > 4 else (BLOCK, 4)
    each, rounds, groups = given.groups(4, most)
    together = 1 if linear else TILES
    tiles = -(-wide * high // block) if linear else -(-wide // ROW)
    grid = (-(-tiles // together), 1 if linear else -(-high // (block // ROW)))
    depth, numbers = plan.batch * groups, 9 if bent else 6
    own, others = groups * grid[0] * grid[1], plan.programs(flagged=True) if source_wanted else 0
    parts = torch.empty(plan.batch, own + others, numbers, dtype=torch.float32, device=grad.device)
    for z0 in range(0, depth, MOST_PROGRAMS):
        gather_kernel[(*grid, min(depth - z0, MOST_PROGRAMS))](
            call.image, grad, result, sums, facts, flags, parts, *plan.fill, *scales, z0, groups, rounds, tiles,
            plan.channels, w, h, ow, oh, int(plan.maps > 1), parts.stride(0), BENT=bent, SLOPES=source_wanted, U=each,
            LINEAR=linear, LX=ROW, RX=RUN, KT=together, BLOCK=block, num_warps=block // 32,
            maxnreg=REGISTERS_OF_MANY if bent else REGISTERS,
        )  # fmt: skip
    return parts


def _volumes(given: _Gathered) -> None:
    """Volumes: the gradient to the voxels."""
    call, grad, result, sums, facts, flags = given
    plan = call.plan
    (d, h, w), (od, oh, ow) = plan.in_size, plan.how.size
    volume_facts_kernel[(-(-plan.maps // 128),)](
        call.source, facts, flags, *plan.scales, plan.maps, w, h, d, ow, oh, od, BLOCK=128, num_warps=4
    )
    wide, high, deep = -(-w // 2), -(-h // 2), -(-d // 2)
    each, rounds, groups = given.groups(4, 16)
    tiles_y = -(-high // (BLOCK // ROW))
    linear = w <= NARROW or tiles_y * deep > MOST_PROGRAMS
    grid = (-(-wide * high * deep // BLOCK), 1) if linear else (-(-wide // ROW), tiles_y * deep)
    depth = plan.batch * groups
    for z0 in range(0, depth, MOST_PROGRAMS):
        volume_gather_kernel[(*grid, min(depth - z0, MOST_PROGRAMS))](
            grad, result, sums, facts, flags, z0, groups, rounds, tiles_y, plan.channels, w, h, d, ow, oh, od,
            int(plan.maps > 1), U=each, LINEAR=linear, LX=ROW, RX=RUN, BLOCK=BLOCK, num_warps=BLOCK // 32,
            maxnreg=REGISTERS if each < 3 else REGISTERS_OF_MANY,
        )  # fmt: skip
