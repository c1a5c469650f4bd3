"""Boxes over [-1, 1]^d cut into simplices, for fields that are affine on each: intervals, triangles, tetrahedra.

A line of boxes in 1-D; in 2-D each box has its centre and four triangles; in 3-D six tetrahedra around its diagonal
(Kuhn), which meet those of the next box. A ring of far boxes around them carries the field on beyond [-1, 1], with the
value of the nearest border point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import factorial

import torch
from torch import Tensor

_FAR = 9.0  # where the outer ring ends; the field does not depend on it


@dataclass(frozen=True)
class Tessellation:
    """The constants of a tessellation with V vertices and C simplices (outer ring included), float64."""

    vertices: Tensor  # (V, d): those on which a field may be prescribed
    extension: Tensor  # (V', V): velocity at the vertices and at those of the outer ring
    simplices: Tensor  # (C, d + 1): rows of `extension`
    barycentric: Tensor  # (C, d + 1, d + 1): barycentric coordinates = matrix (x, y[, z], 1)
    neighbours: Tensor  # (C, d + 1): the simplex beyond the face where coordinate i is 0; -1: none
    inner: Tensor  # (C,): inside [-1, 1]^d

    @classmethod
    def of_boxes(cls, boxes: Sequence[int]) -> "Tessellation":
        """Of ``boxes`` boxes along x, y[, z]."""
        d = len(boxes)
        axes = [[-_FAR, *torch.linspace(-1, 1, n + 1, dtype=torch.float64).tolist(), _FAR] for n in boxes]
        nodes = {index: row for row, index in enumerate(product(*(range(n + 3) for n in boxes)))}
        positions = [[axes[k][i] for k, i in enumerate(index)] for index in nodes]
        corners = list(product(*(range(1, n + 2) for n in boxes)))
        inside = {index: row for row, index in enumerate(corners)}
        clamped = [inside[tuple(min(max(i, 1), n + 1) for i, n in zip(index, boxes, strict=True))] for index in nodes]
        extension = torch.eye(len(corners), dtype=torch.float64)[clamped]
        vertices = [positions[nodes[index]] for index in corners]
        simplices, inner = [], []
        for box in product(*(range(n + 2) for n in boxes)):
            here = all(0 < i <= n for i, n in zip(box, boxes, strict=True))
            if d == 2:
                extension, centre = _centre(extension, [nodes[c] for c in _corners(box)], vertices, positions, here)
                simplices += [[nodes[a], nodes[b], centre] for a, b in _sides(box)]
            else:
                simplices += [[nodes[c] for c in path] for path in _paths(box)]
            inner += [here] * (4 if d == 2 else factorial(d))
        table = torch.tensor(simplices)
        points = torch.tensor(positions, dtype=torch.float64)[table]  # (C, d + 1, d)
        homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
        return cls(
            vertices=torch.tensor(vertices, dtype=torch.float64),
            extension=extension,
            simplices=table,
            barycentric=torch.linalg.inv(homogeneous.mT),
            neighbours=_neighbours(simplices),
            inner=torch.tensor(inner),
        )


def locate(
    xy: Tensor,  # (..., d)
    boxes: Sequence[int],
) -> Tensor:  # (...), int64
    """The simplex that holds each point; on a face, one of the two."""
    d = len(boxes)
    box, fractions = torch.zeros(xy.shape[:-1], dtype=torch.long, device=xy.device), []
    for axis, count in enumerate(boxes):
        at = xy[..., axis].detach().nan_to_num(0.0)
        position = (at + 1) * (count / 2)
        index = (position.floor() + 1).clamp(0, count + 1)
        far = (_FAR - 1) * (count / 2)  # the width of an outer box, in boxes
        start = torch.where(index == 0, -far, index - 1)
        width = torch.where((index == 0) | (index == count + 1), far, 1.0)
        fractions.append((position - start) / width)
        box = box * (count + 2) + index.long()
    if d == 2:
        a, b = fractions[0] - 0.5, fractions[1] - 0.5
        return box * 4 + torch.where(a.abs() >= b.abs(), (a > 0).long(), 2 + (b > 0).long())
    if d == 1:
        return box
    first, second, third = torch.stack(fractions, dim=-1).argsort(dim=-1, descending=True).unbind(-1)
    return box * 6 + 2 * first + (second > third).long()  # as permutations() counts


def _corners(box: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [tuple(i + step for i, step in zip(box, steps, strict=True)) for steps in product((0, 1), repeat=len(box))]


def _sides(box: tuple[int, ...]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The left, right, lower and upper side of a square, as :func:`locate` counts them."""
    x, y = box
    return [((x, y), (x, y + 1)), ((x + 1, y), (x + 1, y + 1)), ((x, y), (x + 1, y)), ((x, y + 1), (x + 1, y + 1))]


def _paths(box: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
    """The corners of each simplex of a Kuhn cube: from one end of its diagonal to the other, an axis at a time."""
    paths = []
    for order in permutations(range(len(box))):
        path = [box]
        for axis in order:
            path.append(tuple(i + (k == axis) for k, i in enumerate(path[-1])))
        paths.append(path)
    return paths


def _centre(
    extension: Tensor, corners: list[int], vertices: list[list[float]], positions: list[list[float]], here: bool
) -> tuple[Tensor, int]:
    """Adds a box's centre: a vertex of its own, or, in the outer ring, the mean of the corners."""
    x = [sum(positions[c][k] for c in corners) / len(corners) for k in range(2)]
    positions.append(x)
    row = extension[corners].mean(dim=0)
    if here:
        vertices.append(x)
        extension = torch.nn.functional.pad(extension, (0, 1))
        row = torch.zeros(extension.shape[1], dtype=torch.float64)
        row[-1] = 1
    return torch.cat([extension, row[None]]), len(positions) - 1


def _neighbours(simplices: list[list[int]]) -> Tensor:
    faces: dict[frozenset[int], list[tuple[int, int]]] = {}
    for cell, corners in enumerate(simplices):
        for i in range(len(corners)):
            faces.setdefault(frozenset(corners) - {corners[i]}, []).append((cell, i))
    table = torch.full((len(simplices), len(simplices[0])), -1)
    for sides in faces.values():
        if len(sides) == 2:
            (a, i), (b, j) = sides
            table[a, i], table[b, j] = b, a
    return table
