"""World coordinates: maps between images whose pixels have spacing, orientation and place.

An image-to-world matrix, (d + 1, d + 1), or one per sample (N, d + 1, d + 1), takes the *pixel* point (x, y[, z], 1)
of a tensor (N, C, [D,] H, W) to the world, in millimetres as a rule; its last row is (0, 0[, 0], 1). None: pixels are
the world.

A NIfTI matrix takes the array's index (i, j, k). ``torch.from_numpy(nifti.get_fdata().T)`` is a (D, H, W) volume with
(x, y, z) = (i, j, k), for which ``nifti.affine`` serves as it is; without the ``.T`` it is ``affine[:, [2, 1, 0, 3]]``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import as_list, half_extents, to_normalized, to_pixel
from torch_stn.transforms.maps import Map
from torch_stn.transforms.matrix import MatrixMap


def in_world(
    map: Map | None,
    in_size: Sequence[int],  # (H, W) or (D, H, W) of the image that is read
    size: Sequence[int],  # (h, w) or (d, h, w) of the output
    *,
    in_affine: Any = None,  # (d + 1, d + 1) or (N, d + 1, d + 1), pixels of the input -> world
    out_affine: Any = None,  # likewise, pixels of the output -> world
    align_corners: bool = False,
) -> Map:
    """The normalised Map of a map in world coordinates: output pixel -> world -> ``map`` -> world -> input pixel.

    ``warp(image, in_world(map, image.shape[2:], size, in_affine=A, out_affine=B), size)`` reads the image on the grid
    B. ``map`` takes output points to input points, both in the world: ``Rigid(3)(theta)`` with its shift in
    millimetres. None is the identity of the world, hence plain resampling. A map in [-1, 1] of the output grid comes
    after it: ``in_world(None, ...).then(map)``.

    Numerics: a matrix (and None) is composed in float64 and stays one matrix, exactly the identity where both grids
        agree and the map is one; other maps become a field. The dtype is the map's; without one that of the affines.
    Gradients: to theta, and to the affines.
    Raises: ValueError / TypeError naming the argument; an affine that is singular, not finite or has another last row.

    Example: two images of one scene, the second with pixels of half the width.
        >>> image = torch.arange(4.0).reshape(1, 1, 1, 4)
        >>> fine = torch.tensor([[0.5, 0.0, -0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> from torch_stn import warp
        >>> warp(image, in_world(None, (1, 4), (1, 8), out_affine=fine), (1, 8), padding_mode="border").tolist()
        [[[[0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]]]]
    """
    if map is not None and not isinstance(map, Map):
        raise TypeError(f"map: wanted a Map, or None for the identity, got {type(map).__name__}")
    dims = map.dims if map is not None else len(tuple(size))
    in_size, size = _checks.size(in_size, dims, None), _checks.size(size, dims, None)
    read, written = _affine("in_affine", in_affine, dims, map), _affine("out_affine", out_affine, dims, map)
    batch = _checks.broadcast_batch("in_affine", read.shape[0], "out_affine", written.shape[0])
    # What [-1, 1] of either image is in the world.
    read = torch.matmul(read, _pixels(in_size, align_corners, read))
    written = torch.matmul(written, _pixels(size, align_corners, written))
    if map is None or isinstance(map, MatrixMap):
        moved = written
        if map is not None:
            _checks.broadcast_batch("in_affine", batch, "map", map.batch)
            moved = torch.matmul(map.homogeneous().to(written), written)
        # By the difference to the identity, which is exactly zero where there is none.
        matrix = torch.linalg.solve(read, moved - read) + torch.eye(dims + 1, dtype=read.dtype, device=read.device)
        dtype = map.dtype if map is not None else _dtype(in_affine, out_affine)
        rows = dims if map is None else map.matrix.shape[1]
        return MatrixMap(matrix[:, :rows].to(dtype))
    first, last = torch.linalg.inv(read)[:, :dims].to(map.dtype), written[:, :dims].to(map.dtype)
    return _InWorld(MatrixMap(first).then(map).then(MatrixMap(last)))


class _InWorld(Map):
    """A chain through the world, as one map: Newton's tolerances are those of [-1, 1], so its inverse solves for the
    whole way, not for the part in millimetres.
    """

    def __init__(self, way: Map) -> None:
        self.way = way
        self.dims = way.dims
        self.batch = way.batch

    @property
    def dtype(self) -> torch.dtype:
        return self.way.dtype

    @property
    def device(self) -> torch.device:
        return self.way.device

    def displacement(self, xy: Tensor) -> Tensor:
        return self.way.displacement(xy)

    def lower(self, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        return self.way.lower(size, align_corners=align_corners)


def to_world(
    points: Tensor,  # (N, *S, d)
    affine: Any,  # (d + 1, d + 1) or (N, d + 1, d + 1)
    *,
    in_size: Sequence[int] | None = None,
    units: str = "pixel",
    align_corners: bool = False,
) -> Tensor:
    """Points of an image in the world: (N, *S, d). Units "pixel", or "normalized" with the image's ``in_size``.

    >>> to_world(torch.tensor([[2.0, 3.0]]), [[0.5, 0, 10], [0, 2, 20], [0, 0, 1]]).tolist()
    [[11.0, 26.0]]
    """
    matrix, in_size = _of_points(points, affine, in_size, units)
    if in_size is not None:
        points = to_pixel(points, in_size, align_corners=align_corners)
    return _apply(matrix, points)


def from_world(
    points: Tensor,  # (N, *S, d)
    affine: Any,  # (d + 1, d + 1) or (N, d + 1, d + 1)
    *,
    in_size: Sequence[int] | None = None,
    units: str = "pixel",
    align_corners: bool = False,
) -> Tensor:
    """Where points of the world lie in an image; the inverse of :func:`to_world`.

    >>> from_world(torch.tensor([[11.0, 26.0]]), [[0.5, 0, 10], [0, 2, 20], [0, 0, 1]]).tolist()
    [[2.0, 3.0]]
    """
    matrix, in_size = _of_points(points, affine, in_size, units)
    points = _apply(torch.linalg.inv(matrix), points)
    return points if in_size is None else to_normalized(points, in_size, align_corners=align_corners)


def _of_points(
    points: Tensor, affine: Any, in_size: Sequence[int] | None, units: str
) -> tuple[Tensor, tuple[int, ...] | None]:
    """The checked matrix (1 or N, d + 1, d + 1), and the size where the points are normalised."""
    dims = _checks.tensor("points", points).shape[-1] if points.dim() else 0
    _checks.points(points, 3 if dims == 3 else 2)
    matrix = _affine("affine", affine, dims, None).to(points.device)
    _checks.broadcast_batch("points", points.shape[0], "affine", matrix.shape[0])
    normalized = _checks.one_of("units", units, ("pixel", "normalized")) == "normalized"
    return matrix, _checks.size(in_size, dims, None) if normalized else None


def _apply(matrix: Tensor, points: Tensor) -> Tensor:
    """An affine matrix on points (N, *S, d), in the precision of the matrix, rounded once."""
    flat = as_list(points).to(matrix.dtype)
    moved = torch.matmul(flat, matrix[:, :-1, :-1].mT) + matrix[:, None, :-1, -1]
    return moved.reshape(moved.shape[0], *points.shape[1:]).to(points.dtype)


def _affine(name: str, given: Any, dims: int, map: Map | None) -> Tensor:
    """A checked image-to-world matrix (1 or N, d + 1, d + 1), float64."""
    device = None if map is None else map.device
    # Apple's GPU has no float64.
    dtype = torch.float32 if device is not None and device.type == "mps" else torch.float64
    if given is None:
        return torch.eye(dims + 1, dtype=dtype, device=device)[None]
    matrix = torch.as_tensor(given, dtype=dtype, device=device)
    if matrix.dim() not in (2, 3) or matrix.shape[-2:] != (dims + 1, dims + 1):
        wanted = f"({dims + 1}, {dims + 1}) or (N, {dims + 1}, {dims + 1})"
        raise ValueError(f"{name}: wanted {wanted}, got {_checks.describe(matrix)}")
    matrix = matrix.reshape(-1, dims + 1, dims + 1)
    last = torch.eye(dims + 1, dtype=dtype, device=matrix.device)[-1]
    fits = torch.isfinite(matrix).all(dim=(1, 2)) & (matrix[:, -1] == last).all(dim=1)
    _checks.every(fits, name, f"finite matrices with the last row {tuple(last.int().tolist())}")
    # By the determinant of the directions alone, so that small spacings are not taken for none.
    directions = matrix[:, :-1, :-1] / matrix[:, :-1, :-1].norm(dim=1, keepdim=True)
    _checks.every(torch.linalg.det(directions).abs() > 1e-9, name, "matrices that can be inverted")
    return matrix


def _pixels(size: Sequence[int], align_corners: bool, like: Tensor) -> Tensor:
    """The matrix (d + 1, d + 1) from [-1, 1] of an image of ``size`` to its pixels."""
    half = [
        pixels or 1.0 for pixels in half_extents(size, align_corners)
    ]  # one pixel, corners aligned: any unit serves
    centre = half_extents(size, True)
    rows = [[half[i] if i == j else 0.0 for j in range(len(half))] + [centre[i]] for i in range(len(half))]
    return torch.tensor([*rows, [0.0] * len(half) + [1.0]], dtype=like.dtype, device=like.device)


def _dtype(*affines: Any) -> torch.dtype:
    """float64 where an affine comes in it, else float32."""
    double = any(str(getattr(affine, "dtype", "")).endswith("float64") for affine in affines)
    return torch.float64 if double else torch.float32
