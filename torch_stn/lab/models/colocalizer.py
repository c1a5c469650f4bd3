"""Co-localisation (A.2): the transformer that looks for the object, and the encoder that compares what it finds."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.lab.data.colocalization import SCENE
from torch_stn.lab.data.distortions import SIDE
from torch_stn.lab.models.classifiers import CNN
from torch_stn.nn import SpatialTransformer
from torch_stn.nn.one_channel import OneChannelConv
from torch_stn.transforms.matrix import Attention

FRAME = SIDE / SCENE  # scale of a box as large as the random crops are
LARGEST = 1.25  # times the frame's scale, and one over it the smallest
SHARES = (0.1, 0.3, 0.6)  # of the encoder's three layers in the distance of two codes


class BoundedAttention(Attention):
    """Attention with a scale of 4/5 to 5/4 of the frame's and a middle that stays where a frame fits: theta (N, 3) = 0
    is a frame in the middle. Unbounded, an optimisation without labels flees to black outside of the pictures.
    """

    has_identity = False

    def initial(self) -> Tensor:
        return torch.zeros(self.theta_shape)

    def matrix(self, theta: Tensor) -> Tensor:
        scale = FRAME * torch.exp(math.log(LARGEST) * torch.tanh(theta[:, :1]))
        return super().matrix(torch.cat([scale, (1 - FRAME) * torch.tanh(theta[:, 1:])], dim=1))


class Features(nn.Module):
    """conv 9x9 8 - max-pool 2 - FC 8 - FC 8, ReLU after each: (N, 1, 84, 84) -> (N, 8).

    Stride 1: with the regression layer 93,179 parameters, the "about 100k" of the paper; with the stride of 4 that the
    same notes name it would be 5.9k.
    """

    out_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = OneChannelConv(8, 9)
        # Black, most of a scene, is then 0: else a step of all weights moves every unit alike, and some die at once.
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)
        self.fc1 = nn.Linear(8 * ((SCENE - 8) // 2) ** 2, 8)
        self.fc2 = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv(x), 2))
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))


def colocalizer(seed: int) -> SpatialTransformer:
    """A transformer from scenes to crops of 28 x 28; its starting weights are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpatialTransformer(Features(), BoundedAttention(), (SIDE, SIDE))


class Encoder(nn.Module):
    """A trained CNN's activations as one code of unit length: (N, 1, 28, 28) -> (N, F).

    Each layer's activations (softmax left out) less their mean over ``typical`` digits, at unit length, by the root of
    its share: so no layer counts more for being wide, and black, which is far from the mean, is nothing special.
    """

    def __init__(self, net: CNN, typical: Tensor) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        with torch.no_grad():
            self.means = [layer.mean(dim=0) for layer in self.activations(typical)]

    def activations(self, x: Tensor) -> list[Tensor]:
        """Of each layer, flattened."""
        found = []
        for layer in self.net.layers:
            x = layer(x)
            found.append(x.flatten(1))
        return [*found, self.net.scores(x.flatten(1))]

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(self.activations(x), self.means, SHARES, strict=True)
        return torch.cat([math.sqrt(share) * F.normalize(layer - mean, dim=1) for layer, mean, share in layers], dim=1)
