"""What the tests of the Triton kernels share: the device, the families, and the comparison with the reference."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import draw
from torch import Tensor

from torch_stn import Affine, Projective, ThinPlateSpline, Transform, sample, warp
from torch_stn.transforms.displacement import DisplacementField

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])
ON_DEVICE = pytest.mark.parametrize("device", ["cpu"] if INTERPRETED else [CUDA])
# Of float32 coordinates on axes of up to 80 pixels, and of the sums of gradients, beside the largest of each.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
FAMILIES = {
    "affine": Affine(),
    "projective": Projective(),
    "tps": ThinPlateSpline(3),
    "field": DisplacementField((3, 4)),
}
Reader = Callable[[Tensor, Tensor, str], Any]


def outcome(read: Reader, image: Tensor, source: Tensor, backend: str) -> list[Tensor]:
    """Values, and the gradients of a fixed weighting of them to image and source."""
    u, s = image.detach().clone().requires_grad_(), source.detach().clone().requires_grad_()
    values = read(u, s, backend)
    values.backward(draw(*values.shape, seed=9).to(values))
    return [values.detach(), *(torch.zeros_like(t) if t.grad is None else t.grad for t in (u, s))]


def check(read: Reader, image: Tensor, source: Tensor, device: str, dtype: torch.dtype = torch.float32) -> None:
    """Forward and both gradients, of the numbers rounded to the dtype, against the reference in float64."""
    image, source = image.to(dtype), source.to(dtype)
    wanted = outcome(read, image.double(), source.double(), "reference")
    got = outcome(read, image.to(device), source.to(device), "triton")
    for name, ours, truth in zip(("values", "image", "source"), got, wanted, strict=True):
        scale = max(1.0, truth.abs().max().item())
        worst = (ours.cpu().double() - truth).abs().max().item() / scale
        print(f"{name}: {worst:.1e}")
        assert worst <= TOLERANCE[dtype], f"{name}: off by {worst} of {scale}"


def through(family: Transform, size: tuple[int, ...], **how: Any) -> Reader:
    return lambda image, theta, backend: warp(image, family.to(theta.device)(theta), size, backend=backend, **how)


def at(**how: Any) -> Reader:
    return lambda image, points, backend: sample(image, points, units="pixel", backend=backend, **how)
