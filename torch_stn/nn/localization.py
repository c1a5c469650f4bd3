"""The paper's localisation features: what the regression head of a transformer reads (A.4).

Both end before the regression layer; :class:`torch_stn.nn.SpatialTransformer` appends that itself.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.nn.one_channel import OneChannelConv


class LocalizationFC(nn.Module):
    """Three fully connected layers of 32 units, ReLU after each: (N, *in_shape) -> (N, 32).

    Args: ``in_shape`` (C, H, W) or (C, D, H, W); ``hidden`` the widths.
    Source: PAPER A.4, ST-FCN.

    Example:
        >>> LocalizationFC((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 32])
    """

    def __init__(self, in_shape: Sequence[int], hidden: Sequence[int] = (32, 32, 32)) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("hidden: wanted at least one layer width, got none")
        widths = [prod(in_shape), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out_features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # In bfloat16 torch 2.13 dies of a division by zero at 49,152 inputs, batches of 32 and one thread, say.
            with torch.autocast("cpu", enabled=False):
                return self._features(x.to(next(self.parameters()).dtype))
        return self._features(x)

    def _features(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class LocalizationConv(nn.Module):
    """Input halved, conv 5x5 - max-pool 2 - conv 5x5 - FC, ReLU after each: (N, *in_shape) -> (N, hidden).

    Args: ``in_shape`` (C, H, W) or (C, D, H, W), at least 28 pixels a side; ``filters`` of both convolutions;
    ``hidden`` the width of the fully connected layer; ``halve`` = False reads the input at full size.
    Raises: ValueError where the image is too small for the two convolutions.
    Source: PAPER A.4, ST-CNN. How the input is halved is not said there: by average pooling here.

    Example:
        >>> LocalizationConv((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 20])
    """

    def __init__(self, in_shape: Sequence[int], *, filters: int = 20, hidden: int = 20, halve: bool = True) -> None:
        super().__init__()
        dims = len(in_shape) - 1
        if dims not in (2, 3):
            raise ValueError(f"in_shape: wanted (C, H, W) or (C, D, H, W), got {tuple(in_shape)}")
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        sides = [((n // 2 if halve else n) - 4) // 2 - 4 for n in in_shape[1:]]
        if min(sides) < 1:
            raise ValueError(
                f"in_shape: wanted at least {28 if halve else 14} pixels a side, got {tuple(in_shape[1:])}"
            )
        self.halve = halve
        grey = dims == 2 and in_shape[0] == 1
        self.conv1 = OneChannelConv(filters, 5) if grey else conv(in_shape[0], filters, 5)
        self.conv2 = conv(filters, filters, 5)
        self.fc = nn.Linear(filters * prod(sides), hidden)
        self.out_features = hidden

    def forward(self, x: Tensor) -> Tensor:
        avg_pool, max_pool = (F.avg_pool2d, F.max_pool2d) if x.dim() == 4 else (F.avg_pool3d, F.max_pool3d)
        if self.halve:
            x = avg_pool(x, 2)
        x = F.relu(max_pool(self.conv1(x), 2))  # ReLU after pooling: the same values, a quarter of the work
        x = F.relu(self.conv2(x))
        return torch.relu(self.fc(x.flatten(1)))


def output_shape(net: nn.Module, in_shape: Sequence[int]) -> tuple[int, ...]:
    """What a net makes of one picture (C, H, W), without the batch: measured on zeros.

    Example:
        >>> output_shape(nn.Conv2d(1, 4, 3), (1, 8, 8))
        (4, 6, 6)
    """
    like = next(net.parameters(), torch.empty(0))
    # In eval mode, on a batch of one: batch statistics stay as they are, and so does who was frozen.
    were_training = [module for module in net.modules() if module.training]
    with torch.no_grad():
        shape = net.eval()(like.new_zeros(1, *in_shape)).shape[1:]
    for module in were_training:
        module.training = True
    return tuple(shape)
