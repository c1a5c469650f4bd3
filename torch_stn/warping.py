"""warp(image, map, size): theta -> Map -> lowered form -> image, in one call.

The file is not called warp.py: the package would then have a module and a function of one name, and importing the first
would hide the second.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

from torch import Tensor

from torch_stn import _checks, lowered
from torch_stn.sampling.antialias import affine_columns
from torch_stn.sampling.footprints import read_footprints
from torch_stn.sampling.gradients import CoordinateGradient
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.read import MapPoints, read, sampling_dtype
from torch_stn.sampling.straight import straight
from torch_stn.transforms.maps import Map


@overload
def warp(
    image: Tensor,
    map: Map,
    size: Sequence[int] | None = None,
    *,
    mode: str | Interpolation = ...,
    padding_mode: str | Sequence[str] = ...,
    fill: float = ...,
    edge: str = ...,
    align_corners: bool = ...,
    antialias: bool | int = ...,
    return_mask: Literal[False] = ...,
    deterministic: bool = ...,
    backend: str | None = ...,
    coordinate_gradient: str | CoordinateGradient = ...,
) -> Tensor: ...
@overload
def warp(
    image: Tensor,
    map: Map,
    size: Sequence[int] | None = None,
    *,
    mode: str | Interpolation = ...,
    padding_mode: str | Sequence[str] = ...,
    fill: float = ...,
    edge: str = ...,
    align_corners: bool = ...,
    antialias: bool | int = ...,
    return_mask: Literal[True],
    deterministic: bool = ...,
    backend: str | None = ...,
    coordinate_gradient: str | CoordinateGradient = ...,
) -> tuple[Tensor, Tensor]: ...
def warp(
    image: Tensor,  # (N, C, W), (N, C, H, W) or (N, C, D, H, W)
    map: Map,
    size: Sequence[int] | None = None,  # (w,), (h, w) or (d, h, w)
    *,
    mode: str | Interpolation = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    fill: float = 0.0,
    edge: str = "blend",
    align_corners: bool = False,
    antialias: bool | int = False,
    return_mask: bool = False,
    deterministic: bool = True,
    backend: str | None = None,
    coordinate_gradient: str | CoordinateGradient = "exact",
) -> Tensor | tuple[Tensor, Tensor]:
    """Warp the image by a map: V(xy) = U(T_theta(xy)) at every pixel centre xy of an output of ``size``.

    Convention: theta maps output points to input points, in [-1, 1] (torch_stn.coordinates). Coordinates are the base
    pixel plus a displacement that is exactly zero at the identity. (The aten backend, which serves where there are no
    C++ kernels, passes them through [-1, 1]: in float32 up to 6e-8 n pixels off on an axis of n, and it steps back
    beyond 2,048; in float64 less than 1e-12.) A batch of one serves any batch.

    Args:
        map: what ``Affine()(theta)`` and its kin return, an inverse, a composition.
        size: of the output; None takes the image's.
        align_corners: whether -1 and 1 are pixel edges (False) or the centres of the border pixels (True).
        The others as :func:`torch_stn.sample`.
    Returns: (N, C, *size) in the image's dtype; with ``return_mask`` also the mask (N, 1, *size).
    Gradients: to image and theta (and what else the map was made from). A homography point behind the camera has none.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.
    Source: Jaderberg et al. 2015, section 3.

    Example:
        >>> import torch
        >>> from torch_stn import Affine
        >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> flip = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
        >>> warp(image, Affine()(flip)).tolist()
        [[[[1.0, 0.0], [3.0, 2.0]]]]
    """
    exact = isinstance(coordinate_gradient, str) and coordinate_gradient == "exact"
    plain = exact and antialias is False and return_mask is False and isinstance(edge, str) and edge == "blend"
    if plain and isinstance(image, Tensor) and isinstance(map, Map):
        options = (mode, padding_mode, fill, align_corners, deterministic, backend)
        way = straight(image, map.batch, map.device, map.dims, size, None, *options)
        if way is not None:
            out, through = way
            return through(image, map.lower(out, align_corners=align_corners))
    dims = _checks.image(image, whole=True)
    if not isinstance(map, Map):
        raise TypeError(f"map: wanted a Map, as a transform returns for theta, got {type(map).__name__}")
    if map.dims != dims:
        raise ValueError(f"map: wanted a {dims}-D map for image {_checks.describe(image)}, got a {map.dims}-D one")
    _checks.map_device(image, map.device)
    _checks.broadcast_batch("image", image.shape[0], "map", map.batch)
    in_size = tuple(image.shape[2:])
    size = in_size if size is None else _checks.size(size, dims, None)
    form = map.lower(size, align_corners=align_corners)
    points_of = partial(
        lowered.points_in,
        size=size,
        in_size=in_size,
        align_corners=align_corners,
        dtype=sampling_dtype(image),
        device=image.device,
    )
    serve = read
    if antialias is not False:
        jacobian = None
        if isinstance(form, lowered.Matrix) and not form.projective:
            matrix = form.matrix.to(sampling_dtype(image))
            jacobian = affine_columns(matrix, size, in_size, align_corners=align_corners)
        serve = partial(read_footprints, antialias=antialias, jacobian=jacobian)
    return serve(
        image,
        MapPoints(form, size, points_of),
        "pixel",
        out_size=size,
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
