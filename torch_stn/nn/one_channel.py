"""A faster way, on a CPU, to convolve images of one channel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OneChannelConv(nn.Conv2d):
    """A convolution of one input channel, computed on its k column-shifted copies with a k x 1 kernel.

    The same weights and the same result; on a CPU the backward pass of a one-channel convolution is several times
    slower.
    """

    def __init__(self, out_channels: int, kernel_size: int) -> None:
        super().__init__(1, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype == torch.float64:
            return super().forward(x)
        k = self.weight.shape[-1]
        width = x.shape[3] - k + 1
        shifted = torch.cat([x[..., j : j + width] for j in range(k)], dim=1)
        shifted = shifted.contiguous(memory_format=torch.channels_last)
        weight = self.weight.permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)
        return F.conv2d(shifted, weight, self.bias)
