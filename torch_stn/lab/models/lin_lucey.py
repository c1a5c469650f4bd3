"""The small networks that inverse-compositional transformers were shown with: what a classifier cannot hold, alignment
must do.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from torch_stn.lab.errors import UserError
from torch_stn.nn.localization import output_shape

KERNEL = 7
UNITS = 200
# Filters of the convolutions; None is a pool.
LAYERS: dict[str, tuple[int | None, ...]] = {
    "lin-lucey": (6, 12, None),  # the classifier behind a transformer
    "lin-lucey-cnn": (6, 12, None, 24),  # the net without one: deeper, and UNITS behind
    "looking": (6, 24),  # the localisation net
}
SMALLEST = {"lin-lucey": 14, "lin-lucey-cnn": 26, "looking": 13}  # pixels a side


class LinLucey(nn.Module):
    """Features of a picture (C, H, W), ReLU after each layer: (N, C, H, W) -> (N, out_features).

    ``lin-lucey`` is conv7[6]-conv7[12]-max, ``lin-lucey-cnn`` conv7[6]-conv7[12]-max-conv7[24]-fc[200], ``looking``
    the localisation net, conv7[6]-conv7[24]; convolutions are not padded.
    Raises: UserError for a picture that is too small.
    Source: Lin and Lucey 2017, the networks for GTSRB of their published code, which read 36 pixels a side.
    """

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = shape[0]
        for filters in LAYERS[name]:
            if filters is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, filters, KERNEL), nn.ReLU()]
                channels = filters
        layers.append(nn.Flatten())
        try:
            (self.out_features,) = output_shape(nn.Sequential(*layers), shape)
        except RuntimeError:
            called = "looking=lin-lucey" if name == "looking" else f"backbone={name}"
            raise UserError(
                f"size or crop: too small for the convolutions of {called}, got {shape[1]} x {shape[2]} pixels; "
                f"wanted at least {SMALLEST[name]}"
            ) from None
        if name == "lin-lucey-cnn":
            layers += [nn.Linear(self.out_features, UNITS), nn.ReLU()]
            self.out_features = UNITS
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
