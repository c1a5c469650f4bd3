"""prepend: a transformer in front of any model, in one line."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from torch_stn.nn.localization import LocalizationConv, LocalizationFC, output_shape
from torch_stn.nn.stn import SpatialTransformer
from torch_stn.transforms import TRANSFORMS, Transform

LOOK = 56  # pixels a side that localisation looks at, at most twice as many
SMALLEST = 28  # pixels a side that LocalizationConv needs


class Prepended(nn.Module):
    """``model(transformer(x))``; what :func:`prepend` returns. Further arguments go to the model.

    Example:
        >>> from torch_stn import Affine
        >>> transformer = SpatialTransformer(LocalizationFC((1, 8, 8)), Affine())
        >>> Prepended(transformer, nn.Flatten())(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def __init__(self, transformer: SpatialTransformer, model: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.model = model

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.model(self.transformer(x), *args, **kwargs)


def prepend(
    model: nn.Module,
    transform: Transform | str,
    in_shape: Sequence[int],
    *,
    size: Sequence[int] | None = None,
    features: nn.Module | None = None,
    shared: nn.Module | None = None,
    **options: Any,
) -> Prepended:
    """Put a spatial transformer in front of any model: ``prepend(model, "affine", (3, 224, 224))``.

    It starts as the identity, so a trained model stays as good as it was (polar coordinates, which have none, start at
    the middle of the picture; ``init`` starts anywhere); where ``size`` is None it sees pictures of
    the size that it knows.

    Args:
        transform: an object, or its name on the command line ("affine", "tps", ...).
        in_shape: (C, H, W) or (C, D, H, W) of the pictures.
        size: of what the model sees; None: that of the pictures.
        features: what localises, any net that ends before the regression. None: LocalizationConv, on pictures averaged
            down to between 56 and 112 pixels a side where they are larger; LocalizationFC below 28.
        shared: the first layers of ``model``, which then localise too: ``features`` read what they make of the picture.
            They are applied to the picture and again to the warped picture, and learn from both. None: nothing is
            shared.
        options: as :class:`SpatialTransformer`: iterations, padding_mode, init ...
    Returns: a module with ``.transformer`` and ``.model``, on the device of the model and in its mode.
    Raises: TypeError / ValueError naming the argument, what came and what was wanted.
    Source: shared layers: Finnveden, Jansson and Lindeberg 2020.

    Example:
        >>> classifier = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(4608, 10))
        >>> model = prepend(classifier, "affine", (1, 28, 28))
        >>> model(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> both = prepend(classifier, "affine", (1, 28, 28), shared=classifier[:2], iterations=2)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: wanted an nn.Module, got {type(model).__name__}")
    shape = _shape(in_shape)
    if "count" in options:
        raise TypeError("count: several transformers side by side give (N, count, C, h, w), which no plain model takes")
    family = _family(transform, len(shape) - 1)
    like = next(model.parameters(), torch.empty(0))
    if shared is None:
        features = features or _features(shape)
    else:
        own = features or LocalizationFC(output_shape(_known(model, shared), shape))
        features = nn.Sequential(shared, own.to(like))
    transformer = SpatialTransformer(features.to(like), family, size, in_shape=shape, **options).to(like)
    if options.get("init") is None and family.has_identity:
        with torch.no_grad():  # not initial(), which may be a little off: the model knows its pictures as they are
            transformer.head.bias.copy_(family.identity().flatten())
    transformer.train(model.training)
    return Prepended(transformer, model)


def _shape(in_shape: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in in_shape)
    except (TypeError, ValueError):
        shape = ()
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ValueError(f"in_shape: wanted (C, H, W) or (C, D, H, W), each at least 1, got {in_shape!r}")
    return shape


def _family(transform: Transform | str, dims: int) -> Transform:
    """The family itself, or that of a name for pictures of ``dims`` axes."""
    if isinstance(transform, Transform):
        family = transform
    elif isinstance(transform, str) and transform in TRANSFORMS:
        family = TRANSFORMS[transform]()
        if family.dims != dims and "dims" in signature(type(family)).parameters:
            family = TRANSFORMS[transform](dims=dims)  # type: ignore[call-arg]
    elif isinstance(transform, str):
        raise ValueError(f"transform: wanted one of {', '.join(TRANSFORMS)}, or a Transform object, got {transform!r}")
    else:
        raise TypeError(f"transform: wanted a Transform object such as Affine(), or its name, got {transform!r}")
    if family.dims != dims:
        raise ValueError(f"transform: wanted a {dims}-D family for in_shape, got a {family.dims}-D one, {transform!r}")
    return family


def _features(shape: tuple[int, ...]) -> nn.Module:
    """Localisation features for pictures of any shape."""
    side = min(shape[1:])
    if side < SMALLEST:
        return LocalizationFC(shape)
    if side < 2 * LOOK:
        return LocalizationConv(shape)
    factor = side // LOOK
    average = nn.AvgPool2d(factor) if len(shape) == 3 else nn.AvgPool3d(factor)
    return nn.Sequential(average, LocalizationConv((shape[0], *(n // factor for n in shape[1:]))))


def _known(model: nn.Module, shared: nn.Module) -> nn.Module:
    """``shared`` itself, once it is certain that its parameters are the model's."""
    if not isinstance(shared, nn.Module):
        raise TypeError(f"shared: wanted layers of the model, got {type(shared).__name__}")
    strangers = set(shared.parameters()) - set(model.parameters())
    if strangers:
        raise ValueError(f"shared: wanted layers of the model, got {len(strangers)} parameters that it does not have")
    return shared
