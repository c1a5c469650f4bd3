"""The tensors of a case: white noise read through maps that turn by up to 30 degrees, zoom by 0.8 to 1.25 and shift."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from torch_stn.coordinates import base_grid
from torch_stn.lab.bench.cases import Case
from torch_stn.transforms import TRANSFORMS, Affine, Map, Transform

TURN = {2: math.pi / 6, 3: math.pi / 12}  # radians, about each axis in 3-D
SHIFT = 0.1  # of a half image
PERSPECTIVE = 0.1  # of w at the border
WAVES = 12.0  # radians across the smooth image, along each axis
BEND = 0.05  # spread of the control points, or of the vectors of a field, of a half image


@dataclass(frozen=True)
class Inputs:
    """What a contender is given."""

    case: Case
    image: Tensor  # (N, C, *in)
    theta: Tensor  # (N, *theta_shape), or the points (N, *out, d); float32, or float64 for a float64 image
    upstream: Tensor  # the gradient that comes back, (N, C, *out)

    def exact(self) -> Inputs:
        """The same numbers in float64."""
        return replace(self, image=self.image.double(), theta=self.theta.double(), upstream=self.upstream.double())

    def smooth(self) -> Inputs:
        """The same with a few long waves for an image, dark towards the border.

        On noise the slope jumps at each pixel centre, and a coordinate that rounding moves across one takes another:
        a theta gradient in float32 is then off by up to a percent, however it was computed.
        """
        size = self.image.shape[2:]
        counted = partial(torch.arange, dtype=torch.float64, device=self.image.device)
        centres = [(counted(n) + 0.5) / n for n in size]
        x = torch.stack(torch.meshgrid(*centres, indexing="ij"))
        shifts = counted(self.image.shape[0] * self.image.shape[1])
        waves = torch.sin(WAVES * x.sum(dim=0) + shifts.reshape(*self.image.shape[:2], *[1] * len(size)))
        image = torch.empty_like(self.image)  # keeps the memory format
        image.copy_(waves * (torch.pi * x).sin().square().prod(dim=0))
        return replace(self, image=image)


def make(case: Case, device: str = "cpu", seed: int = 0) -> Inputs:
    """The inputs of a case, the same for a device and seed.

    Noise is drawn where it will lie: a CPU takes seconds for the 200 million numbers of a large case.
    """
    generator = torch.Generator().manual_seed(seed)
    there = generator if device == "cpu" else torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, case.dtype)
    channels = case.image[1]
    image = torch.randn(*case.image, generator=there, device=device).to(dtype)
    upstream = torch.randn(case.batch, channels, *case.size, generator=there, device=device).to(dtype)
    if case.channels_last:
        image, upstream = (t.contiguous(memory_format=torch.channels_last) for t in (image, upstream))
    theta = _points(case, generator, device) if case.family == "points" else _theta(case, generator).to(device)
    theta = theta.double() if dtype == torch.float64 else theta.float()
    return Inputs(case, image, theta, upstream)


def transform_of(case: Case) -> Transform:
    """The family of a case, as a user makes it once."""
    return Affine(case.dims) if case.family == "affine" else TRANSFORMS[case.family]()


def map_of(case: Case, theta: Tensor) -> Map:
    """The map of the case at theta."""
    return transform_of(case)(theta)


def pixel_matrix(case: Case, theta: Tensor) -> Tensor:
    """(N, d + 1, d + 1) float64, output pixel -> input pixel, of an affine or projective case."""
    theta = theta.detach().cpu().double()
    if case.family == "affine":
        last = torch.eye(case.dims + 1, dtype=torch.float64)[-1:].expand(len(theta), 1, -1)
        matrix = torch.cat([theta, last], dim=1)
    else:
        matrix = torch.cat([theta, torch.ones_like(theta[:, :1])], dim=1).reshape(-1, 3, 3)
    to_pixel = [_to_pixel(size, case.align_corners) for size in (case.image[2:], case.size)]
    return to_pixel[0] @ matrix @ torch.linalg.inv(to_pixel[1])


def _to_pixel(size: tuple[int, ...], align_corners: bool) -> Tensor:
    """The matrix from [-1, 1] to pixels, axes in (x, y[, z]) order."""
    lengths = torch.tensor(size[::-1], dtype=torch.float64)
    half = (lengths - 1) / 2 if align_corners else lengths / 2
    matrix = torch.diag(torch.cat([half, torch.ones(1, dtype=torch.float64)]))
    matrix[:-1, -1] = (lengths - 1) / 2
    return matrix


def _theta(case: Case, generator: torch.Generator) -> Tensor:
    """theta of each map, float64."""
    if case.family in ("tps", "displacement"):
        identity = transform_of(case).identity().double()
        noise = torch.randn(case.batch, *identity.shape, generator=generator, dtype=torch.float64)
        return identity + BEND * noise
    affine = _affine(case.dims, case.batch, generator)
    if case.family == "affine":
        return affine
    perspective = _uniform(generator, case.batch, 2) * PERSPECTIVE
    return torch.cat([affine.flatten(1), perspective], dim=1)


def _affine(dims: int, batch: int, generator: torch.Generator) -> Tensor:
    """(batch, d, d + 1): turned about each axis, zoomed, shifted."""
    linear = torch.eye(dims, dtype=torch.float64).repeat(batch, 1, 1)
    for i, j in combinations(range(dims), 2):
        angle = _uniform(generator, batch) * TURN[dims]
        turn = torch.eye(dims, dtype=torch.float64).repeat(batch, 1, 1)
        turn[:, i, i] = turn[:, j, j] = angle.cos()
        turn[:, i, j], turn[:, j, i] = -angle.sin(), angle.sin()
        linear = linear @ turn
    zoom = 0.8 + 0.45 * torch.rand(batch, generator=generator, dtype=torch.float64)
    shift = _uniform(generator, batch, dims, 1) * SHIFT
    return torch.cat([linear * zoom[:, None, None], shift], dim=2)


def _points(case: Case, generator: torch.Generator, device: str) -> Tensor:
    """(N, *out, d) normalised: an affine grid with waves on it, float64."""
    xy = base_grid(case.size, align_corners=case.align_corners, dtype=torch.float64, device=device)
    matrix = _affine(case.dims, case.batch, generator).to(device)
    matrix = matrix.reshape(case.batch, *[1] * case.dims, case.dims, case.dims + 1)
    straight = (matrix[..., :-1] * xy[..., None, :]).sum(dim=-1) + matrix[..., -1]
    return straight + 0.03 * torch.sin(7 * xy.flip(-1))


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform in [-1, 1], float64."""
    return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1
