"""Penalties on what a transformer does: scalars to add to a loss, 0 at the identity, means over the batch.

They ask a :class:`Map` (``transform(theta)``, ``stn.maps(theta)[0]``), so they serve every family, compositions too.
"""

import torch
from torch import Tensor

from torch_stn import _checks
from torch_stn.nn.determinants import cell_determinants, lattice
from torch_stn.transforms.base import Transform
from torch_stn.transforms.maps import Map

CELLS = 8  # each way, of the lattice on which maps are asked


def identity_distance(map: Map, *, cells: int = CELLS) -> Tensor:
    """How far points are moved: the mean of |T(xy) - xy|^2 over a lattice of (cells + 1)^d points on all of the output.

    In normalised units, squared: 1 is half the image. Points that read nowhere (behind a homography's camera) count 0.

    Example:
        >>> from torch_stn import Translation
        >>> identity_distance(Translation()(torch.tensor([[0.3, 0.4]])))
        tensor(0.2500)
    """
    corners, sources = lattice(_map(map), _cells(cells))
    moved = sources - corners
    return torch.where(moved.isfinite(), moved, 0.0).square().sum(dim=-1).mean()


def area(map: Map) -> Tensor:
    """Mean of (log |J|)^2 at the middle of the output, by central differences, exact for affine maps: keeps a
    transformer from zooming in or out.

    Mirrored and collapsed maps are as far from 1 as a hundredfold zoom, where the gradient ends. 2-D.

    Example:
        >>> from torch_stn import Affine
        >>> half = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])
        >>> area(Affine()(half)).sqrt().exp()
        tensor(4.0000)
    """
    if _map(map).dims != 2:
        raise ValueError(f"map: area wanted a 2-D map, got a {map.dims}-D one")
    ends = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]], dtype=map.dtype, device=map.device)
    found = map.sources(ends[None])
    known = found.isfinite().flatten(1).all(dim=1)
    right, left, down, up = torch.where(known[:, None, None], found, 0.0).unbind(1)
    (ax, ay), (bx, by) = (right - left).unbind(-1), (down - up).unbind(-1)
    return torch.where(known, (ax * by - ay * bx).clamp(min=0.01).log().square(), 0.0).mean()


def negative_determinants(map: Map, *, margin: float = 0.0, cells: int = CELLS) -> Tensor:
    """Mean of max(0, margin - det) over the cells of a lattice: 0 where nothing is folded, and it has a gradient where
    something is.

    Args: margin, the determinant below which a cell is too small; cells, of the lattice each way, at least 1.

    Example:
        >>> from torch_stn import Affine
        >>> mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        >>> negative_determinants(Affine()(mirror))
        tensor(1.)
    """
    sources = lattice(_map(map), _cells(cells))[1]
    known = cell_determinants(sources).isfinite()
    # Not even the backward pass may meet a corner that reads nowhere: 0 * inf would make theta's gradient NaN.
    determinants = cell_determinants(torch.where(sources.isfinite(), sources, 0.0))
    return torch.where(known, (margin - determinants).clamp(min=0), 0.0).mean()


def bending_energy(transform: Transform, theta: Tensor) -> Tensor:
    """Mean over the batch of a spline's bending energy: the integral of its squared second derivatives, 0 for an
    affine map.

    Args: transform, one that has ``bending_energy(theta)``: ThinPlateSpline; theta (N, K, d) or (N, d K).
    Raises: TypeError for a family without one.
    Source: Bookstein 1989.

    Example:
        >>> from torch_stn import ThinPlateSpline
        >>> spline = ThinPlateSpline()
        >>> bending_energy(spline, spline.identity()[None])
        tensor(0.)
    """
    energy = getattr(transform, "bending_energy", None)
    if energy is None:
        raise TypeError(f"transform: wanted a ThinPlateSpline, which can bend, got {type(transform).__name__}")
    return energy(theta).mean()


def smoothness(field: Tensor) -> Tensor:
    """Mean over the batch of the squared slopes of a displacement or velocity field (N, *size, d), by forward
    differences: sum over axes and components of (d field_i / d xy_j)^2, averaged over the pixels.

    ``field`` is normalised, as the theta of a displacement or velocity family; a slope is per normalised unit, so
    that the number does not depend on the resolution. 0 for a constant field.

    Example: a field that grows by 1 per unit along x.
        >>> x = torch.arange(-0.75, 1, 0.5).expand(1, 4, 4)
        >>> smoothness(torch.stack([x, torch.zeros_like(x)], dim=-1))
        tensor(1.)
    """
    given = _checks.tensor("field", field)
    _checks.floating("field", given)
    d = given.shape[-1]
    if given.dim() not in (4, 5) or d != given.dim() - 2:
        raise ValueError(f"field: wanted (N, h, w, 2) or (N, d, h, w, 3), got {_checks.describe(given)}")
    slopes = [given.diff(dim=axis) * (given.shape[axis] / 2) for axis in range(1, d + 1) if given.shape[axis] > 1]
    return sum((slope.square().sum(dim=-1).mean() for slope in slopes), given.new_zeros(()))


def _map(map: Map) -> Map:
    if not isinstance(map, Map):
        raise TypeError(f"map: wanted a Map, as a transform returns for theta, got {type(map).__name__}")
    return map


def _cells(cells: int) -> int:
    if cells < 1:
        raise ValueError(f"cells: wanted at least 1, got {cells}")
    return cells
