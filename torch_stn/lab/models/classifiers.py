"""The paper's classifiers (A.4): FCN and CNN, and the CNN with batch norm that an honest table shows beside them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.nn.one_channel import OneChannelConv

FCN_BUDGET = 400_000  # parameters, of the whole network (PAPER: "about 400k")
FCN_UNITS = 256  # at most
CNN_FILTERS = 64  # at most; 400k would need 88, which the paper's "32 to 64" excludes
CNN_LAYERS = ((9, 2), (7, 2))  # kernel, pooling


class FCN(nn.Module):
    """Two hidden layers of ``units``, then the class scores: (N, ...) of ``inputs`` numbers -> (N, classes).

    ``extra``: how many numbers of theta stand beside the last hidden layer, when a transformer feeds it forward.
    """

    def __init__(self, inputs: int, units: int, classes: int = 10, *, extra: int = 0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, units)
        self.fc2 = nn.Linear(units, units)
        self.scores = nn.Linear(units + extra, classes)

    def forward(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        x = F.relu(self.fc1(x.flatten(1)))
        return self.scores(_beside(F.relu(self.fc2(x)), theta))


def fcn_units(inputs: int, spent: int = 0, classes: int = 10) -> int:
    """The widest FCN, in steps of 8 units and up to 256, that keeps the whole network at 400k parameters or below."""
    units = FCN_UNITS
    while units > 8 and spent + inputs * units + units * units + (2 + classes) * units + classes > FCN_BUDGET:
        units -= 8
    return units


class ConvLayer(nn.Module):
    """Convolution without padding, batch norm where asked for, max-pooling, ReLU.

    Pooling windows in ceil mode, so that the 21 pixels left of RTS after its average pooling fit.
    """

    def __init__(self, channels: int, filters: int, kernel: int, pool: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.conv = OneChannelConv(filters, kernel) if channels == 1 else nn.Conv2d(channels, filters, kernel)
        self.norm = nn.BatchNorm2d(filters) if batch_norm else nn.Identity()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        # Pooling before ReLU: the same values, a quarter of the work.
        return F.relu(F.max_pool2d(self.norm(self.conv(x)), self.pool, ceil_mode=True))


class CNN(nn.Module):
    """conv 9x9 - pool 2 - conv 7x7 - pool 2 - class scores: (N, C, side, side) -> (N, classes).

    Pictures of several transformers, (N, count, C, side, side), are taken as ``channels`` = count * C channels.
    ``batch_norm`` after each convolution makes it the stronger baseline. ``extra``: as in FCN.
    """

    def __init__(
        self,
        side: int,
        filters: int,
        *,
        channels: int = 1,
        classes: int = 10,
        batch_norm: bool = False,
        extra: int = 0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for kernel, pool in CNN_LAYERS:
            self.layers.append(ConvLayer(channels, filters, kernel, pool, batch_norm=batch_norm))
            channels, side = filters, -(-(side - kernel + 1) // pool)
        self.scores = nn.Linear(filters * side * side + extra, classes)

    def forward(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        x = x.flatten(1, -3)
        for layer in self.layers:
            x = layer(x)
        return self.scores(_beside(x.flatten(1), theta))

    def cut(self, layer: int) -> nn.Sequential:
        """Take the first layers away, as a module of their own; the rest goes on from what they make."""
        first = nn.Sequential(*self.layers[:layer])
        self.layers = self.layers[layer:]
        return first


def _beside(features: Tensor, theta: Tensor | None) -> Tensor:
    return features if theta is None else torch.cat([features, theta.flatten(1).to(features.dtype)], dim=1)
