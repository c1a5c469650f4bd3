"""The paper's sampling kernel k(.; Phi) as an object (3.3): which taps it reads, and with what weights."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from torch_stn import _checks

PYTORCH_A = -0.75  # of F.grid_sample's bicubic


class Interpolation(nn.Module):
    """A separable kernel: V = sum_n sum_m U_nm k(x - m; Phi_x) k(y - n; Phi_y).

    A kernel of one's own is a subclass with ``support`` (how many taps k covers along one axis) and
    ``kernel(distance)``, any differentiable function of the signed distance x - m in pixels, in [-support / 2, support
    / 2]; parameters of the module are Phi, and learn. It runs on the reference backend, in 1-D to 3-D, with every
    padding.

    Even supports read the taps floor(x) - support / 2 + 1, ...; odd ones are centred on round(x). The built-in kernels
    give ``weights`` in closed form, so that at integer coordinates their slope is the right-hand one, as
    F.grid_sample's.

    Example: a tent with a learnable width.
        >>> import torch
        >>> class Tent(Interpolation):
        ...     support = 2
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.width = nn.Parameter(torch.ones(()))
        ...     def kernel(self, distance):
        ...         return (1 - distance.abs() / self.width).clamp(min=0)
        >>> Tent().weights(torch.tensor([0.25])).tolist()
        [[0.75, 0.25]]
    """

    support: int
    # Of a prefilter along every axis, its weights at the distances 0, 1, 2, ... pixels; None reads the image as it is.
    response: list[float] | None = None

    def kernel(self, distance: Tensor) -> Tensor:
        """k(distance; Phi), same shape."""
        raise NotImplementedError(f"{type(self).__name__}.kernel")

    def weights(self, fraction: Tensor) -> Tensor:
        """The weights of the taps: (...) -> (..., support).

        ``fraction`` is x - floor(x) in [0, 1) for an even support, x - round(x) in [-0.5, 0.5] for an odd one.
        """
        taps = range(self.first_tap(), self.first_tap() + self.support)
        return torch.stack([self.kernel(fraction - tap) for tap in taps], dim=-1)

    def first_tap(self) -> int:
        """The first tap, counted from floor(x) (even support) or round(x) (odd support)."""
        return 1 - self.support // 2 if self.support % 2 == 0 else -(self.support // 2)

    def along(self, axis: int) -> "Interpolation":
        """The kernel of the axis x, y or z (0, 1, 2), where they differ."""
        return self

    def fitted(self, in_size: Sequence[int], out_size: Sequence[int] | None) -> "Interpolation":
        """The kernel for a call that reads ``in_size`` for an output of ``out_size`` (None: points of any shape)."""
        return self


class Nearest(Interpolation):
    """The paper's integer kernel: the nearest pixel. Halves go to the even neighbour, as in F.grid_sample; no
    coordinate gradient.
    """

    support = 1

    def weights(self, fraction: Tensor) -> Tensor:
        return fraction.detach().new_ones(*fraction.shape, 1)


class Linear(Interpolation):
    """k(x) = max(0, 1 - |x|): bilinear in 2-D, trilinear in 3-D."""

    support = 2

    def weights(self, fraction: Tensor) -> Tensor:
        return torch.stack([1 - fraction, fraction], dim=-1)


class Cubic(Interpolation):
    """Keys' cubic convolution with a = -0.75, as F.grid_sample's bicubic; tricubic in 3-D."""

    support = 4

    def __init__(self, a: float = PYTORCH_A) -> None:
        super().__init__()
        self.a = a

    def extra_repr(self) -> str:
        return f"a={self.a}"

    def weights(self, fraction: Tensor) -> Tensor:
        t, s = fraction, 1 - fraction
        return torch.stack([self._far(1 + t), self._near(t), self._near(s), self._far(1 + s)], dim=-1)

    def _near(self, x: Tensor) -> Tensor:
        return ((self.a + 2) * x - (self.a + 3)) * x * x + 1

    def _far(self, x: Tensor) -> Tensor:
        return ((x - 5) * x + 8) * x * self.a - 4 * self.a


class BSpline(Interpolation):
    """The B-spline of degree 0 (nearest), 1 (linear) to 7, through the pixels: smooth to the order degree - 1.

    Degrees from 2 on read the coefficients that torch_stn.sampling.prefilter makes of the image, so that the curve
    passes exactly through the pixels; the mask counts the weights of the kernel itself.

    Source: Unser, "Splines: a perfect fit for signal and image processing", 1999.

    Example:
        >>> [round(w, 4) for w in BSpline(3).weights(torch.tensor(0.0)).tolist()]
        [0.1667, 0.6667, 0.1667, 0.0]
    """

    def __init__(self, degree: int = 3) -> None:
        super().__init__()
        if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= 7:
            raise ValueError(f"degree: wanted a whole number from 0 to 7, got {degree!r}")
        self.degree = degree
        self.support = degree + 1
        self.response = _inverse_response(self) if degree > 1 else None

    def extra_repr(self) -> str:
        return f"degree={self.degree}"

    def weights(self, fraction: Tensor) -> Tensor:
        # The recursion of Cox and de Boor over the degree, from the one piece that covers the fraction.
        t = fraction if self.support % 2 == 0 else fraction + 0.5
        pieces = [torch.ones_like(t)] if self.degree else [torch.ones_like(t.detach())]
        for k in range(1, self.degree + 1):
            rising = [(t + (k - j)) * pieces[j - 1] if j else None for j in range(k + 1)]
            falling = [((j + 1) - t) * pieces[j] if j < k else None for j in range(k + 1)]
            pieces = [_sum(up, down) / k for up, down in zip(rising, falling, strict=True)]
        return torch.stack(pieces, dim=-1)


class Lanczos(Interpolation):
    """sinc(x) sinc(x / a) for |x| < a, its 2a weights divided by their sum; a = 3 unless given.

    Source: Duchon, "Lanczos filtering in one and two dimensions", 1979.
    """

    def __init__(self, a: int = 3) -> None:
        super().__init__()
        if isinstance(a, bool) or not isinstance(a, int) or a < 1:
            raise ValueError(f"a: wanted a whole number >= 1, got {a!r}")
        self.a = a
        self.support = 2 * a

    def extra_repr(self) -> str:
        return f"a={self.a}"

    def weights(self, fraction: Tensor) -> Tensor:
        raw = super().weights(fraction)
        return raw / raw.sum(dim=-1, keepdim=True)

    def kernel(self, distance: Tensor) -> Tensor:
        return _sinc(distance) * _sinc(distance / self.a)


class Area(Interpolation):
    """The mean of the image over a box around the point, each pixel counting with the area that the box covers of it.

    ``width`` is the box in pixels along x, y[, z], or one number for all axes; None takes input pixels per output pixel
    along each axis where the output is smaller than the input, as F.interpolate(mode="area") does, and else 1, which is
    bilinear reading.
    """

    def __init__(self, width: float | Sequence[float] | None = None) -> None:
        super().__init__()
        widths = [] if width is None else [width] if isinstance(width, int | float) else list(width)
        if width is not None and not widths:
            raise ValueError(f"width: wanted a number of pixels, or one for each axis, got {width!r}")
        for w in widths:
            if not 0 < _checks.number("width", w) < math.inf:
                raise ValueError(f"width: wanted numbers over 0 pixels, got {width!r}")
        self.width = None if width is None else tuple(float(w) for w in widths)
        widest = max(widths or [1.0])
        self.support = 2 * math.ceil((widest + 1) / 2)

    def extra_repr(self) -> str:
        return f"width={self.width}"

    def fitted(self, in_size: Sequence[int], out_size: Sequence[int] | None) -> Interpolation:
        if self.width is not None:
            if len(self.width) not in (1, len(in_size)):
                raise ValueError(
                    f"mode: Area wanted one width, or one for each of {len(in_size)} axes, got {self.width}"
                )
            return self
        pairs = zip(reversed(in_size), reversed(out_size or in_size), strict=True)
        return Area([max(1.0, n / max(m, 1)) for n, m in pairs])

    def along(self, axis: int) -> Interpolation:
        return self if self.width is None or len(self.width) == 1 else Area(self.width[axis])

    def weights(self, fraction: Tensor) -> Tensor:
        width = self.width[0] if self.width else 1.0
        low, high = fraction - width / 2, fraction + width / 2
        first = self.first_tap()
        edges = [self._within(tap - 0.5, low, high) for tap in range(first, first + self.support + 1)]
        return torch.stack([b - a for a, b in pairwise(edges)], dim=-1) / width

    @staticmethod
    def _within(edge: float, low: Tensor, high: Tensor) -> Tensor:
        """A pixel's edge, brought into the box; the comparisons make its slope the right-hand one."""
        return torch.where(low >= edge, low, torch.where(high >= edge, torch.full_like(low, edge), high))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor:
    parts = [part for part in (a, b) if part is not None]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _sinc(x: Tensor) -> Tensor:
    """sin(pi x) / (pi x) with all its derivatives, also at 0, where torch.sinc has only the first."""
    near = x.abs() < 0.05
    square = (math.pi * torch.where(near, x, torch.zeros_like(x))).square()
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    far = math.pi * torch.where(near, torch.ones_like(x), x)
    return torch.where(near, series, far.sin() / far)


def _inverse_response(spline: BSpline) -> list[float]:
    """The symmetric response that undoes the spline's own weights at the pixels; the poles decay, so 256 is endless."""
    length = 256
    at_pixels = spline.weights(torch.zeros((), dtype=torch.float64))
    kernel = torch.zeros(length, dtype=torch.float64)
    for tap, weight in enumerate(at_pixels, start=spline.first_tap()):
        kernel[tap % length] += weight
    response: list[float] = torch.fft.irfft(1 / torch.fft.rfft(kernel), n=length)[: length // 2].tolist()
    return response


INTERPOLATIONS: dict[str, Callable[[], Interpolation]] = {
    "nearest": Nearest,
    "bilinear": Linear,
    "bicubic": Cubic,
    "catmull-rom": partial(Cubic, -0.5),
    **{f"bspline{degree}": partial(BSpline, degree) for degree in range(8)},
    "lanczos3": Lanczos,
    "area": Area,
}
# What the same kernels are called in one and in three dimensions.
ALIASES = {"linear": "bilinear", "trilinear": "bilinear", "cubic": "bicubic", "tricubic": "bicubic"}


def _settings(interpolation: Interpolation) -> dict[str, Any]:
    return {key: value for key, value in vars(interpolation).items() if key[0] != "_" and key != "training"}


# Made once: they have no state, and a call of `sample` is too short to build modules in.
_BUILT_IN = {name: make() for name, make in INTERPOLATIONS.items()}


def name_of(interpolation: Interpolation) -> str:
    """The name under which backends know a kernel; "custom" for every other, a variation of a built-in one included."""
    for name, built_in in _BUILT_IN.items():
        if interpolation is built_in:
            return name
    for name, built_in in _BUILT_IN.items():
        if type(interpolation) is type(built_in) and _settings(interpolation) == _settings(built_in):
            return name
    return "custom"


def as_interpolation(mode: "str | Interpolation") -> Interpolation:
    """The object behind ``mode``; checked."""
    if isinstance(mode, Interpolation):
        if not isinstance(getattr(mode, "support", None), int) or mode.support < 1:
            raise ValueError(f"mode: {type(mode).__name__}.support must be a whole number >= 1")
        return mode
    if not isinstance(mode, str):
        raise TypeError(f"mode: wanted a name or an Interpolation, got {type(mode).__name__}")
    return _BUILT_IN[_checks.one_of("mode", ALIASES.get(mode, mode), INTERPOLATIONS)]
