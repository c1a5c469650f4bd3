"""Fused C++ kernels: a lowered map, or points, -> the image in one pass, and back; no grid in memory.

The arithmetic is in csrc/. Same inputs give the same bits for any number of threads.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torch_stn import lowered
from torch_stn.sampling.backends import cpu_library
from torch_stn.sampling.backends.cpu_call import FORMS, INTERPOLATIONS, NORMALIZED, PADDINGS, How, backward, forward
from torch_stn.sampling.backends.cpu_operator import cpu_warp
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.problem import Problem

UNITS = "pixel"  # of the points it reads
GIVEN_UNITS = ("pixel", "normalized")  # and those it takes as they came
MOST_PIXELS = 2**31 - 2**20  # of a plane: the kernels count in 32 bits, with some padding around

# (image, map or points) -> image, in plain operators
Plain = Callable[[Tensor, "lowered.Lowered | Tensor"], Tensor]


# Asked once, here: a compiled graph cannot ask, and it takes a millisecond.
MISSING = cpu_library.missing()


def why_not(problem: Problem) -> str | None:
    """What the kernels do not have."""
    if problem.device != "cpu":
        return f"the C++ kernels serve CPU tensors, not {problem.device}"
    if problem.dims not in (2, 3):
        return f"the C++ kernels have no {problem.dims}-D images"
    if problem.interpolation not in INTERPOLATIONS:
        return f"the C++ kernels know only {', '.join(INTERPOLATIONS)}"
    if len(set(problem.padding)) > 1:
        return "the C++ kernels pad all axes alike"
    if problem.padding[0] not in PADDINGS:
        return f"the C++ kernels know only {', '.join(PADDINGS)} padding"
    if not problem.dtype.is_floating_point:
        return "the C++ kernels read floating-point images only"
    if not abs(problem.fill) < math.inf:
        return "the C++ kernels need a finite fill"
    if torch.compiler.is_exporting():
        return "an exported graph holds plain operators only"
    if math.prod(problem.in_size) > MOST_PIXELS:
        return f"the C++ kernels count the pixels of a plane in 32 bits, at most {MOST_PIXELS}"
    return MISSING


def not_by_default(problem: Problem) -> str | None:
    """It is the fastest wherever it can serve."""
    return None


def reader(size: tuple[int, ...], problem: Problem, plain: Plain) -> Callable[[Tensor, lowered.Lowered], Tensor]:
    """What reads images (n, C, *in), float32 or float64, through lowered maps (m of them; n = m, or one of them is 1)
    for an output of ``size``: (max(n, m), C, *size).
    """
    affine, projective, combined, field = [_how(form, size, problem) for form in FORMS[:4]]

    def read(image: Tensor, form: lowered.Lowered) -> Tensor:
        if _transformed():
            return plain(image, form)
        if isinstance(form, lowered.Matrix):
            return _run(image, form.matrix, None, projective if form.projective else affine, plain)
        if isinstance(form, lowered.Field):
            return _run(image, form.displacement, None, field, plain)
        if form.basis.requires_grad:  # a learned basis: its gradient is the plain operators' affair
            return plain(image, form)
        return _run(image, form.coefficients, form.basis, combined, plain)

    return read


def sample(
    image: Tensor,  # (n, C, *in), float32 or float64
    points: Tensor,  # (m, *S, d), in problem.units, any values
    interpolation: Interpolation,
    problem: Problem,
    plain: Plain,
) -> Tensor:  # (max(n, m), C, *S)
    """The image at given points."""
    if _transformed():
        return plain(image, points)
    inner = tuple(points.shape[1:-1])
    size = inner if len(inner) == problem.dims else (1,) * (problem.dims - 1) + (math.prod(inner),)
    form = NORMALIZED if problem.units == "normalized" else "points"
    values = _run(image, points, None, _how(form, size, problem), plain)
    return values if inner == size else values.reshape(*values.shape[:2], *inner)


def _transformed() -> bool:
    """Whether a jit trace, functorch (vmap, jvp, grad) or a forward derivative looks on: plain operators then."""
    return (
        torch.jit._trace.is_tracing() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def _how(form: str, size: tuple[int, ...], problem: Problem) -> How:
    return How(form, size, problem.interpolation, problem.padding[0], problem.fill, problem.align_corners)


def _run(image: Tensor, source: Tensor, basis: Tensor | None, how: How, plain: Plain) -> Tensor:
    if source.dtype != image.dtype:
        source = source.to(image.dtype)
    if basis is not None:
        basis = basis.to(image.dtype)
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0  # make_fx, fake tensors
    if watched or not (_lies(image) and _lies(source)):
        return cpu_warp(image, source, basis, *how)
    if torch.is_grad_enabled() and (image.requires_grad or source.requires_grad):
        return _Fused.apply(image, source, (basis, how, plain))
    return forward(image, source, basis, how)


def _lies(tensor: Tensor) -> bool:
    """Whether the numbers lie in memory as they are: not those of a fake tensor, nor of one to be read negated."""
    return (type(tensor) is Tensor or tensor.untyped_storage().device.type != "meta") and not tensor.is_neg()


class _Fused(torch.autograd.Function):
    """The kernels in eager mode. A second derivative is taken of the plain operators."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, image: Tensor, source: Tensor, call: tuple[Tensor | None, How, Plain]
    ) -> Tensor:
        basis, ctx.how, ctx.plain = call
        ctx.save_for_backward(image, source, basis)
        return forward(image, source, basis, ctx.how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        image, source, basis = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            return *backward(grad, image, source, basis, ctx.how, wanted), None
        # Seen afresh, so that a source that was made from the image is not walked through a second time.
        image, source = image.view_as(image), source.view_as(source)
        values = ctx.plain(image, _form(source, basis, ctx.how)).reshape(grad.shape)
        inputs = [tensor for tensor, needed in zip((image, source), wanted, strict=True) if needed]
        if not values.requires_grad:  # nearest reading has no slope
            return *[torch.zeros_like(x) if n else None for x, n in zip((image, source), wanted, strict=True)], None
        grads = iter(torch.autograd.grad(values, inputs, grad, create_graph=True, materialize_grads=True))
        return *[next(grads) if needed else None for needed in wanted], None


def _form(source: Tensor, basis: Tensor | None, how: How) -> "lowered.Lowered | Tensor":
    """What `plain` reads."""
    if how.form in ("points", NORMALIZED):
        return source
    if basis is not None:
        return lowered.Basis(basis, source)
    return lowered.Field(source) if how.form == "field" else lowered.Matrix(source)
