"""What `sample` and `warp` call for ``antialias=True``: as `read`, but every pixel takes the mean of what it covers."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from torch_stn import _checks
from torch_stn.coordinates import to_normalized
from torch_stn.sampling.antialias import MOST, antialiased, columns
from torch_stn.sampling.interpolation import Interpolation, as_interpolation, name_of
from torch_stn.sampling.padding import EDGES, as_paddings
from torch_stn.sampling.read import PointsIn, read, sampling_dtype


def read_footprints(
    image: Tensor,
    points_in: PointsIn,
    units: str,
    *,
    antialias: bool | int,
    jacobian: Tensor | None,  # (N, *out or 1s, d, d), [..., j, i]: pixels along i per output pixel j; None: of the points
    out_size: Sequence[int] | None,
    mode: str | Interpolation,
    padding_mode: str | Sequence[str],
    fill: float,
    edge: str,
    align_corners: bool,
    return_mask: bool,
    deterministic: bool,
    backend: str | None,
) -> Tensor | tuple[Tensor, Tensor]:
    """(N, C, *out) in the image's dtype; with ``return_mask`` also the coverage (N, 1, *out)."""
    dims = image.dim() - 2
    most = _most(antialias, dims)
    if name_of(as_interpolation(mode)) != "bilinear":
        raise ValueError(f"antialias: wanted mode 'bilinear', the one whose footprint is known, got {mode!r}")
    if out_size is None:
        raise ValueError(f"antialias: wanted points (N, *out, {dims}), one a pixel of an output with {dims} axes")
    serve = partial(
        read, out_size=out_size, mode=mode, align_corners=align_corners, deterministic=deterministic, backend=backend
    )
    asked = partial(serve, padding_mode=padding_mode, fill=fill, edge=edge, return_mask=return_mask)

    def pixels(points: Tensor, size: Sequence[int], units: str) -> Tensor:
        return points if units == "pixel" else to_normalized(points, size, align_corners=align_corners)

    def read_image(points: Tensor) -> tuple[Tensor, Tensor | None]:
        found = asked(exact, partial(pixels, points, image.shape[2:]), "pixel")
        return (found[0], found[1]) if isinstance(found, tuple) else (found, None)

    def read_pyramid(cells: Tensor, points: Tensor) -> Tensor:
        # "normalized": for a mean over many pixels a float32 coordinate is exact enough at any size.
        found = serve(
            cells,
            partial(pixels, points, cells.shape[2:]),
            "normalized",
            padding_mode="border",
            fill=0.0,
            edge="blend",
            return_mask=False,
        )
        assert isinstance(found, Tensor)
        return found

    exact = image.to(sampling_dtype(image))
    points = points_in("pixel")
    found = antialiased(
        exact,
        points,
        columns(points) if jacobian is None else jacobian,
        most=most,
        padding=as_paddings(padding_mode, dims),
        fill=_checks.number("fill", fill),
        extend=_checks.one_of("edge", edge, EDGES) == "extend",
        align_corners=bool(align_corners),
        return_mask=return_mask,
        read_image=read_image,
        read_pyramid=read_pyramid,
    )
    if found is None:
        return asked(image, points_in, units)
    values, mask = found
    if mask is None:
        return values.to(image.dtype)
    return values.to(image.dtype), mask.to(image.dtype).expand(values.shape[0], *[-1] * (mask.dim() - 1))


def _most(antialias: bool | int, dims: int) -> int:
    """How many probes at most along one output axis."""
    if antialias is True:
        return MOST[dims]
    if isinstance(antialias, bool) or not isinstance(antialias, int) or antialias < 1:
        raise ValueError(f"antialias: wanted True, False or a number of probes >= 1, got {antialias!r}")
    return antialias
