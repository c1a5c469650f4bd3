"""One call of the Triton kernels: tensors in the form that they read, and the launches."""

from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor

from torch_stn.sampling.backends.triton_kernels import inverse, sorting
from torch_stn.sampling.backends.triton_kernels.passes import coefficient_kernel, read_kernel, slope_kernel
from torch_stn.sampling.backends.triton_kernels.plan import BLOCK, MOST_PROGRAMS, plan_of
from torch_stn.sampling.backends.triton_kernels.scatter import greatest_kernel, scatter_kernel, settle_kernel
from torch_stn.sampling.backends.triton_kernels.words import GIVEN, How

CHUNK, ROUNDS = 1024, 16  # numbers that a program of a pass over a whole tensor takes at once, and how often


class Call:
    """The tensors of a call as the kernels want them, beside its plan."""

    def __init__(self, image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> None:
        image, source = image.resolve_neg(), source.resolve_neg()  # kernels read what lies there
        last = not image.is_contiguous() and image.is_contiguous(memory_format=_last_format(image))
        self.image = image if last else image.contiguous()
        if how.form in GIVEN:
            self.source = source.reshape(source.shape[0], -1, source.shape[-1])
            strides = self.source.stride()
        else:
            self.source = source.contiguous()
            strides = (self.source.stride(0), 0, 0)
        self.where = strides if source.shape[0] > 1 else (0, *strides[1:])
        # (K, points), neighbours in memory side by side; splines keep theirs so, which makes this a view.
        self.basis = self.source if basis is None else basis.movedim(-1, 0).contiguous()
        coefficients = 0 if basis is None else self.basis.shape[0]
        self.plan = plan_of(how, image.shape, image.dtype, last, source.shape[0], coefficients)
        # A map of somebody else's may say one batch and size and hold another: kernels would read past its end.
        points = source.shape[1:-1] if how.form in GIVEN else how.size if basis is None else basis.shape[:-1]
        if prod(points) != self.plan.points:
            raise ValueError(f"map: wanted points for an output of {how.size}, its lowered form has {tuple(points)}")
        if basis is not None and coefficients != source.shape[1]:
            raise ValueError(f"map: wanted a coefficient for each of {coefficients} functions, got {source.shape[1]}")

    def empty(self, n: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """(n, C, *size) in the memory format of the image."""
        shape = (n, self.plan.channels, *size)
        return torch.empty(shape, dtype=dtype, device=self.image.device, memory_format=self.plan.format)

    def launch(
        self, kernel: Any, depth: int, first: tuple[Any, ...], last: tuple[Any, ...], turns: int, **words: Any
    ) -> None:
        """Over all points, `turns` tiles a program, and `depth` of what lies behind them."""
        cut = self.plan.cut
        for z0 in range(0, depth, MOST_PROGRAMS):
            grid = (-(-cut.tiles // turns), cut.rows, min(depth - z0, MOST_PROGRAMS))
            kernel[grid](*first, *self.plan.scales, z0, *last, **words)

    def read(self) -> Tensor:
        """(max(n, m), C, *size)."""
        plan = self.plan
        result = self.empty(plan.batch, plan.how.size, self.image.dtype)
        self.launch(
            read_kernel,
            plan.batch * plan.groups,
            (self.image, self.source, self.basis, result, *plan.fill),
            (plan.groups, plan.cut.tiles_y, *plan.sizes, *plan.image_steps, *self.where, *plan.result_steps),
            plan.read_words["TILES"], **plan.read_words,
        )  # fmt: skip
        return result

    def source_gradient(self, grad: Tensor) -> Tensor:
        """The gradient to the source, in its shape up to the size."""
        plan = self.plan
        numbers = self.source.shape[-2] * self.source.shape[-1] if plan.matrix else plan.dims
        depth, rows = (plan.batch, plan.programs()) if plan.matrix else (plan.maps, plan.points)
        result = torch.empty(depth, rows, numbers, dtype=plan.acc, device=self.image.device)
        self.slopes(grad, result, None)
        if plan.matrix:
            return self.of_maps(result)
        return self.of_coefficients(result) if plan.how.form == "basis" else result

    def slopes(self, grad: Tensor, result: Tensor, flags: Tensor | None) -> None:
        """A matrix: each program's sums, (batch, programs, numbers); with flags, 0 but for the maps that they name.
        Else each point's gradient, (maps, points, d).
        """
        plan = self.plan
        turns, images = (plan.turns(flags is not None), 1) if plan.matrix else (1, plan.batch // plan.maps)
        each = plan.together(4)
        self.launch(
            slope_kernel,
            result.shape[0],
            (grad, self.image, self.source, self.basis, result, result if flags is None else flags, *plan.fill),
            (
                turns, plan.cut.tiles, plan.cut.tiles_y, *plan.sizes, plan.channels, images, int(plan.maps > 1),
                *plan.image_steps, *self.where, *plan.result_steps, result.stride(0),
            ),
            turns, FILLED=plan.how.fill != 0.0, FLAGGED=flags is not None,
            ONCE=images == 1 and each == plan.channels, U=each, **plan.words,
        )  # fmt: skip

    def of_maps(self, parts: Tensor) -> Tensor:
        """Sums over programs, (samples, programs, numbers), to one matrix for each map."""
        axes = (0, 1) if self.plan.maps == 1 else (1,)
        total = parts.sum(axes, dtype=torch.float64).reshape(self.source.shape)
        return total.to(self.source.dtype)

    def of_coefficients(self, pull: Tensor) -> Tensor:
        """A displacement's gradient (m, M, d) -> that of what made it from the basis, (m, K, d)."""
        plan, rounds, each = self.plan, 8, 8
        chunks, columns = -(-plan.points // (rounds * BLOCK)), -(-plan.coefficients // each)
        parts = pull.new_empty(plan.maps, chunks, columns * each, plan.dims)
        coefficient_kernel[(plan.maps * chunks, columns)](
            pull, self.basis, parts, plan.coefficients, plan.points, chunks,
            DIMS=plan.dims, ACC=plan.words["ACC"], ROUNDS=rounds, KB=each, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
        return parts.sum(1, dtype=torch.float64)[:, : plan.coefficients].to(self.source.dtype)

    def scatter(self, grad: Tensor) -> Tensor:
        """The image gradient by atomic additions: in fixed point, the same bits every time, or in floats."""
        plan, fixed = self.plan, self.plan.how.deterministic
        sums = self.empty(plan.images, plan.in_size, torch.int64 if fixed else plan.acc).zero_()
        if not fixed:
            self.add(grad, sums, sums, None)
            return sums.to(self.image.dtype)
        result = self.empty(plan.images, plan.in_size, self.image.dtype)
        self.settle(grad, sums, result, None)
        return result

    def settle(self, grad: Tensor, sums: Tensor, result: Tensor, flags: Tensor | None) -> None:
        """Add up in fixed point, `sums` being 0, and turn that into the image gradient; with flags, of those alone."""
        plan = self.plan
        word = torch.int64 if plan.acc == torch.float64 else torch.int32
        bits = torch.zeros(plan.images, dtype=word, device=grad.device)
        flag, step = bits if flags is None else flags, int(plan.maps > 1)
        words = {"ACC": plan.words["ACC"], "FLAGGED": flags is not None, "ROUNDS": ROUNDS, "BLOCK": CHUNK}
        length = grad.numel() // plan.images
        chunks = -(-length // (CHUNK * ROUNDS))
        greatest_kernel[(plan.images * chunks,)](grad, bits, flag, length, chunks, step, **words, num_warps=4)
        self.add(grad, sums, bits, flags)
        length = sums.numel() // plan.images
        chunks = -(-length // (CHUNK * ROUNDS))
        settle_kernel[(plan.images * chunks,)](
            sums, result, bits, flag, plan.budget(), length, chunks, step, **words, num_warps=4
        )

    def add(self, grad: Tensor, sums: Tensor, bits: Tensor, flags: Tensor | None) -> None:
        """sums += the transpose of reading."""
        plan = self.plan
        turns = 1 if flags is None else plan.turns(flagged=True)
        self.launch(
            scatter_kernel,
            plan.batch * plan.groups,
            (grad, self.source, self.basis, sums, bits, bits if flags is None else flags),
            (
                plan.groups, turns, plan.cut.tiles, plan.cut.tiles_y, *plan.sizes, plan.budget(),
                int(plan.images > 1), int(plan.maps > 1), *plan.image_steps, *self.where, *plan.result_steps,
            ),
            turns, FIXED=sums.dtype == torch.int64, FLAGGED=flags is not None, **plan.scatter_words,
        )  # fmt: skip


def forward(image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> Tensor:
    """(n, C, *in) through m maps or at m sets of points: (max(n, m), C, *size)."""
    with _on(image):
        return Call(image, source, basis, how).read()


def backward(
    grad: Tensor, image: Tensor, source: Tensor, basis: Tensor | None, how: How, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients to image and source, those that are wanted."""
    with _on(image):
        call = Call(image, source, basis, how)
        grad = grad.resolve_neg().contiguous(memory_format=call.plan.format)
        if wanted[0] and inverse.serves(call.plan):
            return inverse.backward(call, grad, wanted[1])
        to_image = None
        if wanted[0]:
            to_image = sorting.backward(call, grad) if sorting.serves(call.plan) else call.scatter(grad)
        to_source = call.source_gradient(grad).reshape(source.shape) if wanted[1] else None
    return to_image, to_source


def _on(image: Tensor) -> AbstractContextManager[Any]:
    """Kernels start on the current device: make it the image's."""
    if not image.is_cuda or image.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(image.device)


def _last_format(image: Tensor) -> torch.memory_format:
    return torch.channels_last if image.dim() == 4 else torch.channels_last_3d
