"""How a map changes area: what penalties and the monitor ask of it."""

import torch
from torch import Tensor

from torch_stn.coordinates import base_grid
from torch_stn.transforms.maps import Map


def lattice(map: Map, cells: int) -> tuple[Tensor, Tensor]:
    """The corners of ``cells`` ^ d cells over [-1, 1]^d, (cells + 1, ..., d), and where they read, by batch."""
    corners = base_grid((cells + 1,) * map.dims, align_corners=True, dtype=map.dtype, device=map.device)
    return corners, map.sources(corners[None])


def cell_determinants(sources: Tensor) -> Tensor:
    """Signed area (volume) of each cell of a lattice of sources (N, n + 1, ..., d) by that of the cell: (N, n, ..., n).

    Below 1 zooms in, below 0 is folded or mirrored. Exact for affine maps; in 2-D it is the area of the quadrilateral.
    """
    d = sources.shape[-1]
    edges = []
    for axis in range(d):  # 0 is x, the last space axis
        along = sources.diff(dim=d - axis)
        for other in range(d):
            if other != axis:
                along = along.unfold(d - other, 2, 1).mean(dim=-1)
        edges.append(along * ((sources.shape[1] - 1) / 2))
    columns = torch.stack(edges, dim=-1)
    # Written out: a batch of LU factorisations is slower, and autocast has no say in sums of products.
    if d == 1:
        return columns[..., 0, 0]
    if d == 2:
        return columns[..., 0, 0] * columns[..., 1, 1] - columns[..., 0, 1] * columns[..., 1, 0]
    return (columns[..., 0] * torch.linalg.cross(columns[..., 1], columns[..., 2])).sum(dim=-1)
