"""Every message about a wrong shape, dtype or device: the argument, what came, what was wanted."""

from collections.abc import Iterable, Sequence
from math import prod
from operator import index

import torch
from torch import Tensor

from torch_stn.coordinates import UNITS


def describe(tensor: Tensor) -> str:
    """Shape and dtype in the words of the messages: ``(2, 3, 8, 8) float32``."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def tensor(name: str, value: object) -> Tensor:
    """A tensor, or a TypeError that names the argument."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: wanted a torch.Tensor, got {type(value).__name__}")
    return value


def floating(name: str, value: Tensor) -> None:
    """A floating-point tensor."""
    if not value.is_floating_point():
        raise TypeError(f"{name}: wanted a floating-point tensor, got {describe(value)}")


def image(value: object, *, whole: bool = False) -> int:
    """An image batch (N, C, W), (N, C, H, W) or (N, C, D, H, W) without empty space axes; returns 1, 2 or 3.

    ``whole``: whole numbers and bools will do as well.
    """
    img = tensor("image", value)
    if img.dim() not in (3, 4, 5):
        raise ValueError(f"image: wanted (N, C, W), (N, C, H, W) or (N, C, D, H, W), got {describe(img)}")
    if not img.is_floating_point() and (not whole or img.is_complex() or img.is_quantized):
        floating("image", img)
    if not img.numel() and 0 in img.shape[2:]:
        raise ValueError(f"image: every space axis needs at least one pixel, got {describe(img)}")
    return img.dim() - 2


def points(value: object, dims: int, name: str = "points", image: Tensor | None = None) -> Tensor:
    """Points (N, *S, d) whose last axis is (x,), (x, y) or (x, y, z)."""
    pts = tensor(name, value)
    if pts.dim() < 2 or pts.shape[-1] != dims:
        beside = "" if image is None else f" for image {describe(image)}"
        axes = ("(x,)", "(x, y)", "(x, y, z)")[dims - 1]
        raise ValueError(f"{name}: wanted (N, ..., {dims}) with last axis {axes}, got {describe(pts)}{beside}")
    floating(name, pts)
    return pts


def splatted(values: object, points: object) -> int:
    """Values (N, C, *S) for points (N, *S, d), on one device, batches equal or one of them 1; returns d."""
    given, pts = tensor("values", values), tensor("points", points)
    dims = pts.shape[-1] if pts.dim() > 1 else 0
    if dims not in (1, 2, 3):
        raise ValueError(f"points: wanted (N, ..., d) with last axis (x[, y[, z]]), got {describe(pts)}")
    floating("points", pts)
    floating("values", given)
    if given.dim() < 2 or given.shape[2:] != pts.shape[1:-1]:
        wanted = str(("N", "C", *pts.shape[1:-1])).replace("'", "")
        raise ValueError(f"values: wanted {wanted}, one for each point, got {describe(given)}")
    same_device("values", given, "points", pts)
    broadcast_batch("values", given.shape[0], "points", pts.shape[0])
    return dims


def units(value: str, points: Tensor, dims: int) -> str:
    """A unit of coordinates; displacements need points that are one a pixel of an output."""
    one_of("units", value, UNITS)
    if value == "displacement" and points.dim() != dims + 2:
        raise ValueError(f"points: displacements are (N, *out, {dims}), one a pixel, got {describe(points)}")
    return value


def same_device(first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Both tensors on one device."""
    if a.device != b.device:
        raise ValueError(f"{second}: wanted the device of {first}, {a.device}, got {b.device}")


def map_device(image: Tensor, device: torch.device) -> None:
    """The map, hence theta, on the image's device."""
    if image.device != device:
        raise ValueError(f"map: wanted theta on the image's device, {image.device}, got {device}")


def broadcast_batch(first: str, n: int, second: str, m: int) -> int:
    """Batch sizes that are equal, or one of them 1; returns the common size."""
    if n != m and n != 1 and m != 1:
        raise ValueError(f"{second}: wanted the batch size of {first}, {n}, or 1, got {m}")
    return m if n == 1 else n


def number(name: str, value: object) -> float:
    """A number; NaN and infinity are numbers too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: wanted a number, got {value!r}")
    return float(value)


def classes(labels: Tensor, count: object, fill: object) -> None:
    """A number of classes that holds every label and the fill; looks at the values where there are any to look at."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"num_classes: wanted a whole number >= 1, got {count!r}")
    if isinstance(fill, bool) or not isinstance(fill, int) or not 0 <= fill < count:
        raise ValueError(f"fill: wanted a label in [0, {count}), got {fill!r}")
    if torch.compiler.is_compiling() or labels.numel() == 0:
        return
    try:
        low, high = (int(bound) for bound in torch.aminmax(labels.long()))
    except RuntimeError:  # a vmap has no values to look at
        return
    if low < 0 or high >= count:
        raise ValueError(f"labels: wanted labels in [0, num_classes) = [0, {count}), got {low} to {high}")


def fill(value: object, dtype: torch.dtype) -> float:
    """A number; for an image of whole numbers one that its dtype holds, unrounded."""
    if dtype.is_floating_point:
        return number("fill", value)
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or not low <= value <= high:  # type: ignore[operator]
        name = str(dtype).removeprefix("torch.")
        raise ValueError(f"fill: wanted a whole number that {name} holds, for an image of that dtype, got {value!r}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def size(value: Sequence[int] | None, dims: int, default: Iterable[int] | None) -> tuple[int, ...]:
    """An output size (w,), (h, w) or (d, h, w); None means the default, where there is one."""
    if value is None and default is not None:
        return tuple(map(int, default))
    wanted = ("(w,)", "(h, w)", "(d, h, w)")[dims - 1]
    try:
        whole = tuple(map(index, value))  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"size: wanted {wanted} of whole numbers, got {value!r}") from None
    if len(whole) != dims:
        raise ValueError(f"size: wanted {wanted}, got {value!r}")
    if min(whole) < 1:
        raise ValueError(f"size: every entry of {wanted} must be at least 1, got {whole}")
    return whole


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """A word out of a list."""
    words = list(allowed)
    if value not in words:
        raise ValueError(f"{name}: wanted one of {', '.join(map(repr, words))}, got {value!r}")
    return value


def theta(value: object, natural: tuple[int, ...], family: str, beside: Sequence[tuple[int, ...]] = ()) -> Tensor:
    """theta (N, P) or (N, *natural shape); returned in the natural shape, or as it is in one of ``beside``; never below
    float32.
    """
    given = tensor("theta", value)
    shape = given.shape[1:]
    if shape == natural and given.dtype in (torch.float32, torch.float64) and given.dim():
        return given  # most calls, and small ones feel every check
    floating("theta", given)
    shapes = (natural, (prod(natural),), *beside)
    if given.dim() >= 1 and shape in shapes:
        as_it_is = shape == natural or shape in beside
        given = given if as_it_is else given.reshape(given.shape[0], *natural)
        return given if given.dtype == torch.float64 else given.float()
    wanted = " or ".join(str(("N", *shape)).replace("'", "") for shape in dict.fromkeys(shapes))
    raise ValueError(f"theta: {family} wanted {wanted}, got {describe(given)}")


def every(fits: Tensor, name: str, wanted: str) -> None:
    """All of a batch (N, ...) of truths, where a look at the values is cheap; else what does not fit must have a
    defined value.

    A GPU would have to be waited for, and a compiled graph or a vmap has no values to look at.
    """
    if torch.compiler.is_compiling() or fits.device.type != "cpu":
        return
    try:
        if bool(fits.all()):
            return
        first = int((~fits).reshape(len(fits), -1).any(dim=1).nonzero()[0])
    except RuntimeError:
        return
    raise ValueError(f"{name}: wanted {wanted}, got one that is not, sample {first}")
