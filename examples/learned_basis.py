"""A transform whose basis B is learned with the network (paper 3.2: "B could itself be learned for the task").

    python examples/learned_basis.py

The digits are perturbed by an affine map and by a wave of random strength. The networks are not told the shape of the
wave. The plain one has affine maps, which cannot undo it; the other has, beside (x, y, 1), six functions of a small
net, which learn to.
"""

import math

import torch
from perturbed_digits import affine, classifier, compare
from torch import Tensor, nn

from torch_stn import Affine, Basis, LocalizationFC, Map, SpatialTransformer, Transform
from torch_stn.lab.data.draws import uniform

FUNCTIONS, HIDDEN = 6, 32


class LearnedFunctions(nn.Module):
    """B(xy) = (x, y, 1, and what a small net makes of xy): (..., 2) -> (..., 3 + FUNCTIONS)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, FUNCTIONS))
        nn.init.normal_(self.net[0].weight, std=2.0)  # tanh over [-1, 1] is nearly a plane with the usual weights

    def forward(self, xy: Tensor) -> Tensor:
        return torch.cat([xy, torch.ones_like(xy[..., :1]), self.net(xy)], dim=-1)


class Waved(Map):
    """x_s = x + a sin(pi y), y_s = y + b sin(pi x)."""

    dims, dtype, device = 2, torch.float32, torch.device("cpu")

    def __init__(self, strength: Tensor) -> None:  # (N, 2)
        self.strength, self.batch = strength, len(strength)

    def displacement(self, xy: Tensor) -> Tensor:
        return self.strength[:, None] * torch.sin(math.pi * xy.flip(-1))


def perturb(seed: int, samples: Tensor) -> Map:
    """A wave, then an affine map."""
    return Waved(uniform(seed, samples, 2002, 2, -0.4, 0.4)).then(affine(seed, samples, 0.1))


def network(family: Transform) -> nn.Module:
    """Transformer and classifier."""
    return nn.Sequential(SpatialTransformer(LocalizationFC((1, 28, 28), (64, 64, 64)), family), classifier())


if __name__ == "__main__":
    models = {
        "affine": (lambda: network(Affine()), 1000),
        "learned B": (lambda: network(Basis(LearnedFunctions(), torch.eye(3 + FUNCTIONS, 2))), 1000),
    }
    compare("learned_basis", models, perturb)
