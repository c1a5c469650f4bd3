"""The C++ kernels where there is nothing to do, or a great deal."""

from __future__ import annotations

import pytest
import torch
from cases import pictures, points_off_kinks
from test_cpu_kernels import needs_kernels

from torch_stn import Affine, sample, warp
from torch_stn.sampling.backends.cpu_call import How, backward, forward

pytestmark = needs_kernels


def test_points_of_half_a_million_and_none_at_all() -> None:
    image = pictures(1, (30, 40), dtype=torch.float32)
    points = points_off_kinks(1, 500_000, (30, 40)).float()
    got, wanted = (sample(image, points, units="pixel", backend=b) for b in ("cpu", "reference"))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert sample(image, points[:, :0], units="pixel", backend="cpu").shape == (1, 2, 0)
    assert warp(image[:, :0], Affine()(torch.eye(2, 3)[None]), backend="cpu").shape == (1, 0, 30, 40)


@pytest.mark.parametrize(
    ("size", "channels", "out"), [((8, 8), 0, (8, 8)), ((8, 8), 3, (4, 0)), ((512, 512), 4, (4, 0))]
)
def test_no_channels_and_no_points_are_no_division_by_zero(
    size: tuple[int, int], channels: int, out: tuple[int, int]
) -> None:
    image, theta = torch.ones(2, channels, *size), torch.eye(2, 3).repeat(2, 1, 1)
    how = How("affine", out, "bilinear", "zeros", 0.0, False)
    assert forward(image, theta, None, how).shape == (2, channels, *out)
    to_image, to_theta = backward(torch.ones(2, channels, *out), image, theta, None, how, (True, True))
    assert to_image is not None
    assert to_theta is not None
    assert torch.equal(to_image, torch.zeros_like(image))
    assert torch.equal(to_theta, torch.zeros_like(theta))
