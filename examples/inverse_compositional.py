"""An inverse-compositional transformer beside a plain one, on digits under random homographies.

    python examples/inverse_compositional.py

The same localisation net, with the same number of weights, looks once or four times; with four looks the maps compose
and the original picture is read each time. Source: Lin and Lucey 2017.
"""

from functools import partial

from perturbed_digits import classifier, compare, homography
from torch import nn

from torch_stn import LocalizationFC, Projective, SpatialTransformer

SHAPE = (1, 28, 28)


def network(iterations: int) -> nn.Module:
    """Transformer and classifier."""
    features = LocalizationFC(SHAPE, (64, 64, 64))
    return nn.Sequential(SpatialTransformer(features, Projective(), iterations=iterations), classifier())


if __name__ == "__main__":
    models = {
        "one look": (partial(network, 1), 1000),
        "four looks": (partial(network, 4), 1000),
        "one look, for as long": (partial(network, 1), 2500),  # about the processor time of four looks
    }
    compare("inverse_compositional", models, homography)
