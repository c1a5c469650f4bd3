"""The paper's sampling kernel k(.; Phi) as an object (3.3): which taps it reads, and with what weights."""

import torch
from torch import Tensor, nn

from torch_stn import _checks

PYTORCH_A = -0.75  # of F.grid_sample's bicubic


class Interpolation(nn.Module):
    """A separable kernel: V = sum_n sum_m U_nm k(x - m; Phi_x) k(y - n; Phi_y).

    A kernel of one's own is a subclass with ``support`` (how many taps k covers along one axis) and
    ``kernel(distance)``, any differentiable function of the signed distance x - m in pixels, in [-support / 2, support
    / 2]; parameters of the module are Phi, and learn. It runs on the reference backend, in 2-D and 3-D, with every
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

    def weights(self, fraction: Tensor) -> Tensor:
        t, s = fraction, 1 - fraction
        return torch.stack([self._far(1 + t), self._near(t), self._near(s), self._far(1 + s)], dim=-1)

    def _near(self, x: Tensor) -> Tensor:
        return ((self.a + 2) * x - (self.a + 3)) * x * x + 1

    def _far(self, x: Tensor) -> Tensor:
        return ((x - 5) * x + 8) * x * self.a - 4 * self.a


INTERPOLATIONS: dict[str, type[Interpolation]] = {
    "nearest": Nearest,
    "bilinear": Linear,
    "bicubic": Cubic,
}


def name_of(interpolation: Interpolation) -> str:
    """The name under which backends know a kernel; "custom" for every other, a variation of a built-in one included."""
    for name, kind in INTERPOLATIONS.items():
        if type(interpolation) is kind and (not isinstance(interpolation, Cubic) or interpolation.a == PYTORCH_A):
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
    return INTERPOLATIONS[_checks.one_of("mode", mode, INTERPOLATIONS)]()
