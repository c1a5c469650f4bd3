"""The footprints of affine maps: alike in all pixels of an output, so that a probe is the whole map, moved a little.

No points and no weights are made. The image is averaged to the one level that is asked for, and read through the moved
maps themselves, by fused kernels where there are any.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_stn import lowered
from torch_stn.coordinates import half_extents
from torch_stn.sampling.antialias import Footprint, table
from torch_stn.sampling.padding import PADDINGS
from torch_stn.sampling.pyramid import FRAMED, cells_of
from torch_stn.sampling.read import MapPoints

TOGETHER = 2**16  # points that are read in one call of a shared image
Serve = Callable[..., Any]  # `read` with the options that are the same for image, mask and levels
Ask = tuple[tuple[int, ...], int]  # probes along x, y[, z], and the level


@dataclass(frozen=True)
class AffineMaps:
    """Affine maps (N or 1, d, d + 1) and the probes that all their pixels ask for."""

    matrix: Tensor
    steps: Tensor  # (N or 1, d, d), as in Footprint
    counts: tuple[int, ...]
    level: int


def groups_of(foot: Footprint) -> dict[Ask, list[int]] | None:
    """The samples that ask for the same, by a look at the values; None where there are none to look at."""
    if torch.compiler.is_compiling() or (foot.level.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    found: dict[Ask, list[int]] = {}
    try:
        counts, levels = foot.counts.flatten(0, -2).int().tolist(), foot.level.flatten().int().tolist()
    except RuntimeError:
        return None
    for i, (count, level) in enumerate(zip(counts, levels, strict=True)):
        found.setdefault((tuple(count), level), []).append(i)
    return found


def served(padding: Sequence[str], edge: str) -> bool:
    """Whether a level can be read as an image of its own: the rules draw the same beyond its cells."""
    return all(PADDINGS[name] in FRAMED for name in padding) and (edge == "blend" or "zeros" not in padding)


def mean_of_image(image: Tensor, maps: AffineMaps, size: tuple[int, ...], serve: Serve, **how: Any) -> Tensor:
    """The means of probes of the image itself, (N, C, *size); ``how``: padding, fill, edge, align_corners, backend."""
    halves = half_extents(image.shape[2:], how["align_corners"])
    return _mean(image, maps.matrix, [1 / half if half else 0.0 for half in halves], maps, size, serve, how)


def mean_of_level(
    image: Tensor,
    maps: AffineMaps,
    size: tuple[int, ...],
    serve: Serve,
    *,
    padding: tuple[str, ...],
    align_corners: bool,
    backend: str | None,
) -> Tensor:
    """The means of probes of the image's level, (N, C, *size); beyond the image it is 0 where there is no rule."""
    cells = cells_of(image, maps.level, [PADDINGS[name] for name in padding], align_corners)
    d, width = len(size), 2**maps.level
    factors, summands, pixels = [], [], []
    for n, count, half in zip(
        image.shape[:1:-1], cells.shape[:1:-1], half_extents(image.shape[2:], align_corners), strict=True
    ):
        # Image pixel p is cell (p + 1/2) / width - 1/2; the cells are read with align_corners=False.
        pixels.append(2 / (width * count))
        factors.append(half * pixels[-1])
        summands.append(n / (width * count) - 1)
    wider = [m / (m - 1) if align_corners and m > 1 else 1.0 for m in reversed(size)]
    matrix = maps.matrix
    if align_corners or any(summands):
        scale = table([[factor * wide for wide in [*wider, 1.0]] for factor in factors], matrix)
        matrix = torch.addcmul(table([[0.0] * d + [summand] for summand in summands], matrix), matrix, scale)
    how = {"padding_mode": padding, "fill": 0.0, "edge": "blend", "align_corners": False, "backend": backend}
    return _mean(cells, matrix, pixels, maps, size, serve, how)


def _mean(
    picture: Tensor,
    matrix: Tensor,  # normalised output -> normalised picture
    pixels: Sequence[float],  # how far a pixel of the image goes there, along x, y[, z]
    maps: AffineMaps,
    size: tuple[int, ...],
    serve: Serve,
    how: dict[str, Any],
) -> Tensor:
    """The mean of what the moved maps read, (N, C, *size)."""
    if len(set(how["padding_mode"])) == 1:
        how["padding_mode"] = how["padding_mode"][0]  # a plain word takes the short way through `read`
    points_of = partial(
        lowered.points_in,
        size=size,
        in_size=tuple(picture.shape[2:]),
        align_corners=how["align_corners"],
        dtype=picture.dtype,
        device=picture.device,
    )

    def read(matrix: Tensor) -> Tensor:
        values: Tensor = serve(
            picture, MapPoints(lowered.Matrix(matrix), size, points_of), "pixel", return_mask=False, **how
        )
        return values

    probes = _moved(matrix, pixels, maps)
    count, n = probes.shape[:2]
    if count == 1:
        return read(probes[0])
    if picture.shape[0] == 1 and count * n * prod(size) <= TOGETHER:  # one image for all: all maps in one call
        return read(probes.flatten(0, 1)).unflatten(0, (count, n)).mean(dim=0)
    total = read(probes[0]) / count
    for moved in probes[1:]:
        total = total.add_(read(moved), alpha=1 / count)
    return total


def _moved(matrix: Tensor, pixels: Sequence[float], maps: AffineMaps) -> Tensor:
    """The maps of the probes, (P, N, d, d + 1): the given ones, moved from probe to probe."""
    if max(maps.counts) == 1:
        return matrix[None]
    d = len(pixels)
    rows = []
    for place in product(*(range(count) for count in maps.counts)):
        away = [m - (count - 1) / 2 for m, count in zip(place, maps.counts, strict=True)]
        rows.append([along * pixel for along in away for pixel in pixels])
    moves = (table(rows, matrix).reshape(-1, 1, d, d) * maps.steps).sum(dim=-2)
    return matrix + F.pad(moves[..., None], (d, 0))


def by_groups(
    image: Tensor,
    matrix: Tensor,
    steps: Tensor,
    groups: dict[Ask, list[int]],
    read: Callable[[Tensor, AffineMaps], Any],
) -> Any:
    """``read`` for the samples that ask for the same, group by group; their values in the samples' order again."""
    if len(groups) == 1:
        ((counts, level),) = groups
        return read(image, AffineMaps(matrix, steps, counts, level))
    parts, order = [], []
    for (counts, level), samples in groups.items():
        index = torch.tensor(samples, device=image.device)
        some = image if image.shape[0] == 1 else image.index_select(0, index)
        parts.append(read(some, AffineMaps(matrix.index_select(0, index), steps.index_select(0, index), counts, level)))
        order += samples
    back = torch.tensor(sorted(range(len(order)), key=order.__getitem__), device=image.device)
    if isinstance(parts[0], Tensor):
        return torch.cat(parts).index_select(0, back)
    return tuple(torch.cat(column).index_select(0, back) for column in zip(*parts, strict=True))
