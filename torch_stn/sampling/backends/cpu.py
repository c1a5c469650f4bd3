"""Fused C++ kernels: a lowered map, or points, -> the image in one pass, and back; no grid in memory.

The arithmetic is in csrc/. Same inputs give the same bits for any number of threads.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_stn import lowered
from torch_stn.sampling.backends import cpu_library
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.problem import Problem

UNITS = "pixel"  # of the points it reads
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")  # as csrc/call.h numbers them
PADDINGS = ("zeros", "border", "reflection")
FORMS = ("affine", "projective", "basis", "field", "points")
MOST_PIXELS = 2**31 - 2**20  # of a plane: the kernels count in 32 bits, with some padding around

# (image, map or points) -> image, in plain operators
Plain = Callable[[Tensor, "lowered.Lowered | Tensor"], Tensor]


class How(NamedTuple):
    """One call without its tensors."""

    form: str
    size: tuple[int, ...]  # of the output
    interpolation: str
    padding: str
    fill: float
    align_corners: bool


@torch.compiler.assume_constant_result
def _missing() -> str | None:
    return cpu_library.missing()


def why_not(problem: Problem) -> str | None:
    """What the kernels do not have."""
    if problem.device != "cpu":
        return f"the C++ kernels serve CPU tensors, not {problem.device}"
    if problem.dims == 1:
        return "the C++ kernels have no 1-D images"
    if problem.interpolation not in INTERPOLATIONS:
        return f"the C++ kernels know only {', '.join(INTERPOLATIONS)}"
    if len(set(problem.padding)) > 1:
        return "the C++ kernels pad all axes alike"
    if problem.padding[0] not in PADDINGS:
        return f"the C++ kernels know only {', '.join(PADDINGS)} padding"
    if not problem.dtype.is_floating_point:
        return "the C++ kernels read floating-point images only"
    if not math.isfinite(problem.fill):
        return "the C++ kernels need a finite fill"
    if torch.compiler.is_exporting():
        return "an exported graph holds plain operators only"
    if math.prod(problem.in_size) > MOST_PIXELS:
        return f"the C++ kernels count the pixels of a plane in 32 bits, at most {MOST_PIXELS}"
    return _missing()


def not_by_default(problem: Problem) -> str | None:
    """It is the fastest wherever it can serve."""
    return None


def warp(
    image: Tensor,  # (n, C, *in), float32 or float64
    form: lowered.Lowered,  # of m maps; n = m, or one of them is 1
    size: tuple[int, ...],
    problem: Problem,
    plain: Plain,
) -> Tensor:  # (max(n, m), C, *size)
    """The image through a lowered map."""
    basis = None
    if isinstance(form, lowered.Matrix):
        name, source = "projective" if form.projective else "affine", form.matrix
    elif isinstance(form, lowered.Basis):
        name, source, basis = "basis", form.coefficients, form.basis
        if basis.requires_grad:  # a learned basis: its gradient is the plain operators' affair
            return plain(image, form)
    else:
        name, source = "field", form.displacement
    if _transformed():
        return plain(image, form)
    return _run(image, source, basis, size, name, problem, plain)


def sample(
    image: Tensor,  # (n, C, *in), float32 or float64
    points: Tensor,  # (m, *S, d), pixels, any values
    interpolation: Interpolation,
    problem: Problem,
    plain: Plain,
) -> Tensor:  # (max(n, m), C, *S)
    """The image at given points."""
    if _transformed():
        return plain(image, points)
    inner = tuple(points.shape[1:-1])
    size = inner if len(inner) == problem.dims else (1,) * (problem.dims - 1) + (math.prod(inner),)
    values = _run(image, points, None, size, "points", problem, plain)
    return values if inner == size else values.reshape(*values.shape[:2], *inner)


def _transformed() -> bool:
    """Whether functorch (vmap, jvp, grad as functions) or forward-mode differentiation looks on: plain operators then."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def _run(
    image: Tensor, source: Tensor, basis: Tensor | None, size: tuple[int, ...], form: str, problem: Problem, plain: Plain
) -> Tensor:
    source = source.to(image.dtype)
    if basis is not None:
        basis = basis.to(image.dtype)
    how = How(form, size, problem.interpolation, problem.padding[0], problem.fill, problem.align_corners)
    if torch.compiler.is_compiling():
        return torch.ops.torch_stn.cpu_warp(image, source, basis, form, size, *how[2:])
    if torch.is_grad_enabled() and (image.requires_grad or source.requires_grad):
        return _Fused.apply(image, source, basis, how, plain)
    return _forward(image, source, basis, how)


class _Fused(torch.autograd.Function):
    """The kernels in eager mode. A second derivative is taken of the plain operators."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, image: Tensor, source: Tensor, basis: Tensor | None, how: How, plain: Plain
    ) -> Tensor:
        ctx.save_for_backward(image, source, basis)
        ctx.how, ctx.plain = how, plain
        return _forward(image, source, basis, how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        image, source, basis = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            return *_backward(grad, image, source, basis, ctx.how, wanted), None, None, None
        # Seen afresh, so that a source that was made from the image is not walked through a second time.
        image, source = image.view_as(image), source.view_as(source)
        values = ctx.plain(image, _form(source, basis, ctx.how))
        inputs = [tensor for tensor, needed in zip((image, source), wanted, strict=True) if needed]
        grads = iter(torch.autograd.grad(values, inputs, grad, create_graph=True))
        return *[next(grads) if needed else None for needed in wanted], None, None, None


def _form(source: Tensor, basis: Tensor | None, how: How) -> "lowered.Lowered | Tensor":
    """What `plain` reads."""
    if how.form == "points":
        return source
    if basis is not None:
        return lowered.Basis(basis, source)
    return lowered.Field(source) if how.form == "field" else lowered.Matrix(source)


def _forward(image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> Tensor:
    call = _Call(image, source, basis, how)
    result = call.empty(max(image.shape[0], source.shape[0]), how.size)
    cpu_library.function("stn_forward")(call.packed(result=result))
    return call.as_came(result)


def _backward(
    grad: Tensor, image: Tensor, source: Tensor, basis: Tensor | None, how: How, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    call = _Call(image, source, basis, how)
    grad_image = call.empty(image.shape[0], tuple(image.shape[2:])) if wanted[0] else None
    grad_source = torch.empty_like(call.source) if wanted[1] else None
    cpu_library.function("stn_backward")(
        call.packed(grad_result=call.in_format(grad), grad_image=grad_image, grad_source=grad_source)
    )
    return (
        None if grad_image is None else call.as_came(grad_image),
        None if grad_source is None else grad_source.reshape(source.shape),
    )


class _Call:
    """The tensors of a call as the kernels want them, and the record that says where they lie."""

    def __init__(self, image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> None:
        self.how = how
        self.dims = image.dim() - 2
        # One point after the other; a view wherever the strides allow it.
        self.source = source.flatten(1, -2) if how.form in ("field", "points") else source.contiguous()
        self.basis = None if basis is None else basis.movedim(-1, 0).contiguous()
        self.image = image
        self.came_last = self.last = False
        if not image.is_contiguous():
            format = torch.channels_last if self.dims == 2 else torch.channels_last_3d
            self.came_last = image.is_contiguous(memory_format=format)
            self.last = self.came_last and bool(cpu_library.function("stn_packs")(self.packed()))
            self.image = image if self.last else image.contiguous()

    def empty(self, n: int, size: tuple[int, ...]) -> Tensor:
        """A result or an image gradient in the memory format of the call."""
        return torch.empty(n, self.image.shape[1], *size, dtype=self.image.dtype, memory_format=self._format(self.last))

    def in_format(self, tensor: Tensor) -> Tensor:
        """Brought to the memory format of the call."""
        return tensor.contiguous(memory_format=self._format(self.last))

    def as_came(self, tensor: Tensor) -> Tensor:
        """Brought to the memory format in which the image came."""
        return tensor if self.last == self.came_last else tensor.contiguous(memory_format=self._format(self.came_last))

    def _format(self, last: bool) -> torch.memory_format:
        if not last:
            return torch.contiguous_format
        return torch.channels_last if self.dims == 2 else torch.channels_last_3d

    def packed(
        self,
        result: Tensor | None = None,
        grad_result: Tensor | None = None,
        grad_image: Tensor | None = None,
        grad_source: Tensor | None = None,
    ) -> bytes:
        """The record, as csrc/call.h has it."""
        image, source, how = self.image, self.source, self.how
        given = how.form in ("field", "points")
        return cpu_library.LAYOUT.pack(
            self.dims,
            image.dtype == torch.float64,
            INTERPOLATIONS.index(how.interpolation),
            PADDINGS.index(how.padding),
            how.align_corners,
            FORMS.index(how.form),
            torch.get_num_threads(),
            image.shape[0],
            source.shape[0],
            image.shape[1],
            0 if self.basis is None else self.basis.shape[0],
            *_xyz(tuple(image.shape[2:])),
            *_xyz(how.size),
            self.last,
            *(source.stride() if given else (0, 0, 0)),
            *(grad_source.stride() if given and grad_source is not None else (0, 0, 0)),
            False,
            image.data_ptr(),
            source.data_ptr(),
            0 if self.basis is None else self.basis.data_ptr(),
            0 if grad_result is None else grad_result.data_ptr(),
            0 if result is None else result.data_ptr(),
            0 if grad_image is None else grad_image.data_ptr(),
            0 if grad_source is None else grad_source.data_ptr(),
            how.fill,
        )


def _xyz(size: tuple[int, ...]) -> tuple[int, ...]:
    """(H, W) or (D, H, W) as three numbers along x, y, z."""
    return (size[1], size[0], 1) if len(size) == 2 else (size[2], size[1], size[0])


@torch.library.custom_op("torch_stn::cpu_warp", mutates_args=())
def cpu_warp(
    image: Tensor,
    source: Tensor,
    basis: Tensor | None,
    form: str,
    size: list[int],
    interpolation: str,
    padding: str,
    fill: float,
    align_corners: bool,
) -> Tensor:
    """The kernels as an operator, for compiled graphs."""
    return _forward(image, source, basis, How(form, tuple(size), interpolation, padding, fill, align_corners))


@torch.library.custom_op("torch_stn::cpu_warp_backward", mutates_args=())
def cpu_warp_backward(
    grad: Tensor,
    image: Tensor,
    source: Tensor,
    basis: Tensor | None,
    form: str,
    size: list[int],
    interpolation: str,
    padding: str,
    fill: float,
    align_corners: bool,
    image_wanted: bool,
    source_wanted: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients to image and source; an empty tensor for one that is not wanted."""
    how = How(form, tuple(size), interpolation, padding, fill, align_corners)
    grads = _backward(grad, image, source, basis, how, (image_wanted, source_wanted))
    empty, filled = image.new_empty(0), [g for g in grads]
    return (
        empty if filled[0] is None else filled[0],
        image.new_empty(0) if filled[1] is None else filled[1],
    )


@cpu_warp.register_fake
def _(image: Tensor, source: Tensor, basis: Tensor | None, form: str, size: list[int], *how: Any) -> Tensor:
    n = source.shape[0] if image.shape[0] == 1 else image.shape[0]
    return _as_image(image, n, size)


@cpu_warp_backward.register_fake
def _(
    grad: Tensor, image: Tensor, source: Tensor, basis: Tensor | None, form: str, size: list[int], *how: Any
) -> tuple[Tensor, Tensor]:
    image_wanted, source_wanted = how[-2:]
    grad_source = torch.empty_like(source.flatten(1, -2) if form in ("field", "points") else source.contiguous())
    return (
        _as_image(image, image.shape[0], list(image.shape[2:])) if image_wanted else image.new_empty(0),
        grad_source.reshape(source.shape) if source_wanted else image.new_empty(0),
    )


def _as_image(image: Tensor, n: int, size: list[int]) -> Tensor:
    """An empty (n, C, *size) in the memory format that the kernels return for the image."""
    format = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
    last = not image.is_contiguous() and image.is_contiguous(memory_format=format)
    return image.new_empty(n, image.shape[1], *size).contiguous(memory_format=format if last else torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.how = inputs[3:]


def _pull(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    wanted = ctx.needs_input_grad[:2]
    grads = torch.ops.torch_stn.cpu_warp_backward(grad, *ctx.saved_tensors, *ctx.how, *wanted)
    return *[g if needed else None for g, needed in zip(grads, wanted, strict=True)], *[None] * 7


cpu_warp.register_autograd(_pull, setup_context=_save)
