"""What `sample` and `warp` call for ``antialias=True``: as `read`, but every pixel takes the mean of what it covers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.coordinates import half_extents, row_of, to_normalized
from torch_stn.sampling.affine_footprints import (
    AffineMaps,
    Serve,
    by_groups,
    groups_of,
    mean_of_image,
    mean_of_level,
    served,
)
from torch_stn.sampling.antialias import MOST, Extent, Footprint, columns, extent, footprint, offsets, rows
from torch_stn.sampling.choose import choose
from torch_stn.sampling.gradients import CoordinateGradient, ExactGradient, as_gradient
from torch_stn.sampling.interpolation import Interpolation, as_interpolation, name_of
from torch_stn.sampling.padding import PADDINGS, as_paddings
from torch_stn.sampling.problem import problem_of
from torch_stn.sampling.pyramid import Pyramid
from torch_stn.sampling.read import MapPoints, PointsIn, read, sampling_dtype

TOGETHER = 2**16  # points of a sample that are read in one call
Read = Callable[[PointsIn], Tensor]  # points in the units asked for, (N, *S, d) -> (N, C, *S)


@dataclass(frozen=True)
class _Call:
    """What all readings of one call share."""

    points_in: PointsIn
    units: str
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    foot: Footprint
    needs: Extent
    padding: tuple[str, ...]
    fill: float
    edge: str
    align_corners: bool
    serve: Serve
    affine: AffineMaps | None = None  # where all pixels ask for the same of an affine map


def read_footprints(
    image: Tensor,
    points_in: PointsIn,
    units: str,
    *,
    antialias: bool | int,
    jacobian: Tensor
    | None,  # (N, *out or 1s, d, d), [..., j, i]: pixels along i per output pixel j; None: of the points
    out_size: Sequence[int] | None,
    mode: str | Interpolation,
    padding_mode: str | Sequence[str],
    fill: float,
    edge: str,
    align_corners: bool,
    return_mask: bool,
    deterministic: bool,
    backend: str | None,
    coordinate_gradient: str | CoordinateGradient = "exact",
) -> Tensor | tuple[Tensor, Tensor]:
    """(N, C, *out) in the image's dtype; with ``return_mask`` also the coverage (N, 1, *out)."""
    _checks.floating("image", image)
    in_size, out = tuple(image.shape[2:]), out_size
    most = _most(antialias, len(in_size))
    if name_of(as_interpolation(mode)) != "bilinear":
        raise ValueError(f"antialias: wanted mode 'bilinear', the one whose footprint is known, got {mode!r}")
    if not isinstance(as_gradient(coordinate_gradient), ExactGradient):
        raise ValueError(f"coordinate_gradient: wanted 'exact' with antialias, got {coordinate_gradient!r}")
    if out is None:
        d = len(in_size)
        raise ValueError(f"antialias: wanted points (N, *out, {d}), one for each pixel of a {d}-D output")
    padding, fill = as_paddings(padding_mode, len(in_size)), _checks.number("fill", fill)
    problem = problem_of(
        image,
        in_size,
        as_interpolation(mode),
        padding_mode=padding,
        fill=fill,
        edge=edge,
        align_corners=align_corners,
        units=units,
        image_grad=image.requires_grad,
        deterministic=deterministic,
    )
    choose(problem, backend)  # a backend asked for by name refuses now, whatever the footprints turn out to be
    serve = partial(read, out_size=out, mode=mode, deterministic=deterministic)
    given, points_in = points_in, _Once(points_in)
    spanned = columns(points_in("pixel")) if jacobian is None else jacobian
    foot = None
    if image.numel() > 0 and spanned.numel() > 0:
        foot = footprint(spanned, in_size, most)
    how: dict[str, Any] = {"padding_mode": padding, "fill": fill, "edge": edge, "align_corners": bool(align_corners)}
    plain = partial(serve, units=units, return_mask=return_mask, backend=backend, **how)
    if foot is None:
        return plain(image, given)
    nothing = Extent([1] * len(in_size), (0, 0), alike=True)
    call = _Call(points_in, units, in_size, tuple(out), foot, nothing, padding, fill, edge, bool(align_corners), serve)
    means = partial(_means, return_mask=return_mask, backend=backend)
    if jacobian is not None and isinstance(given, MapPoints) and isinstance(given.form, lowered.Matrix):
        groups = groups_of(foot)
        if groups is not None and (served(padding, edge) or not any(level for _, level in groups)):
            matrix, steps = given.form.matrix.to(spanned.dtype), foot.steps.flatten(1, -3)[:, 0]
            return by_groups(image, matrix, steps, groups, partial(_affine, call, given, plain, means))
    needs = extent(foot, in_size, most)
    if needs.plain:
        # As they were given: a backend that reads through the map itself then does here what it does without antialias.
        return plain(image, given)
    return means(replace(call, needs=needs), image)


def _affine(
    call: _Call, given: MapPoints, plain: Callable[..., Any], means: Callable[..., Any], image: Tensor, maps: AffineMaps
) -> Any:
    """What `read_footprints` gives, for samples that all ask for the same of affine maps."""
    needs = Extent(list(maps.counts), (maps.level, maps.level), alike=True)
    if needs.plain:
        return plain(image, replace(given, form=lowered.Matrix(maps.matrix)))
    return means(replace(call, needs=needs, affine=maps), image)


def _means(call: _Call, image: Tensor, *, return_mask: bool, backend: str | None) -> Tensor | tuple[Tensor, Tensor]:
    """The means of the image, in its dtype; with ``return_mask`` also their coverage."""
    values = _values(call, image.to(sampling_dtype(image)), backend).to(image.dtype)
    if not return_mask:
        return values
    ones = torch.ones(1, 1, *call.in_size, dtype=sampling_dtype(image), device=image.device)
    edge = call.edge if "zeros" in call.padding else "blend"
    covered = replace(call, padding=("zeros",) * len(call.in_size), fill=0.0, edge=edge)
    mask = _values(covered, ones, None).clamp(0, 1).to(image.dtype)
    return values, mask.expand(values.shape[0], *[-1] * (mask.dim() - 1))


def _values(call: _Call, image: Tensor, backend: str | None) -> Tensor:
    """The means of the image, (N, C, *out)."""
    if call.needs.levels == (0, 0):
        how = {"padding_mode": call.padding, "fill": call.fill, "edge": call.edge, "align_corners": call.align_corners}
        if call.affine is not None:
            return mean_of_image(image, call.affine, call.out_size, call.serve, backend=backend, **how)
        return _mean(
            call, lambda points: call.serve(image, points, call.units, return_mask=False, backend=backend, **how)
        )
    values = _pyramid_mean(call, image, backend)
    if call.fill == 0.0:
        return values
    missing = 1 - _pyramid_mean(call, torch.ones_like(image[:1, :1]), None).clamp(0, 1)
    if not isfinite(call.fill):
        return torch.where(missing > 1e-6, call.fill, values)  # 0 * NaN would reach every point
    return values + call.fill * missing


def _pyramid_mean(call: _Call, picture: Tensor, backend: str | None) -> Tensor:
    """The means of a picture from its pyramid; beyond the image it is 0 where there is no rule."""
    if call.affine is not None:
        return mean_of_level(
            picture,
            call.affine,
            call.out_size,
            call.serve,
            padding=call.padding,
            align_corners=call.align_corners,
            backend=backend,
        )
    rules, extend = [PADDINGS[name] for name in call.padding], call.edge == "extend"
    pyramid = Pyramid(picture, call.needs.levels, rules, extend=extend, align_corners=call.align_corners)

    def read_cells(points_in: PointsIn) -> Tensor:
        # "normalized": for a mean over many pixels a float32 coordinate is exact enough at any size.
        how: dict[str, Any] = {"padding_mode": "border", "fill": 0.0, "edge": "blend", "align_corners": False}
        return call.serve(pyramid.cells, points_in, "normalized", return_mask=False, backend=backend, **how)

    return _mean(call, read_cells, pyramid)


def _mean(call: _Call, read: Read, pyramid: Pyramid | None = None) -> Tensor:
    """The weighted sum of the probes, read from the image or from its pyramid."""
    if call.needs.alike and (pyramid is None or pyramid.framed):
        return _mean_of_alike(call, read, pyramid)
    points, total = call.points_in("pixel"), None
    size = call.in_size if pyramid is None else pyramid.cells.shape[2:]
    align_corners = call.align_corners and pyramid is None
    finite = torch.isfinite(points).all(dim=-1)
    if pyramid is not None:
        points = torch.where(finite[..., None], points, 0.0)
    for where, weights in rows(points, call.foot, call.needs.counts):
        if pyramid is not None:
            weights = weights * pyramid.inside(where)
            where = pyramid.positions(where, call.foot.level[:, None])
        row = read(partial(_converted, where, size, align_corners))
        for i in range(row.shape[2]):
            counts = weights[:, None, i]
            # Selected, not multiplied by 0: what a probe without weight reads may be NaN or inf.
            values = torch.where(counts != 0, row[:, :, i], 0.0) * counts
            total = values if total is None else total + values
    assert total is not None
    return total if pyramid is None else torch.where(finite[:, None], total, 0.0)


def _mean_of_alike(call: _Call, read: Read, pyramid: Pyramid | None) -> Tensor:
    """The same where all pixels ask for the same probes on one level: one pass over the points for each probe."""

    def centres_and_steps(units: str) -> tuple[Tensor, Tensor]:
        points, steps = call.points_in(units), call.foot.steps
        if pyramid is not None:
            factors, summands, pixels = pyramid.places(units)
            points = torch.addcmul(row_of(summands, points), points, row_of(factors, points))
            return points, steps * row_of(pixels, steps)
        if units == "normalized":
            pixels = [1 / half if half else 0.0 for half in half_extents(call.in_size, call.align_corners)]
            steps = steps * row_of(pixels, steps)
        return points, steps

    def probes(some: Sequence[Sequence[int]], units: str) -> Tensor:
        points, steps = once(units)
        if len(places) == 1:
            return points[:, None]
        return points[:, None] + offsets(steps, call.needs.counts, some)

    once, total = _Once(centres_and_steps), None
    places = list(product(*(range(count) for count in call.needs.counts)))
    # Small outputs are read in one call, large ones probe by probe, in less memory.
    together, share = max(1, TOGETHER // prod(call.out_size)), 1 / len(places)
    for first in range(0, len(places), together):
        row = read(partial(probes, places[first : first + together]))
        values = row.sum(dim=2) if row.shape[2] > 1 else row[:, :, 0]
        total = values * share if total is None else total.add_(values, alpha=share)
    assert total is not None
    return total


class _Once:
    """A function of the units, called once for each; torch.compile ignores functools.cache, with a warning."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self.function = function
        self.found: dict[str, Any] = {}

    def __call__(self, units: str) -> Any:
        if units not in self.found:
            self.found[units] = self.function(units)
        return self.found[units]


def _converted(points: Tensor, size: Sequence[int], align_corners: bool, units: str) -> Tensor:
    return points if units == "pixel" else to_normalized(points, size, align_corners=align_corners)


def _most(antialias: bool | int, dims: int) -> int:
    """How many probes at most along one output axis."""
    if antialias is True:
        return MOST[dims]
    if isinstance(antialias, bool) or not isinstance(antialias, int) or antialias < 1:
        raise ValueError(f"antialias: wanted True, False or a number of probes >= 1, got {antialias!r}")
    return antialias
