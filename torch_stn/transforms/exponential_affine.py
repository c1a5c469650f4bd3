"""The affine map as the exponential of its generator."""

import torch
from torch import Tensor

from torch_stn.transforms.matrix import MatrixTransform

_HALVINGS = 8
_TERMS = 9


class ExponentialAffine(MatrixTransform):
    """[theta; 0] is a generator, its matrix exponential the map: theta (N, 6) or (N, 2, 3), 3-D (N, 12) or (N, 3, 4).

    theta is a velocity field, linear in the point, that flows for time 1. So the determinant is exp(trace) > 0: no
    theta folds or collapses the picture; -theta is the inverse; theta / 2 is half the way. The identity is 0.

    Gradients: of the exponential itself; plain sums and products, which compile, export and differentiate twice.
    Accuracy, for |theta| up to 16 (which zooms by exp 16): that of rounding, absolute where the map shrinks; in
        float32 relative to 1e-5 down to exp(-7).
    Source: Moler and Van Loan 2003, method 3 (scaling and squaring), on exp - 1, which keeps the identity exact.

    Example:
        >>> import math
        >>> turn = torch.tensor([[0.0, -math.pi / 2, 0.0, math.pi / 2, 0.0, 0.0]])
        >>> ExponentialAffine()(turn).sources(torch.tensor([[[1.0, 0.0]]])).round(decimals=3).abs().tolist()
        [[[0.0, 1.0]]]
    """

    def __init__(self, dims: int = 2) -> None:
        super().__init__(dims)
        self.theta_shape = (dims, dims + 1)

    def identity(self) -> Tensor:
        return torch.zeros(self.theta_shape)

    def matrix(self, theta: Tensor) -> Tensor:
        small = theta / 2**_HALVINGS
        moved = small  # exp - 1, by Horner: X (1 + X/2 (1 + X/3 (...)))
        for n in range(_TERMS, 1, -1):
            moved = small + _after(small, moved) / n
        for _ in range(_HALVINGS):
            moved = 2 * moved + _after(moved, moved)  # (1 + m)^2 - 1
        return moved + torch.eye(*self.theta_shape, dtype=theta.dtype, device=theta.device)


def _after(a: Tensor, b: Tensor) -> Tensor:
    """[a; 0] [b; 0] without its zero row, (N, d, d + 1); as sums of products, since autocast would round a matmul."""
    return (a[:, :, :-1, None] * b[:, None]).sum(dim=2)
