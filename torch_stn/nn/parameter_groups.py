"""Parameter groups of an optimiser: the localisation nets apart from the rest."""

from typing import Any

from torch import nn

from torch_stn.nn.stn import SpatialTransformer


def parameter_groups(
    model: nn.Module, *, lr: float, localization_rate: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for any torch.optim optimiser: localisation nets learn at ``lr * localization_rate``.

    What a localisation net shares with the rest of the model learns at ``lr``. Biases, norms and regression heads do
    not decay: theta would be pulled off the identity. Parameters that need no gradient are left out.

    Args: localization_rate, in units of lr: from 0.1 (timid) to 3; 0 freezes the localisation nets.
    Returns: dicts with "params", "lr", "weight_decay", and "scale", the group's share of lr, for schedules of your own.
    Raises: ValueError for a rate or decay that is negative or not finite.

    Example:
        >>> import torch
        >>> from torch_stn import Affine, LocalizationFC
        >>> stn = SpatialTransformer(LocalizationFC((1, 28, 28)), Affine())
        >>> model = nn.Sequential(stn, nn.Flatten(), nn.Linear(784, 10))
        >>> optimizer = torch.optim.AdamW(parameter_groups(model, lr=1e-3, localization_rate=0.1))
        >>> sorted({group["lr"] for group in optimizer.param_groups})
        [0.0001, 0.001]
    """
    for name, value in (("lr", lr), ("localization_rate", localization_rate), ("weight_decay", weight_decay)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}: wanted a finite number >= 0, got {value!r}")
    inside, heads, elsewhere = _sort(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        scale = localization_rate if parameter in inside - elsewhere else 1.0
        decay = weight_decay if parameter.dim() > 1 and parameter not in heads else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": params, "lr": lr * scale, "scale": scale, "weight_decay": decay}
        for (scale, decay), params in groups.items()
    ]


def _sort(model: nn.Module) -> tuple[set[nn.Parameter], set[nn.Parameter], set[nn.Parameter]]:
    """Parameters inside transformers, those of their heads, and those of modules that are reached outside of one."""
    inside: set[nn.Parameter] = set()
    heads: set[nn.Parameter] = set()
    elsewhere: set[nn.Parameter] = set()
    todo = [model]
    while todo:
        module = todo.pop()
        if isinstance(module, SpatialTransformer):
            inside |= set(module.parameters())
            nested = [each for each in module.modules() if isinstance(each, SpatialTransformer)]
            heads |= {parameter for each in nested for parameter in each.head.parameters()}
        else:
            elsewhere |= set(module.parameters(recurse=False))
            todo += module.children()
    return inside, heads, elsewhere
