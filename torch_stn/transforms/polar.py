"""Polar and log-polar coordinates around a centre: a turn of the picture becomes a shift, in log-polar a zoom too."""

import math

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.transforms.base import Transform
from torch_stn.transforms.boxes import map_boxes
from torch_stn.transforms.maps import Map, ThetaMap


class Polar(Transform):
    """x_s = c_x + r cos(a) / aspect, y_s = c_y + r sin(a) with r = radius (x_t + 1) / 2, a = pi (y_t + 1).

    theta (N, 2) = the centre (c_x, c_y), normalised. In the output the radius runs to the right, from 0 to ``radius``,
    and the angle down, a full turn from the x axis towards y. No theta is the identity; a head starts at the centre of
    the picture.

    Convention: that of Polar Transformer Networks and of OpenCV's warpPolar. Where the output is read or convolved
    across its upper and lower edge, use padding "wrap" along y.
    The inverse is closed: (radius, angle) of a point; the centre itself gets the angle 0, with zero gradient.
    ``boxes``: a box across the ray a = 0 gets all angles; one that holds the centre begins at the left edge, or beyond.

    Args:
        radius: at the right edge of the output, in half heights of the image.
        aspect: width / height of the image in pixels, so that circles are circles.
    Raises: ValueError naming the argument.
    Source: Esteves, Allen-Blanchette, Zhou, Daniilidis 2018, Polar Transformer Networks, section 3.

    Example:
        >>> centre = torch.tensor([[0.5, 0.0]])
        >>> Polar()(centre).sources(torch.tensor([[[0.0, -1.0], [0.0, 0.0]]])).round(decimals=3).tolist()
        [[[1.0, 0.0], [0.0, 0.0]]]
    """

    has_identity = False
    theta_shape = (2,)

    def __init__(self, *, radius: float = 1.0, aspect: float = 1.0) -> None:
        super().__init__()
        for name, value in (("radius", radius), ("aspect", aspect)):
            if not 0 < _checks.number(name, value) < math.inf:
                raise ValueError(f"{name}: wanted a finite number > 0, got {value!r}")
        self.radius = radius
        self.aspect = aspect

    def extra_repr(self) -> str:
        return f"radius={self.radius}, aspect={self.aspect}"

    def identity(self) -> Tensor:
        raise ValueError(f"identity: {type(self).__name__} has none, no centre makes it move nothing")

    def initial(self) -> Tensor:
        return torch.zeros(2)

    def radii(self, share: Tensor) -> Tensor:
        """The radius at a share of the output's width, 0 at its left edge, 1 at its right one."""
        return self.radius * share

    def shares(self, radii: Tensor) -> Tensor:
        """The inverse of :meth:`radii`."""
        return radii / self.radius

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        # cos(pi (y + 1)) = -cos(pi y): adding the 1 would round the angle.
        radius, angle = self.radii((xy[..., 0] + 1) / 2), math.pi * xy[..., 1]
        spoke = torch.stack([radius * angle.cos() / self.aspect, radius * angle.sin()], dim=-1)
        return theta[:, None] - spoke - xy

    def map(self, theta: Tensor) -> "PolarMap":
        return PolarMap(self, theta)


class LogPolar(Polar):
    """As :class:`Polar` with r = inner (radius / inner)^((x_t + 1) / 2): the logarithm of the radius runs to the right.

    A zoom around the centre is a shift along x. The picture within ``inner`` is left out (it has x_t < -1); the centre
    itself lies nowhere: outside, with zero gradient.

    Args:
        inner: the radius at the left edge of the output, in half heights; 2 / H is one pixel, as in the source.
    Raises: ValueError naming the argument.
    Source: Esteves et al. 2018, equation 8.

    Example:
        >>> LogPolar(inner=0.01)(torch.zeros(1, 2)).sources(torch.tensor([[[0.0, -1.0]]])).round(decimals=3).tolist()
        [[[0.1, 0.0]]]
    """

    def __init__(self, *, radius: float = 1.0, inner: float = 0.05, aspect: float = 1.0) -> None:
        super().__init__(radius=radius, aspect=aspect)
        if not 0 < _checks.number("inner", inner) < radius:
            raise ValueError(f"inner: wanted a number > 0 and below radius, {radius}, got {inner!r}")
        self.inner = inner

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, inner={self.inner}"

    def radii(self, share: Tensor) -> Tensor:
        return self.inner * (share * math.log(self.radius / self.inner)).exp()

    def shares(self, radii: Tensor) -> Tensor:
        return (radii / self.inner).log() / math.log(self.radius / self.inner)


class PolarMap(ThetaMap):
    """Polar coordinates around one centre per sample, with their inverse in closed form."""

    transform: Polar

    def inverse(self) -> Map:
        return _FromPolar(self)

    def boxes(self, boxes: Tensor) -> Tensor:
        found = map_boxes(self.points, boxes, self.dims)
        low_x, low_y, high_x, high_y = boxes.unbind(-1)
        x, y = self.theta[:, None].unbind(-1)
        holds = torch.isfinite(boxes).all(dim=-1) & (low_x <= high_x)
        on_ray = holds & (low_y <= y) & (y <= high_y) & (x <= high_x)
        round_centre = on_ray & (low_x <= x)
        left, first, right, last = found.unbind(-1)
        left = torch.where(round_centre, left.nan_to_num(nan=-1.0).clamp(max=-1.0), left)
        first = torch.where(on_ray, torch.full_like(first, -1.0), first)
        last = torch.where(on_ray, torch.full_like(last, 1.0), last)
        return torch.stack([left, first, right, last], dim=-1)


class _FromPolar(Map):
    """Points of the picture -> where polar coordinates show them."""

    dims = 2

    def __init__(self, forward_map: PolarMap) -> None:
        self.forward_map = forward_map
        self.batch = forward_map.batch

    @property
    def dtype(self) -> torch.dtype:
        return self.forward_map.dtype

    @property
    def device(self) -> torch.device:
        return self.forward_map.device

    def displacement(self, xy: Tensor) -> Tensor:
        family = self.forward_map.transform
        x, y = (xy - self.forward_map.theta[:, None]).unbind(-1)
        x = x * family.aspect
        squared = x.square() + y.square()
        # At the centre neither the root nor the angle has a slope; they must not even be formed there.
        centre = squared == 0
        x, y = torch.where(centre, torch.ones_like(x), x), torch.where(centre, torch.zeros_like(y), y)
        radius = torch.where(centre, torch.ones_like(squared), squared).sqrt()
        share = family.shares(torch.where(centre, torch.zeros_like(radius), radius))
        found = torch.stack([2 * share - 1, torch.atan2(-y, -x) / math.pi], dim=-1) - xy
        return torch.where(torch.isfinite(share)[..., None], found, torch.full_like(found, float("inf")))

    def inverse(self) -> Map:
        return self.forward_map
