"""Fused Triton kernels: a lowered map, or points, -> the image in one pass on the GPU, and back; no grid in memory.

Same inputs give the same bits, unless `deterministic=False` asks for float atomics. This file imports no triton: the
kernels (triton_kernels/) are loaded by the first call, which TRITON_INTERPRET=1 before it has run on the CPU, slowly.
"""

import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torch_stn import lowered
from torch_stn.sampling.backends.triton_kernels.compiled import backward, forward, triton_warp
from torch_stn.sampling.backends.triton_kernels.words import INTERPOLATIONS, PADDINGS, How
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.problem import Problem

UNITS = "pixel"  # of the points it reads
READS = (torch.bfloat16, torch.float16)  # as they lie, with float32 coordinates and sums: no float32 copy
MOST_PIXELS = 2**31 - 2**20  # of a plane: the kernels count its pixels in 32 bits

# (image, map or points) -> image, in plain operators
Plain = Callable[[Tensor, "lowered.Lowered | Tensor"], Tensor]

# Asked once, here: a compiled graph cannot ask.
MISSING = None if find_spec("triton") else "the package triton is not installed"
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def why_not(problem: Problem) -> str | None:
    """What the kernels do not have."""
    if problem.interpolation not in INTERPOLATIONS:
        return f"the Triton kernels know only {', '.join(INTERPOLATIONS)}"
    if problem.device != "cuda" and not (INTERPRETED and problem.device == "cpu"):
        return f"the Triton kernels serve CUDA tensors, not {problem.device}"
    if problem.dims not in (2, 3):
        return f"the Triton kernels have no {problem.dims}-D images"
    if len(set(problem.padding)) > 1:
        return "the Triton kernels pad all axes alike"
    if problem.padding[0] not in PADDINGS:
        return f"the Triton kernels know only {', '.join(PADDINGS)} padding"
    if not problem.dtype.is_floating_point:
        return "the Triton kernels read floating-point images only"
    if not abs(problem.fill) <= torch.finfo(torch.float32).max:
        return "the Triton kernels need a fill that float32 holds"
    if torch.compiler.is_exporting():
        return "an exported graph holds plain operators only"
    if math.prod(problem.in_size) > MOST_PIXELS:
        return f"the Triton kernels count the pixels of a plane in 32 bits, at most {MOST_PIXELS}"
    return MISSING


def not_by_default(problem: Problem) -> str | None:
    """What has not been seen to be right on the hardware is nobody's default."""
    return "not yet run on a GPU: ask for backend='triton'"


def reader(size: tuple[int, ...], problem: Problem, plain: Plain) -> Callable[[Tensor, lowered.Lowered], Tensor]:
    """What reads images (n, C, *in), of any floating-point dtype, through lowered maps (m of them; n = m, or one of
    them is 1) for an output of ``size``: (max(n, m), C, *size).
    """

    def read(image: Tensor, form: lowered.Lowered) -> Tensor:
        basis = None
        if isinstance(form, lowered.Matrix):
            name, source = "projective" if form.projective else "affine", form.matrix
        elif isinstance(form, lowered.Basis):
            name, source, basis = "basis", form.coefficients, form.basis
            if basis.requires_grad:  # a learned basis: its gradient is the plain operators' affair
                return plain(image, form)
        else:
            name, source = "field", form.displacement
        if _transformed() or math.prod(size) > MOST_PIXELS:
            return plain(image, form)
        return _run(image, source, basis, size, name, problem, plain)

    return read


def sample(
    image: Tensor,  # (n, C, *in), any floating-point dtype
    points: Tensor,  # (m, *S, d), pixels, any values
    interpolation: Interpolation,
    problem: Problem,
    plain: Plain,
) -> Tensor:  # (max(n, m), C, *S)
    """The image at given points."""
    inner = tuple(points.shape[1:-1])
    if _transformed() or math.prod(inner) > MOST_PIXELS:
        return plain(image, points)
    size = inner if len(inner) == problem.dims else (1,) * (problem.dims - 1) + (math.prod(inner),)
    values = _run(image, points, None, size, "points", problem, plain)
    return values if inner == size else values.reshape(*values.shape[:2], *inner)


def _transformed() -> bool:
    """Whether a jit trace, functorch (vmap, jvp, grad) or a forward derivative looks on: plain operators then."""
    return (
        torch.jit._trace.is_tracing() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def _run(
    image: Tensor,
    source: Tensor,
    basis: Tensor | None,
    size: tuple[int, ...],
    form: str,
    problem: Problem,
    plain: Plain,
) -> Tensor:
    compute = torch.float64 if image.dtype == torch.float64 else torch.float32
    if source.dtype != compute:
        source = source.to(compute)
    if basis is not None:
        basis = basis.to(compute)
    how = How(
        form,
        size,
        problem.interpolation,
        problem.padding[0],
        problem.fill,
        problem.align_corners,
        problem.deterministic,
    )
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:  # make_fx, fake tensors: no memory
        return triton_warp(image, source, basis, form, size, *how[2:])
    if torch.is_grad_enabled() and (image.requires_grad or source.requires_grad):
        return _Fused.apply(image, source, basis, how, plain)
    return forward(image, source, basis, how)


class _Fused(torch.autograd.Function):
    """The kernels in eager mode. A second derivative is taken of the plain operators."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, image: Tensor, source: Tensor, basis: Tensor | None, how: How, plain: Plain
    ) -> Tensor:
        ctx.save_for_backward(image, source, basis)
        ctx.how, ctx.plain = how, plain
        return forward(image, source, basis, how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        image, source, basis = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            return *backward(grad, image, source, basis, ctx.how, wanted), None, None, None
        # Seen afresh, so that a source that was made from the image is not walked through a second time.
        image, source = image.view_as(image), source.view_as(source)
        values = ctx.plain(image, _form(source, basis, ctx.how)).reshape(grad.shape)
        inputs = [tensor for tensor, needed in zip((image, source), wanted, strict=True) if needed]
        if not values.requires_grad:  # nearest reading has no slope
            zeros = [torch.zeros_like(x) if n else None for x, n in zip((image, source), wanted, strict=True)]
            return *zeros, None, None, None
        grads = iter(torch.autograd.grad(values, inputs, grad, create_graph=True, materialize_grads=True))
        return *[next(grads) if needed else None for needed in wanted], None, None, None


def _form(source: Tensor, basis: Tensor | None, how: How) -> "lowered.Lowered | Tensor":
    """What `plain` reads."""
    if how.form == "points":
        return source
    if basis is not None:
        return lowered.Basis(basis, source)
    return lowered.Field(source) if how.form == "field" else lowered.Matrix(source)
