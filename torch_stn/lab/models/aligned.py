"""A classifier behind a spatial transformer."""

import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.nn import SpatialTransformer
from torch_stn.transforms.maps import Map


class Aligned(nn.Module):
    """Transformer on the input image, then ``pool`` x average pooling, then the classifier: (N, C, H, W) -> (N, K).

    A transformer with count > 1 hands (N, count, C, h, w) on.

    Pooling comes after the transformer where the set is drawn on a larger canvas (PAPER A.4: RTS and TC): bilinear
    reading that shrinks would alias.
    """

    def __init__(self, transformer: SpatialTransformer, classifier: nn.Module, *, pool: int = 1) -> None:
        super().__init__()
        self.transformer = transformer
        self.classifier = classifier
        self.pool = pool

    def forward(self, x: Tensor, *, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Class scores; with ``return_theta`` also theta, (N, P)."""
        theta = self.transformer.theta(x)
        scores = self.classify(self.transformer.read(x, theta))
        return (scores, theta) if return_theta else scores

    def classify(self, aligned: Tensor) -> Tensor:
        """Class scores of what the transformer wrote."""
        return self.classifier(_pooled(aligned, self.pool) if self.pool > 1 else aligned)

    def map(self, x: Tensor) -> Map:
        """Where the (first) transformer reads in each image."""
        return self.transformer.maps(self.transformer.theta(x))[0]


def _pooled(x: Tensor, k: int) -> Tensor:
    """F.avg_pool2d(x, k), to rounding."""
    if x.device.type != "cpu":
        return F.avg_pool2d(x, k)
    # Rows first: they add as vectors, while avg_pool2d goes pixel by pixel on a CPU and takes twice the time.
    return x.unflatten(-2, (-1, k)).mean(dim=-2).unflatten(-1, (-1, k)).mean(dim=-1)
