"""MNIST addition: two digits, each in a channel of its own, posed apart from each other; the label is their sum.

Source: Jaderberg et al. 2015, appendix A.1. The second digit is drawn from all digits, so it may be the first again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_stn.lab.data.distortions import distort
from torch_stn.lab.data.draws import draw_bits, integers

ADDEND, ADDEND_SEED = 50, 51  # streams, apart from those of the distortions


def draw_sums(
    digits: Tensor,  # (n, 28, 28) uint8, or float in [0, 1]
    labels: Tensor,  # (n,) int64
    indices: Tensor,  # (B,) int64, the digit of the first channel
    samples: Tensor,  # (B,) int64, global sample numbers
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Images (B, 2, 42, 42) in [0, 1], each channel an RTS digit, and sums (B,), 0 to 18."""
    others = integers(seed, samples, ADDEND, 1, len(digits))[:, 0]
    first = distort("rts", digits, indices, samples, seed).images
    # A seed of its own: under the run's, both digits of a sample would be posed alike.
    second = distort("rts", digits, others, samples, _other(seed)).images
    return torch.cat([first, second], dim=1), labels[indices] + labels[others]


def _other(seed: int) -> int:
    return int(draw_bits(seed, torch.zeros(1, dtype=torch.int64), ADDEND_SEED, 1)[0, 0]) & (2**63 - 1)
