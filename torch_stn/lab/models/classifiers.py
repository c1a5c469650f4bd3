"""The paper's classifiers (A.4): FCN and CNN, and the CNN with batch norm that an honest table shows beside them."""

import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.nn.one_channel import OneChannelConv

CLASSES = 10
FCN_BUDGET = 400_000  # parameters, of the whole network (PAPER: "about 400k")
FCN_UNITS = 256  # at most
CNN_FILTERS = 64  # at most; 400k would need 88, which the paper's "32 to 64" excludes


class FCN(nn.Module):
    """Two hidden layers of ``units``, then the class scores: (N, 1, side, side) -> (N, 10)."""

    def __init__(self, side: int, units: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(side * side, units)
        self.fc2 = nn.Linear(units, units)
        self.scores = nn.Linear(units, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x.flatten(1)))
        return self.scores(F.relu(self.fc2(x)))


def fcn_units(side: int, spent: int = 0) -> int:
    """The widest FCN, in steps of 8 units and up to 256, that keeps the whole network at 400k parameters or below."""
    units = FCN_UNITS
    while units > 8 and spent + side * side * units + units * units + 12 * units + 10 > FCN_BUDGET:
        units -= 8
    return units


class CNN(nn.Module):
    """conv 9x9 - pool 2 - conv 7x7 - pool 2 - class scores: (N, 1, side, side) -> (N, 10).

    Pooling windows in ceil mode, so that the 21 pixels left of RTS after its average pooling fit. ``batch_norm`` after
    each convolution makes it the stronger baseline.
    """

    def __init__(self, side: int, filters: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.conv1 = OneChannelConv(filters, 9)
        self.conv2 = nn.Conv2d(filters, filters, 7)
        self.norm1 = nn.BatchNorm2d(filters) if batch_norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(filters) if batch_norm else nn.Identity()
        left = -(-(-(-(side - 8) // 2) - 6) // 2)
        self.scores = nn.Linear(filters * left * left, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        # Pooling before ReLU: the same values, a quarter of the work.
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(x)), 2, ceil_mode=True))
        x = F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2, ceil_mode=True))
        return self.scores(x.flatten(1))
