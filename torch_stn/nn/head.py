"""The regression layer of a localisation net: features -> theta."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RegressionHead(nn.Linear):
    """A linear layer that is never computed below float32, under autocast or in a model of half precision: in bfloat16,
    theta would be off by pixels. Its parameters stay float32 when the model goes to half precision.

    Example:
        >>> RegressionHead(4, 6).bfloat16()(torch.zeros(2, 4, dtype=torch.bfloat16)).dtype
        torch.float32
    """

    start: Tensor | None  # theta before the first of several looks, (1, P)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            compute = torch.float64 if features.dtype == torch.float64 else torch.float32
            return F.linear(features.to(compute), self.weight.to(compute), self.bias.to(compute))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RegressionHead":
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            half = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if half and tensor.dtype not in (torch.float16, torch.bfloat16) else moved

        super()._apply(keep, recurse)
        return self
