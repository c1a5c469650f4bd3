"""The network of PyTorch's spatial transformer tutorial, without its border flaw.

The tutorial normalises the digits by mean and deviation, so that black is -0.42, while the sampler pads with 0: a
bright border appears and the transformer learns to zoom out. Here pixels stay in [0, 1] and black stays 0.
Source: the PyTorch tutorial "Spatial Transformer Networks"; the flaw: pytorch/tutorials issue 1117.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.lab.models.dropout import SampleDropout


class TutorialClassifier(nn.Module):
    """conv 5x5 10 - conv 5x5 20 - FC 50 - scores, with dropout: (N, 1, 28, 28) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.conv2_drop = SampleDropout(channels=True, layer=0)
        self.fc1 = nn.Linear(320, 50)
        self.fc1_drop = SampleDropout(layer=1)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = self.fc1_drop(F.relu(self.fc1(x.flatten(1))))
        return self.fc2(x)


class TutorialLocalization(nn.Module):
    """conv 7x7 8 - pool - conv 5x5 10 - pool - FC 32: (N, 1, 28, 28) -> (N, 32)."""

    out_features = 32

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 7)
        self.conv2 = nn.Conv2d(8, 10, 5)
        self.fc = nn.Linear(90, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return F.relu(self.fc(x.flatten(1)))
