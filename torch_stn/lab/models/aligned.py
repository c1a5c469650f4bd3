"""A classifier behind a spatial transformer."""

import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.nn import SpatialTransformer
from torch_stn.transforms.maps import Map


class Aligned(nn.Module):
    """Transformer, then ``pool`` x average pooling, then the classifier: (N, C, H, W) -> (N, K).

    The transformer stands on the input image or, behind ``stem``, on the feature maps that the stem makes of it; its
    localisation net looks at the image, or where ``shared`` at those maps. A transformer with count > 1 hands
    (N, count, C, h, w) on. With ``theta_forward`` the classifier is given theta too.

    Pooling comes after the transformer where the set is drawn on a larger canvas (PAPER A.4: RTS and TC): bilinear
    reading that shrinks would alias.
    """

    def __init__(
        self,
        transformer: SpatialTransformer,
        classifier: nn.Module,
        *,
        pool: int = 1,
        stem: nn.Module | None = None,
        shared: bool = False,
        theta_forward: bool = False,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.transformer = transformer
        self.classifier = classifier
        self.pool = pool
        self.shared = shared
        self.theta_forward = theta_forward

    def forward(self, x: Tensor, *, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Class scores; with ``return_theta`` also theta, (N, P)."""
        source = x if self.stem is None else self.stem(x)
        theta = self.transformer.theta(source if self.shared else x)
        scores = self.classify(self.transformer.read(source, theta), theta)
        return (scores, theta) if return_theta else scores

    def theta(self, x: Tensor) -> Tensor:
        """theta of images: (N, P), (N, count, P) for count > 1."""
        return self.transformer.theta(self.stem(x) if self.shared and self.stem is not None else x)

    def classify(self, aligned: Tensor, theta: Tensor) -> Tensor:
        """Class scores of what the transformer wrote."""
        pooled = _pooled(aligned, self.pool) if self.pool > 1 else aligned
        return self.classifier(pooled, theta) if self.theta_forward else self.classifier(pooled)

    def map(self, x: Tensor) -> Map:
        """Where the (first) transformer reads in each image."""
        return self.transformer.maps(self.theta(x))[0]


def _pooled(x: Tensor, k: int) -> Tensor:
    """F.avg_pool2d(x, k), to rounding."""
    if x.device.type != "cpu":
        return F.avg_pool2d(x.flatten(0, -4), k).unflatten(0, x.shape[:-3])
    # Rows first: they add as vectors, while avg_pool2d goes pixel by pixel on a CPU and takes twice the time.
    return x.unflatten(-2, (-1, k)).mean(dim=-2).unflatten(-1, (-1, k)).mean(dim=-1)
