"""The Triton kernels as an operator of torch, for compiled graphs; eager calls take the cheaper autograd.Function.

Here too no triton is imported before the first call.
"""

from typing import Any

import torch
from torch import Tensor

from torch_stn.sampling.backends.triton_kernels.words import How


def forward(image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> Tensor:
    """(n, C, *in) through m maps or at m sets of points: (max(n, m), C, *size)."""
    from torch_stn.sampling.backends.triton_kernels import call

    return call.forward(image, source, basis, how)


def backward(
    grad: Tensor, image: Tensor, source: Tensor, basis: Tensor | None, how: How, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients to image and source, those that are wanted."""
    from torch_stn.sampling.backends.triton_kernels import call

    return call.backward(grad, image, source, basis, how, wanted)


@torch.library.custom_op("torch_stn::triton_warp", mutates_args=())
def triton_warp(
    image: Tensor,
    source: Tensor,
    basis: Tensor | None,
    form: str,
    size: list[int],
    interpolation: str,
    padding: str,
    fill: float,
    align_corners: bool,
    deterministic: bool,
) -> Tensor:
    """The kernels as an operator, for compiled graphs."""
    how = How(form, tuple(size), interpolation, padding, fill, align_corners, deterministic)
    return forward(image, source, basis, how)


@torch.library.custom_op("torch_stn::triton_warp_backward", mutates_args=())
def triton_warp_backward(
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
    deterministic: bool,
    image_wanted: bool,
    source_wanted: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients to image and source; an empty tensor for one that is not wanted."""
    how = How(form, tuple(size), interpolation, padding, fill, align_corners, deterministic)
    grads = backward(grad, image, source, basis, how, (image_wanted, source_wanted))
    first, second = [image.new_empty(0) if g is None else g for g in grads]
    return first, second


@triton_warp.register_fake
def _(image: Tensor, source: Tensor, basis: Tensor | None, form: str, size: list[int], *how: Any) -> Tensor:
    n = source.shape[0] if image.shape[0] == 1 else image.shape[0]
    return _as_image(image, n, size)


@triton_warp_backward.register_fake
def _(
    grad: Tensor, image: Tensor, source: Tensor, basis: Tensor | None, form: str, size: list[int], *how: Any
) -> tuple[Tensor, Tensor]:
    image_wanted, source_wanted = how[-2:]
    return (
        _as_image(image, image.shape[0], list(image.shape[2:])) if image_wanted else image.new_empty(0),
        source.new_empty(source.shape) if source_wanted else image.new_empty(0),
    )


def _as_image(image: Tensor, n: int, size: list[int]) -> Tensor:
    """An empty (n, C, *size) in the memory format that the kernels return for the image."""
    format = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
    last = not image.is_contiguous() and image.is_contiguous(memory_format=format)
    return image.new_empty(n, image.shape[1], *size).contiguous(
        memory_format=format if last else torch.contiguous_format
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.how = inputs[3:]


def _pull(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    wanted = ctx.needs_input_grad[:2]
    grads = triton_warp_backward(grad, *ctx.saved_tensors, *ctx.how, *wanted)
    return *[g if needed else None for g, needed in zip(grads, wanted, strict=True)], *[None] * 8


triton_warp.register_autograd(_pull, setup_context=_save)
