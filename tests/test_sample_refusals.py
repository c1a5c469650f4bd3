"""What sample() refuses: one line that names the argument, what came and what was wanted."""

from typing import Any

import pytest
import torch

from torch_stn import Interpolation, sample
from torch_stn.sampling.interpolation import Area, Linear


class NoSupport(Interpolation):
    """A kernel that forgot to say how many taps it reads."""


IMAGE, POINTS = torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": [[0.0]]}, TypeError, r"^image: wanted a torch.Tensor, got list"),
        (
            {"image": torch.zeros(4, 5)},
            ValueError,
            r"^image: wanted \(N, C, W\), \(N, C, H, W\) or .* got \(4, 5\) float32",
        ),
        (
            {"image": torch.zeros(3, 4, 5)},
            ValueError,
            r"^points: wanted \(N, ..., 1\) .* for image \(3, 4, 5\) float32",
        ),
        ({"image": torch.zeros(2, 3, 4, 5, 6, 7)}, ValueError, r"^image: wanted"),
        ({"image": IMAGE.long()}, TypeError, r"^mode: wanted .nearest. .* whole numbers, \(2, 3, 4, 5\) int64, got"),
        ({"image": IMAGE.to(torch.complex64)}, TypeError, r"^image: wanted a floating-point tensor, .*complex64"),
        ({"image": torch.zeros(2, 3, 0, 5)}, ValueError, r"^image: .* at least one pixel, got \(2, 3, 0, 5\)"),
        ({"points": None}, TypeError, r"^points: wanted a torch.Tensor, got NoneType"),
        ({"points": torch.zeros(2, 6, 3)}, ValueError, r"^points: wanted \(N, ..., 2\) .*\(x, y\), got \(2, 6, 3\)"),
        ({"image": torch.zeros(2, 3, 4, 4, 4)}, ValueError, r"^points: wanted \(N, ..., 3\) .*\(x, y, z\)"),
        ({"points": torch.zeros(2)}, ValueError, r"^points: wanted \(N, ..., 2\)"),
        ({"points": POINTS.int()}, TypeError, r"^points: wanted a floating-point tensor, got \(2, 6, 2\) int32"),
        ({"points": torch.zeros(3, 6, 2)}, ValueError, r"^points: wanted the batch size of image, 2, or 1, got 3"),
        ({"points": POINTS.to("meta")}, ValueError, r"^points: wanted the device of image, cpu, got meta"),
        ({"units": "pixels"}, ValueError, r"^units: wanted one of 'normalized', 'pixel', .*, got 'pixels'"),
        ({"units": "displacement"}, ValueError, r"^points: displacements are \(N, \*out, 2\), .* got \(2, 6, 2\)"),
        ({"mode": "lanczos"}, ValueError, r"^mode: wanted one of 'nearest', 'bilinear', 'bicubic', .*, got 'lanczos'"),
        ({"mode": 2}, TypeError, r"^mode: wanted a name or an Interpolation, got int"),
        ({"mode": Linear}, TypeError, r"^mode: wanted a name or an Interpolation, got type"),
        ({"mode": NoSupport()}, ValueError, r"^mode: NoSupport.support must be a whole number >= 1"),
        ({"padding_mode": "zero"}, ValueError, r"^padding_mode: wanted one of 'zeros', .*, got 'zero'"),
        ({"padding_mode": ["zeros", "wrapped"]}, ValueError, r"^padding_mode: wanted one of .*'wrap', got 'wrapped'"),
        (
            {"padding_mode": ["wrap"]},
            ValueError,
            r"^padding_mode: wanted one word, or one for each of 2 axes .*, got 1",
        ),
        ({"padding_mode": 1}, TypeError, r"^padding_mode: wanted a word, or one per axis, got int"),
        ({"edge": "soft"}, ValueError, r"^edge: wanted one of 'blend', 'extend', got 'soft'"),
        (
            {"mode": "bspline3", "fill": float("nan")},
            ValueError,
            r"^fill: wanted a finite number with BSpline\(degree=3\), .*, got nan",
        ),
        ({"mode": Area((1.0, 2.0, 3.0))}, ValueError, r"^mode: Area wanted one width, or one for each of 2 axes"),
        ({"backend": "cuda"}, ValueError, r"^backend: wanted one of .*'reference'.*, got 'cuda'"),
        ({"fill": "black"}, TypeError, r"^fill: wanted a number, got 'black'"),
        ({"fill": None}, TypeError, r"^fill: wanted a number, got None"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"image": IMAGE, "points": POINTS, **change}
    with pytest.raises(error, match=message):
        sample(**arguments)
