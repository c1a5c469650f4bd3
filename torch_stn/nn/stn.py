"""SpatialTransformer: localisation, grid and sampler in one module (the paper's Figure 2)."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Literal, overload

import torch
from torch import Tensor, nn

from torch_stn import _checks
from torch_stn.coordinates import to_pixel
from torch_stn.nn.head import RegressionHead
from torch_stn.nn.localization import output_shape
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.read import check_options
from torch_stn.transforms.base import Transform
from torch_stn.transforms.boxes import map_boxes
from torch_stn.transforms.maps import Map
from torch_stn.transforms.matrix import MatrixMap
from torch_stn.warping import warp


class SpatialTransformer(nn.Module):
    """Looks where it must: V = U(T_theta(G)) with theta = head(features(U)). It needs no labels of its own.

    It stands at any layer, any number of times: on images, feature maps and volumes; in series as modules in a row, in
    parallel with ``count``. The regression head is appended here, with zero weights and the transform's starting theta
    as bias, so that whatever ``features`` are, the module starts as ``transform.initial()``: the identity where
    there is one, for splines a little off it. The head runs in float32 with autocast off: in bfloat16, theta would be
    off by pixels.

    With ``iterations`` = n > 1 it is an inverse-compositional transformer: the same features and head look n times,
    each time at the picture as warped so far, and say what is still to be done; the maps compose, T = T_1 o T_2 o ...
    o T_n, and each warp reads the original image, once. So nothing blurs, and what one look cut off comes back.

    Args:
        features: any module (N, C, H, W) -> (N, ...) that ends before the regression; flattened.
        transform: the family of maps, an object: ``Affine()``, ``ThinPlateSpline(4)``, one of your own.
        size: (h, w) or (d, h, w) of the output; None takes the source's.
        in_shape: (C, H, W) of what is localised on; needed only where ``features`` has no ``out_features`` of its own,
            which is then measured on zeros, once, here.
        count: how many transformers look at the input side by side, sharing the features.
        iterations: how often one transformer looks; not together with ``count``. A source of another size is localised
            on through ``x`` alone.
        init: where theta starts, (P,), the natural shape, or with a leading ``count``; None asks
            ``transform.initial()``. With ``iterations`` it is the map before the first look.
        mode, padding_mode, fill, edge, align_corners, antialias, backend: as :func:`torch_stn.warp`.
    Raises: ValueError / TypeError naming the argument, what came and what was wanted.
    Source: Jaderberg et al. 2015, section 3 and Figure 2; iterations: Lin and Lucey 2017.

    Example:
        >>> from torch_stn import Affine, LocalizationFC
        >>> stn = SpatialTransformer(LocalizationFC((1, 28, 28)), Affine(), (14, 14))
        >>> stn(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 1, 14, 14])
    """

    def __init__(
        self,
        features: nn.Module,
        transform: Transform,
        size: Sequence[int] | None = None,
        *,
        in_shape: Sequence[int] | None = None,
        count: int = 1,
        iterations: int = 1,
        init: Tensor | None = None,
        mode: str | Interpolation = "bilinear",
        padding_mode: str | Sequence[str] = "zeros",
        fill: float = 0.0,
        edge: str = "blend",
        align_corners: bool = False,
        antialias: bool | int = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(transform, Transform):
            raise TypeError(f"transform: wanted a Transform object such as Affine(), got {transform!r}")
        if count < 1:
            raise ValueError(f"count: wanted at least 1, got {count}")
        if iterations < 1 or (iterations > 1 and count > 1):
            raise ValueError(f"iterations: wanted at least 1, and 1 with count > 1, got {iterations} and count={count}")
        if iterations > 1 and not transform.has_identity:
            family = type(transform).__name__
            raise ValueError(f"iterations: wanted 1, since {family} has no identity, got {iterations}")
        check_options(mode, padding_mode, edge, transform.dims, backend)
        self.features = features
        self.transform = transform
        self.size = None if size is None else _checks.size(size, transform.dims, None)
        self.count = count
        self.iterations = iterations
        self.mode = mode
        self.padding_mode = padding_mode
        self.fill = fill
        self.edge = edge
        self.align_corners = align_corners
        self.antialias = antialias
        self.backend = backend
        self.head = RegressionHead(_out_features(features, in_shape), count * transform.num_params)
        start = _start(transform, count, init)
        before = iterations > 1 and init is not None
        # In the head, which keeps what it holds in float32; a constant like those of transforms: not in checkpoints.
        self.head.register_buffer("start", start[None] if before else None, persistent=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(_start(transform, 1, None) if before else start)

    def extra_repr(self) -> str:
        parallel = f", count={self.count}" if self.count > 1 else ""
        repeated = f", iterations={self.iterations}" if self.iterations > 1 else ""
        return f"size={self.size}{parallel}{repeated}, mode={self.mode!r}, padding_mode={self.padding_mode!r}"

    def theta(self, x: Tensor) -> Tensor:
        """theta of what is localised on, never below float32: (N, P), (N, count, P) for count > 1, and for iterations >
        1 (N, iterations, P), that of each look.
        """
        theta = self._look(x)
        if self.iterations == 1:
            return theta if self.count == 1 else theta.unflatten(1, (self.count, -1))
        looks = [theta]
        for _ in range(self.iterations - 1):
            so_far = self._compose(looks)
            looks.append(self._look(self._warp(x, so_far, tuple(x.shape[2:]))))
        return torch.stack(looks, dim=1)

    def maps(self, theta: Tensor) -> tuple[Map, ...]:
        """The map of each of the ``count`` transformers, at a theta of :meth:`theta`; that of all iterations is one."""
        if self.iterations > 1:
            return (self._compose(theta.unbind(1)),)
        return tuple(self.transform(each) for each in (theta.unbind(1) if self.count > 1 else [theta]))

    def boxes(self, theta: Tensor, in_size: Sequence[int]) -> Tensor:
        """The crop each transformer looks at: the tight box around its sampling frame, in pixels of an input of
        ``in_size``, (N, 2 d), for count > 1 (N, count, 2 d): x_min, y_min, x_max, y_max. Pixel centres count from 0:
        all of an image is (-0.5, -0.5, W - 0.5, H - 0.5). Gradients flow to theta.
        """
        size = _checks.size(in_size, self.transform.dims, None)
        whole = theta.new_tensor([-1.0] * len(size) + [1.0] * len(size))[None, None]
        found = []
        for each in self.maps(theta):
            affine = isinstance(each, MatrixMap) and each.matrix.shape[1] == each.dims
            found.append(map_boxes(each.sources, whole, each.dims, affine=affine))
        boxes = torch.cat(found, dim=1)
        corners = to_pixel(boxes.unflatten(-1, (2, -1)), size, align_corners=self.align_corners).flatten(-2)
        return corners if self.count > 1 else corners[:, 0]

    @overload
    def forward(self, x: Tensor, source: Tensor | None = None, *, return_theta: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, source: Tensor | None = None, *, return_theta: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
        source: Tensor | None = None,
        *,
        return_theta: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Localise on ``x``, read from ``source`` (a high-resolution image, a mask; None: from x itself).

        Returns: (N, C, *size), for count > 1 (N, count, C, *size); with ``return_theta`` also theta, for later layers.
        With ``iterations``, what is localised on is x as warped so far, in its own size.
        """
        theta = self.theta(x)
        image = x if source is None else source
        warped = self.read(image, theta)
        return (warped, theta) if return_theta else warped

    def read(self, image: Tensor, theta: Tensor) -> Tensor:
        """Warp an image by thetas of :meth:`theta`."""
        warped = [self._warp(image, each, self.size) for each in self.maps(theta)]
        return torch.stack(warped, dim=1) if self.count > 1 else warped[0]

    def _look(self, x: Tensor) -> Tensor:
        """theta of one look: (N, count * P)."""
        return self.head(self.features(x).flatten(1))

    def _compose(self, looks: Sequence[Tensor]) -> Map:
        """The map of some looks: each acts on the picture as the ones before have warped it."""
        start = [] if self.head.start is None else [self.head.start]
        first, *later = [self.transform(theta) for theta in (*start, *looks)]
        return reduce(lambda done, more: done.then(more), later, first)

    def _warp(self, image: Tensor, map: Map, size: Sequence[int] | None) -> Tensor:
        return warp(
            image,
            map,
            size,
            mode=self.mode,
            padding_mode=self.padding_mode,
            fill=self.fill,
            edge=self.edge,
            align_corners=self.align_corners,
            antialias=self.antialias,
            backend=self.backend,
        )


def _out_features(features: nn.Module, in_shape: Sequence[int] | None) -> int:
    """How many numbers the features give for one image."""
    known = getattr(features, "out_features", None)
    if isinstance(known, int):
        return known
    if in_shape is None:
        raise ValueError(f"in_shape: wanted (C, H, W), since {type(features).__name__} has no out_features, got None")
    return prod(output_shape(features, in_shape))


def _start(transform: Transform, count: int, init: Tensor | None) -> Tensor:
    """The bias of the head: (count * P,)."""
    start = transform.initial() if init is None else _checks.tensor("init", init)
    if start.numel() == transform.num_params:
        return start.detach().reshape(-1).repeat(count)
    if start.numel() == count * transform.num_params:
        return start.detach().reshape(-1)
    wanted = f"{transform.num_params} numbers, or {count} times as many"
    raise ValueError(f"init: wanted {wanted}, got {_checks.describe(start)}")
