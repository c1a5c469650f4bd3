"""The small networks that inverse-compositional transformers were shown with: what a classifier cannot hold, alignment
must do.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.nn.localization import output_shape

FILTERS = (6, 12, 24)
LOOKING_FILTERS = (6, 24)
UNITS = 200
KERNEL = 7


class LinLucey(nn.Module):
    """Features of a picture (C, H, W), ReLU after each layer: (N, C, H, W) -> (N, out_features).

    ``lin-lucey``, behind a transformer: conv7[6]-conv7[12]-max. ``lin-lucey-cnn``, the net without one, is deeper:
    conv7[6]-conv7[12]-max-conv7[24]-fc[200].
    Source: Lin and Lucey 2017, their networks for GTSRB; the kernels and the place of the pool are our reading.
    """

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            *(nn.Conv2d(shape[0], FILTERS[0], KERNEL), nn.ReLU()),
            *(nn.Conv2d(FILTERS[0], FILTERS[1], KERNEL), nn.ReLU(), nn.MaxPool2d(2)),
        ]
        if name == "lin-lucey-cnn":
            layers += [nn.Conv2d(FILTERS[1], FILTERS[2], KERNEL), nn.ReLU()]
        layers.append(nn.Flatten())
        (self.out_features,) = output_shape(nn.Sequential(*layers), shape)
        if name == "lin-lucey-cnn":
            layers += [nn.Linear(self.out_features, UNITS), nn.ReLU()]
            self.out_features = UNITS
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LinLuceyLocalization(nn.Module):
    """Localisation features of a picture (C, H, W): conv7[6]-conv7[24]-max, ReLU after each convolution.

    Source: as above.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape[0], LOOKING_FILTERS[0], KERNEL)
        self.conv2 = nn.Conv2d(LOOKING_FILTERS[0], LOOKING_FILTERS[1], KERNEL)
        left = [(n - 2 * (KERNEL - 1)) // 2 for n in shape[1:]]
        self.out_features = LOOKING_FILTERS[1] * left[0] * left[1]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.max_pool2d(x, 2).flatten(1)
