"""Stationary velocity fields: T = exp(v), a diffeomorphism whose inverse is exp(-v)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import base_grid
from torch_stn.transforms import lattice
from torch_stn.transforms.base import Transform
from torch_stn.transforms.displacement import FieldMap, check_field, lattice_size, normalized
from torch_stn.transforms.maps import Map


def exponential(
    velocity: Tensor,  # (N, *size, d), normalised units
    *,
    squarings: int = 7,
    align_corners: bool = False,
) -> Tensor:  # (N, *size, d)
    """The displacement field of exp(v): where the flow dx/dt = v(x) has carried each node at t = 1.

    Scaling and squaring: a midpoint step over 2^-squarings, then the map is composed with itself ``squarings`` times.
    The step's error falls with 4^-squarings; what remains is the linear reading between nodes, so v should be smooth on
    its lattice. 7 serves flows as long as the image.

    Gradients: to the velocity, by differentiating the steps.
    Source: Arsigny et al. 2006 (scaling and squaring).

    >>> exponential(torch.full((1, 4, 4, 2), 0.25))[0, 0, 0].tolist()
    [0.25, 0.25]
    """
    size = check_field("velocity", velocity).shape[1:-1]
    nodes = base_grid(size, align_corners=align_corners, dtype=velocity.dtype, device=velocity.device)
    xy = nodes.flatten(0, -2)[None]

    def at(field: Tensor, moved: Tensor) -> Tensor:
        return lattice.read(field, xy + moved.flatten(1, -2), align_corners=align_corners).view_as(field)

    step = velocity * 2.0**-squarings
    field = at(step, step / 2)
    for _ in range(squarings):
        field = field + at(field, field)
    return field


def logarithm(
    map: Map,
    size: Sequence[int],
    *,
    iterations: int = 5,
    squarings: int = 7,
    align_corners: bool = False,
) -> Tensor:  # (N, *size, d)
    """The velocity v on a lattice of ``size`` with exp(v) near the map: its logarithm, normalised units.

    v <- v + (exp(-v) o T - identity), from v = 0: what is left of the map after undoing exp(v) is added. It converges
    for maps within about half an image of the identity that do not fold and leave the border about where it is: what
    flows in from beyond the lattice is not known to it. A map that is no exp(v) is met as well as the lattice allows.

    Few iterations are enough; tens of them amplify waves of two nodes, which exp(v) hardly hears.

    Gradients: by differentiating the steps.
    Source: Bossa, Hernandez, Olmos 2007.

    >>> from torch_stn import Translation
    >>> shift = Translation()(torch.tensor([[0.25, 0.0]]))
    >>> logarithm(shift, (4, 4))[0, 0, 0].tolist()
    [0.25, 0.0]
    """
    if not isinstance(map, Map):
        raise TypeError(f"map: wanted a Map, a family at a theta, got {type(map).__name__}")
    size = lattice_size(size)
    if len(size) != map.dims:
        raise ValueError(f"size: wanted that of a {map.dims}-D lattice, got {size}")
    xy = base_grid(size, align_corners=align_corners, dtype=map.dtype, device=map.device).flatten(0, -2)[None]
    moved = map.displacement(xy)
    velocity = moved.unflatten(1, size)
    for _ in range(iterations - 1):
        back = exponential(-velocity, squarings=squarings, align_corners=align_corners)
        left = moved + lattice.read(back, xy + moved, align_corners=align_corners)
        velocity = velocity + left.unflatten(1, size)
    return velocity


class VelocityMap(FieldMap):
    """exp(v) of a velocity field (N, *size, d) in normalised units; integrated once, when it is first asked for.

    ``first.then(second)`` composes the maps themselves: exp(v) o exp(w) is exp(v + w) only where the two flows commute.
    """

    def __init__(self, velocity: Tensor, *, squarings: int = 7, align_corners: bool = False) -> None:
        self.velocity = velocity
        self._field: Tensor | None = None
        self.squarings = squarings
        self.align_corners = align_corners
        self.dims = velocity.shape[-1]
        self.batch = velocity.shape[0]

    @property
    def field(self) -> Tensor:  # type: ignore[override]
        """The displacement field of exp(v), (N, *size, d)."""
        # What was integrated without a graph must not serve where one is wanted.
        wanted = torch.is_grad_enabled() and self.velocity.requires_grad
        kept = self._field
        if (
            kept is None
            or (wanted and not kept.requires_grad)
            or (kept.is_inference() and not torch.is_inference_mode_enabled())
        ):
            with torch.autocast(self.device.type, enabled=False):
                kept = exponential(self.velocity, squarings=self.squarings, align_corners=self.align_corners)
            self._field = kept
        return kept

    @property
    def dtype(self) -> torch.dtype:
        return self.velocity.dtype

    @property
    def device(self) -> torch.device:
        return self.velocity.device

    def points(self, xy: Tensor) -> Tensor:
        # By the exact inverse: landmarks are few, and what is drawn at one should be found there.
        return self.inverse(exact=True).sources(xy)

    def inverse(self, *, exact: bool = False) -> Map:
        """exp(-v): as smooth, as fast, and a diffeomorphism again, off by what linear reading between nodes costs.

        ``exact=True`` solves T(s) = p instead, to the last bits, with the gradient of the implicit function.
        """
        if exact:
            return super().inverse()
        return VelocityMap(-self.velocity, squarings=self.squarings, align_corners=self.align_corners)


class VelocityField(Transform):
    """T = exp(v), the flow of a stationary velocity field v at time 1: theta (N, *size, d), 0 = identity.

    v is linear between the nodes of a lattice and constant beyond; the nodes lie at the pixel centres of an image of
    ``size``. T is integrated on the lattice by scaling and squaring (:func:`exponential`), then read linearly.

    Args:
        size: (h, w) or (d, h, w) of theta.
        squarings: how often the map is composed with itself; fixed, so that a graph does not depend on the data.
        integration_size: the lattice on which to integrate; None is ``size``. A finer one lets a coarse theta give a
            finer map.
        units: of theta, "normalized" or "pixel", pixels of an image of ``size``; per unit of time.
        align_corners: whether the outermost nodes lie at -1 and 1, for images warped with align_corners=True.
    Inverse: exp(-v), which at 512 pixels and flows of 85 is off by 1.5 pixels integrated on 8 x 8 nodes, by 0.1 on
        64 x 64, by 0.005 on 512 x 512; ``map.inverse(exact=True)``, by iteration, 2e-5. Logarithm: :func:`logarithm`.
    Raises: ValueError for another size, unit or number of squarings.
    Source: Arsigny et al. 2006; Dalca et al. 2018.

    Example:
        >>> family = VelocityField((4, 4))
        >>> theta = family.identity()[None] + 0.25
        >>> family(theta).sources(torch.zeros(1, 1, 2)).tolist()
        [[[0.25, 0.25]]]
        >>> family(theta).points(torch.zeros(1, 1, 2)).tolist()
        [[[-0.25, -0.25]]]
    """

    def __init__(
        self,
        size: Sequence[int] = (8, 8),
        *,
        squarings: int = 7,
        integration_size: Sequence[int] | None = None,
        units: str = "normalized",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.size = lattice_size(size)
        self.dims = len(self.size)
        self.theta_shape = (*self.size, self.dims)
        if isinstance(squarings, bool) or not isinstance(squarings, int) or not 0 <= squarings <= 30:
            raise ValueError(f"squarings: wanted a whole number of 0 to 30, got {squarings!r}")
        self.squarings = squarings
        self.integration_size = _checks.size(integration_size, self.dims, self.size)
        self.units = _checks.one_of("units", units, ("normalized", "pixel"))
        self.align_corners = align_corners

    def extra_repr(self) -> str:
        return f"size={self.size}, squarings={self.squarings}, integration_size={self.integration_size}"

    def identity(self) -> Tensor:
        return torch.zeros(self.theta_shape)

    def map(self, theta: Tensor) -> VelocityMap:
        velocity = normalized(theta, self.units, self.align_corners)
        velocity = lattice.resample(velocity, self.integration_size, align_corners=self.align_corners)
        return VelocityMap(velocity, squarings=self.squarings, align_corners=self.align_corners)

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        return self.map(theta).displacement(xy)

    def lower(self, theta: Tensor, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        return self.map(theta).lower(size, align_corners=align_corners)
