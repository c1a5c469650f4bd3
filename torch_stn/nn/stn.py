"""SpatialTransformer: localisation, grid and sampler in one module (the paper's Figure 2)."""

from collections.abc import Callable, Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn import _checks
from torch_stn.sampling.interpolation import Interpolation
from torch_stn.sampling.read import check_options
from torch_stn.transforms.base import Transform
from torch_stn.warping import warp


class SpatialTransformer(nn.Module):
    """Looks where it must: V = U(T_theta(G)) with theta = head(features(U)). It needs no labels of its own.

    It stands at any layer, any number of times: on images, feature maps and volumes; in series as modules in a row, in
    parallel with ``count``. The regression head is appended here, with zero weights and the transform's starting theta
    as bias, so that whatever ``features`` are, the module starts as the identity. The head runs in float32 with
    autocast off: in bfloat16, theta would be off by pixels.

    Args:
        features: any module (N, C, H, W) -> (N, ...) that ends before the regression; flattened.
        transform: the family of maps, an object: ``Affine()``, ``ThinPlateSpline(4)``, one of your own.
        size: (h, w) or (d, h, w) of the output; None takes the source's.
        in_shape: (C, H, W) of what is localised on; needed only where ``features`` has no ``out_features`` of its own,
            which is then
            measured on zeros, once, here.
        count: how many transformers look at the input side by side, sharing the features.
        init: where theta starts, (P,), the natural shape, or with a leading ``count``; None asks
            ``transform.initial()``.
        mode, padding_mode, fill, edge, align_corners, backend: as :func:`torch_stn.sample`.
    Raises: ValueError / TypeError naming the argument, what came and what was wanted.
    Source: Jaderberg et al. 2015, section 3 and Figure 2.

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
        init: Tensor | None = None,
        mode: str | Interpolation = "bilinear",
        padding_mode: str | Sequence[str] = "zeros",
        fill: float = 0.0,
        edge: str = "blend",
        align_corners: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(transform, Transform):
            raise TypeError(f"transform: wanted a Transform object such as Affine(), got {transform!r}")
        if count < 1:
            raise ValueError(f"count: wanted at least 1, got {count}")
        check_options(mode, padding_mode, edge, transform.dims, backend)
        self.features = features
        self.transform = transform
        self.size = None if size is None else _checks.size(size, transform.dims, None)
        self.count = count
        self.mode = mode
        self.padding_mode = padding_mode
        self.fill = fill
        self.edge = edge
        self.align_corners = align_corners
        self.backend = backend
        self.head = RegressionHead(_out_features(features, in_shape), count * transform.num_params)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(_start(transform, count, init))

    def extra_repr(self) -> str:
        parallel = f", count={self.count}" if self.count > 1 else ""
        return f"size={self.size}{parallel}, mode={self.mode!r}, padding_mode={self.padding_mode!r}"

    def theta(self, x: Tensor) -> Tensor:
        """theta of what is localised on: (N, P), or (N, count, P) for count > 1; never below float32."""
        features = self.features(x).flatten(1)
        with torch.autocast(x.device.type, enabled=False):
            compute = torch.float64 if features.dtype == torch.float64 else torch.float32
            weight, bias = self.head.weight.to(compute), self.head.bias.to(compute)
            theta = F.linear(features.to(compute), weight, bias)
        return theta if self.count == 1 else theta.unflatten(1, (self.count, -1))

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
        """
        theta = self.theta(x)
        image = x if source is None else source
        warped = self.read(image, theta)
        return (warped, theta) if return_theta else warped

    def read(self, image: Tensor, theta: Tensor) -> Tensor:
        """Warp an image by thetas of :meth:`theta`."""
        if self.count > 1:
            return torch.stack([self._warp(image, each) for each in theta.unbind(1)], dim=1)
        return self._warp(image, theta)

    def _warp(self, image: Tensor, theta: Tensor) -> Tensor:
        return warp(
            image,
            self.transform(theta),
            self.size,
            mode=self.mode,
            padding_mode=self.padding_mode,
            fill=self.fill,
            edge=self.edge,
            align_corners=self.align_corners,
            backend=self.backend,
        )


def _out_features(features: nn.Module, in_shape: Sequence[int] | None) -> int:
    """How many numbers the features give for one image."""
    known = getattr(features, "out_features", None)
    if isinstance(known, int):
        return known
    if in_shape is None:
        raise ValueError(f"in_shape: wanted (C, H, W), since {type(features).__name__} has no out_features, got None")
    parameter = next(features.parameters(), None)
    like = parameter if parameter is not None else torch.empty(0)
    # In eval mode, on a batch of one: batch statistics stay as they are, and so does who was frozen.
    were_training = [module for module in features.modules() if module.training]
    with torch.no_grad():
        width = features.eval()(like.new_zeros(1, *in_shape)).numel()
    for module in were_training:
        module.training = True
    return width


class RegressionHead(nn.Linear):
    """The regression layer; its parameters stay float32 when the model goes to half precision."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RegressionHead":
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            half = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if half and tensor.dtype not in (torch.float16, torch.bfloat16) else moved

        super()._apply(keep, recurse)
        return self


def _start(transform: Transform, count: int, init: Tensor | None) -> Tensor:
    """The bias of the head: (count * P,)."""
    start = transform.initial() if init is None else init
    if start.numel() == transform.num_params:
        return start.detach().reshape(-1).repeat(count)
    if start.numel() == count * transform.num_params:
        return start.detach().reshape(-1)
    wanted = f"{transform.num_params} numbers, or {count} times as many"
    raise ValueError(f"init: wanted {wanted}, got {_checks.describe(start)}")
