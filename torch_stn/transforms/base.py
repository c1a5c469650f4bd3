"""Transform: a family of maps, theta -> Map (paper 3.2)."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from torch_stn import _checks, lowered
from torch_stn.coordinates import base_grid
from torch_stn.transforms.maps import Map, ThetaMap


class Transform(nn.Module):
    """A family of maps. ``transform(theta)`` is a :class:`Map`, from output points to where to read in the input.

    A new family is a subclass with ``theta_shape``, ``identity`` and ``displacement``; it then has every Map method, an
    inverse by Newton iteration, and the fused path as a displacement field.

    Convention: points are (x, y[, z]) in [-1, 1]; theta maps output points to input points, as in the paper.
    Constants are non-persistent buffers: they move with ``.to``, add nothing to checkpoints, and keep their dtype under
    ``.half()``.

    Example:
        >>> class Shear(Transform):
        ...     theta_shape = (1,)
        ...     def identity(self):
        ...         return torch.zeros(1)
        ...     def displacement(self, theta, xy):
        ...         x, y = xy.unbind(-1)
        ...         return torch.stack([theta * y, torch.zeros_like(theta * y)], dim=-1)
        >>> Shear()(torch.tensor([[0.5]])).sources(torch.tensor([[[0.0, 1.0]]])).tolist()
        [[[0.5, 1.0]]]
    """

    dims: int = 2
    theta_shape: tuple[int, ...]  # the natural shape of one theta, without the batch
    has_identity: bool = True  # whether some theta moves nothing; polar coordinates have none

    @property
    def num_params(self) -> int:
        """P: how many numbers one theta has."""
        return prod(self.theta_shape)

    @abstractmethod
    def identity(self) -> Tensor:
        """The theta of the identity map, in its natural shape, float32. ValueError where ``has_identity`` is False."""
        raise NotImplementedError(f"{type(self).__name__}.identity")

    def initial(self) -> Tensor:
        """Where a regression head should start: the identity, unless the family learns badly from exactly there."""
        return self.identity()

    @abstractmethod
    def displacement(
        self,
        theta: Tensor,  # (N, *theta_shape)
        xy: Tensor,  # (N or 1, M, d), normalised output points
    ) -> Tensor:  # (N, M, d)
        """T_theta(xy) - xy; exactly 0 at the identity."""
        raise NotImplementedError(f"{type(self).__name__}.displacement")

    def lower(self, theta: Tensor, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        """The lowered form for an output of ``size``; families with a matrix or a constant basis do better than a
        field.
        """
        xy = base_grid(size, align_corners=align_corners, dtype=theta.dtype, device=theta.device)
        return lowered.Field(self.displacement(theta, xy.flatten(0, -2)[None]).unflatten(1, tuple(size)))

    def forward(self, theta: Tensor) -> Map:
        """The map of each theta: (N, P) or (N, *theta_shape); half precision is read as float32.

        Raises: ValueError with the wanted shapes.
        """
        return self.map(_checks.theta(theta, self.theta_shape, type(self).__name__))

    def map(self, theta: Tensor) -> Map:
        """The map of a checked theta (N, *theta_shape)."""
        return ThetaMap(self, theta)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "Transform":
        # `.half()` on a whole model must not round control points: take the new device, keep the old dtype.
        kept = {name: buffer for name, buffer in self.named_buffers(recurse=False) if buffer is not None}
        super()._apply(fn, *args, **kwargs)
        for name, before in kept.items():
            after = getattr(self, name)
            if after.dtype != before.dtype and not after.is_meta:
                # Apple's GPU has no float64.
                dtype = torch.float32 if after.device.type == "mps" else before.dtype
                setattr(self, name, before.to(device=after.device, dtype=dtype))
        return self
