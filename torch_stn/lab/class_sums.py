"""Sums over the images of each class: their mean and their variance within a class; and images as files hold them."""

import torch
from torch import Tensor


class ClassSums:
    """Sums over images by class, for their means and their variance within a class."""

    def __init__(self, classes: int = 10) -> None:
        self.classes = classes
        self.count = torch.zeros(classes, dtype=torch.float64)
        self.sum: Tensor | None = None
        self.square: Tensor | None = None

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Add images (B, C, H, W), of volumes their pictures."""
        pixels, labels = projected(images).double().cpu(), labels.cpu()
        if self.sum is None or self.square is None:
            self.sum = pixels.new_zeros(self.classes, *pixels.shape[1:])
            self.square = torch.zeros_like(self.sum)
        self.sum.index_add_(0, labels, pixels)
        self.square.index_add_(0, labels, pixels.square())
        self.count += torch.bincount(labels, minlength=self.classes)

    def means(self) -> Tensor:
        """The mean image of each class, (K, H, W) float32, of three channels (K, H, W, 3)."""
        assert self.sum is not None
        return pictures((self.sum / self.count.clamp(min=1)[:, None, None, None]).float())

    def variance(self) -> tuple[float, float]:
        """Variance of a pixel within its class, averaged over pixels and classes; and as a share of the mean square.

        The share is what tells of alignment: a transformer that zooms in fills the frame, and raises the first number.
        """
        assert self.sum is not None
        assert self.square is not None
        present = self.count > 0
        count = self.count[present][:, None, None, None]
        energy = self.square[present] / count
        within = float((energy - (self.sum[present] / count).square()).mean())
        return within, within / max(float(energy.mean()), 1e-12)


def pictures(images: Tensor) -> Tensor:
    """(..., C, H, W) as files hold it: (..., H, W) of one channel, (..., H, W, 3) of three; others side by side."""
    channels = images.shape[-3]
    if channels == 3:
        return images.movedim(-3, -1)
    return images[..., 0, :, :] if channels == 1 else torch.cat(images.unbind(-3), dim=-1)


def projected(images: Tensor) -> Tensor:
    """Volumes (N, C, D, H, W) as pictures (N, C, H, W): the greatest along the depth; pictures as they are."""
    return images.amax(dim=2) if images.dim() == 5 else images
