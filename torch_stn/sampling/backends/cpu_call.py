"""One call of the C++ kernels: tensors in the form that they read, and the record that says where they lie."""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_stn.sampling.backends import cpu_library

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")  # as csrc/call.h numbers them
PADDINGS = ("zeros", "border", "reflection")
FORMS = ("affine", "projective", "basis", "field", "points")
NORMALIZED = "normalized points"  # the kernels' points, with a flag
GIVEN = (*FORMS[3:], NORMALIZED)


class How(NamedTuple):
    """One call without its tensors."""

    form: str
    size: tuple[int, ...]  # of the output
    interpolation: str
    padding: str
    fill: float
    align_corners: bool

    @property
    def given(self) -> bool:
        """Whether every point has numbers of its own."""
        return self.form in GIVEN


def forward(image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> Tensor:
    """(n, C, *in) through m maps or at m sets of points: (max(n, m), C, *size)."""
    if _plain(image, source, basis):
        head, blank = _prepared(how, image.shape, source.shape, image.dtype, torch.get_num_threads())
        result = torch.empty_like(blank, memory_format=torch.contiguous_format)
        tail = cpu_library.TAIL.pack(image.data_ptr(), source.data_ptr(), 0, 0, result.data_ptr(), 0, 0, how.fill)
        cpu_library.function("stn_forward")(head + tail)
        return result
    call = _Call(image, source, basis, how)
    result = call.empty(max(image.shape[0], source.shape[0]), how.size)
    cpu_library.function("stn_forward")(call.packed(result=result))
    return call.as_came(result)


def backward(
    grad: Tensor, image: Tensor, source: Tensor, basis: Tensor | None, how: How, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients to image and source, those that are wanted."""
    grad = grad.resolve_neg()  # an imaginary part may come with its sign still to be turned
    if _plain(image, source, basis) and grad.is_contiguous():
        to_image = torch.empty_like(image) if wanted[0] else None
        to_source = torch.empty_like(source) if wanted[1] else None
        pointers = [0 if t is None else t.data_ptr() for t in (to_image, to_source)]
        head, _ = _prepared(how, image.shape, source.shape, image.dtype, torch.get_num_threads())
        tail = cpu_library.TAIL.pack(image.data_ptr(), source.data_ptr(), 0, grad.data_ptr(), 0, *pointers, how.fill)
        cpu_library.function("stn_backward")(head + tail)
        return to_image, to_source
    call = _Call(image, source, basis, how)
    grad_image = call.empty(image.shape[0], tuple(image.shape[2:])) if wanted[0] else None
    grad_source = torch.empty_like(call.source) if wanted[1] else None
    grad = call.in_format(grad)  # held until the kernels are done: the record knows only where it lies
    record = call.packed(grad_result=grad, grad_image=grad_image, grad_source=grad_source)
    cpu_library.function("stn_backward")(record)
    return (
        None if grad_image is None else call.as_came(grad_image),
        None if grad_source is None else grad_source.reshape(source.shape),
    )


def _plain(image: Tensor, source: Tensor, basis: Tensor | None) -> bool:
    """Whether nothing needs to be brought into another form, as for most calls: the way without detours."""
    return basis is None and source.dtype == image.dtype and image.is_contiguous() and source.is_contiguous()


@lru_cache(maxsize=1024)
def _prepared(
    how: How, image: torch.Size, source: torch.Size, dtype: torch.dtype, threads: int
) -> tuple[bytes, Tensor]:
    """Of a plain call, all of the record but where the tensors lie and the fill; and one number in the shape of the
    result, after which that is made in half the time that `torch.empty` takes. Remembered, as both take time.
    """
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"image: the C++ kernels wanted float32 or float64, got {dtype}")
    _check(how, image, source, None)
    strides = (prod(source[1:]), source[-1], 1) if how.given else (0, 0, 0)
    head = cpu_library.HEAD.pack(
        len(image) - 2,
        dtype == torch.float64,
        INTERPOLATIONS.index(how.interpolation),
        PADDINGS.index(how.padding),
        how.align_corners,
        FORMS.index("points" if how.form == NORMALIZED else how.form),
        threads,
        image[0],
        source[0],
        image[1],
        0,
        *_xyz(tuple(image[2:])),
        *_xyz(how.size),
        False,
        *strides,
        *strides,
        how.form == NORMALIZED,
    )
    with torch._C.DisableTorchFunction():  # a mode's own kind of tensor would be remembered beyond the mode
        blank = torch.empty(1, dtype=dtype, device="cpu")  # whatever the default device is
    return head, blank.expand(max(image[0], source[0]), image[1], *how.size)


def _check(how: How, image: torch.Size, source: torch.Size, basis: torch.Size | None) -> None:
    """A map of somebody else's may say one batch and size and hold another: kernels would read past its end."""
    if len(image) not in (4, 5):
        raise ValueError(f"image: the C++ kernels wanted (N, C, H, W) or (N, C, D, H, W), got {tuple(image)}")
    if image[0] != source[0] and 1 not in (image[0], source[0]):
        raise ValueError(f"map: wanted the batch size of image, {image[0]}, or 1, its lowered form has {source[0]}")
    inner = source[1:-1] if how.given else how.size if basis is None else basis[:-1]
    if prod(inner) != prod(how.size):
        raise ValueError(f"map: wanted points for an output of {how.size}, its lowered form has {tuple(inner)}")
    if basis is not None and basis[-1] != source[1]:
        raise ValueError(f"map: wanted a coefficient for each of {basis[-1]} functions, got {source[1]}")


class _Call:
    """The tensors of a call as the kernels want them, and the record that says where they lie."""

    def __init__(self, image: Tensor, source: Tensor, basis: Tensor | None, how: How) -> None:
        if image.dtype not in (torch.float32, torch.float64) or source.dtype != image.dtype:
            # The kernels know only where the numbers lie: others would be read as what they are not, past their end.
            raise TypeError(f"image: wanted float32 or float64 and a source alike, got {image.dtype}, {source.dtype}")
        _check(how, image.shape, source.shape, None if basis is None else basis.shape)
        self.how = how
        self.dims = image.dim() - 2
        # One point after the other; a view wherever the strides allow it.
        self.source = source.reshape(source.shape[0], -1, source.shape[-1]) if how.given else source.contiguous()
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
        like: dict[str, Any] = {"dtype": self.image.dtype, "device": self.image.device}
        return torch.empty(n, self.image.shape[1], *size, memory_format=self._format(self.last), **like)

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
        given = how.given
        return cpu_library.LAYOUT.pack(
            self.dims,
            image.dtype == torch.float64,
            INTERPOLATIONS.index(how.interpolation),
            PADDINGS.index(how.padding),
            how.align_corners,
            FORMS.index("points" if how.form == NORMALIZED else how.form),
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
            how.form == NORMALIZED,
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
