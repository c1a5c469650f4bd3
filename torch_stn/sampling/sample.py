"""sample(image, points): the differentiable sampler (paper 3.3)."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

from torch import Tensor

from torch_stn import _checks
from torch_stn.coordinates import in_units
from torch_stn.sampling.footprints import read_footprints
from torch_stn.sampling.gradients import CoordinateGradient
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.read import read, sampling_dtype
from torch_stn.sampling.straight import straight


@overload
def sample(
    image: Tensor,
    points: Tensor,
    *,
    mode: str | Interpolation = ...,
    padding_mode: str | Sequence[str] = ...,
    fill: float = ...,
    edge: str = ...,
    align_corners: bool = ...,
    units: str = ...,
    antialias: bool | int = ...,
    return_mask: Literal[False] = ...,
    deterministic: bool = ...,
    backend: str | None = ...,
    coordinate_gradient: str | CoordinateGradient = ...,
) -> Tensor: ...
@overload
def sample(
    image: Tensor,
    points: Tensor,
    *,
    mode: str | Interpolation = ...,
    padding_mode: str | Sequence[str] = ...,
    fill: float = ...,
    edge: str = ...,
    align_corners: bool = ...,
    units: str = ...,
    antialias: bool | int = ...,
    return_mask: Literal[True],
    deterministic: bool = ...,
    backend: str | None = ...,
    coordinate_gradient: str | CoordinateGradient = ...,
) -> tuple[Tensor, Tensor]: ...
def sample(
    image: Tensor,  # (N, C, W), (N, C, H, W) or (N, C, D, H, W)
    points: Tensor,  # (N, *S, d), last axis (x[, y[, z]])
    *,
    mode: str | Interpolation = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    fill: float = 0.0,
    edge: str = "blend",
    align_corners: bool = False,
    units: str = "normalized",
    antialias: bool | int = False,
    return_mask: bool = False,
    deterministic: bool = True,
    backend: str | None = None,
    coordinate_gradient: str | CoordinateGradient = "exact",
) -> Tensor | tuple[Tensor, Tensor]:
    """Read the image at any points: V = sum_n sum_m U_nm k(x - m; Phi_x) k(y - n; Phi_y).

    Convention: a batch of one serves any batch, on either side, without copies. Coordinates and sums are float32 for
    half and single precision images and float64 for float64; the result has the image's dtype. An image of whole
    numbers (labels, indices, bools) is read under "nearest" alone, unrounded, at float32 coordinates. A point with a
    NaN or infinite coordinate reads ``fill``, has zero gradient and a mask of 0.

    Args:
        mode: a name of torch_stn.sampling.interpolation (its list of kernels: "nearest", "bilinear", "bicubic",
            "catmull-rom", "bspline0" to "bspline7", "lanczos3", "area", ...; "bilinear" and "bicubic" are separable
            and serve every dimension), or an Interpolation of one's own.
        padding_mode: "zeros", "border", "reflection", "symmetric", "mirror" or "wrap" (drawn in
            torch_stn.sampling.padding), or one of them per axis, (x, y[, z]).
        fill: what taps outside the image read under "zeros"; NaN or inf marks every point that feels the outside.
        edge: under "zeros", "blend" the border pixels into the fill, as F.grid_sample, or "extend" them by half a pixel
            and read the fill alone beyond.
        align_corners: what -1 and 1 mean, see torch_stn.coordinates.
        units: "normalized" [-1, 1], "pixel", or "displacement": pixels counted from where the identity reads, for
            points (N, *out, d).
        antialias: True reads the mean over what each pixel of the output covers (docs/antialiasing.md), for points
            (N, *out, d) and "bilinear"; a number allows that many probes along an axis (True: 8, in 3-D 3).
        return_mask: also return the share of the kernel that fell inside the image, (N, 1, *S) in [0, 1].
        deterministic: same inputs, same bits, gradients too.
        backend: None chooses; a name takes that one or raises with its reason.
        coordinate_gradient: "exact", or one that sees farther, with the same values and image gradients:
            "linearized", "coarse-to-fine", or a CoordinateGradient such as ``LinearizedGradient(radius=3)``.
    Returns: (N, C, *S), a new tensor; with ``return_mask`` also the mask.
    Gradients: to image, points and the parameters of ``mode``; at integer coordinates the right-hand slope, as
    F.grid_sample.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.
    Source: Jaderberg et al. 2015, equations 3 to 7.

    Example:
        >>> import torch
        >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> sample(image, torch.tensor([[[0.0, 0.0]]])).tolist()
        [[[1.5]]]
        >>> sample(image, torch.tensor([[[1.0, 0.0]]]), units="pixel").tolist()
        [[[1.0]]]
    """
    exact = isinstance(coordinate_gradient, str) and coordinate_gradient == "exact"
    plain = exact and antialias is False and return_mask is False and isinstance(edge, str) and edge == "blend"
    if plain and isinstance(image, Tensor) and isinstance(points, Tensor) and points.is_floating_point():
        shape, options = points.shape, (mode, padding_mode, fill, align_corners, deterministic, backend)
        if len(shape) > 1 and isinstance(units, str):
            way = straight(image, shape[0], points.device, shape[-1], shape[1:-1], units, *options)
            if way is not None:
                return way[1](image, points)
    dims = _checks.image(image, whole=True)
    _checks.points(points, dims, image=image)
    _checks.same_device("image", image, "points", points)
    _checks.units(units, points, dims)
    _checks.broadcast_batch("image", image.shape[0], "points", points.shape[0])
    in_size = tuple(image.shape[2:])

    def points_in(wanted: str) -> Tensor:
        given = points.to(sampling_dtype(image))
        return in_units(given, units, wanted, in_size, align_corners=align_corners)

    serve = read
    if antialias is not False:
        serve = partial(read_footprints, antialias=antialias, jacobian=None)
    return serve(
        image,
        points_in,
        "normalized" if units == "normalized" else "pixel",
        out_size=tuple(points.shape[1:-1]) if points.dim() == dims + 2 else None,
        mode=mode,
        padding_mode=padding_mode,
        fill=fill,
        edge=edge,
        align_corners=align_corners,
        return_mask=return_mask,
        deterministic=deterministic,
        backend=backend,
        coordinate_gradient=coordinate_gradient,
    )
