"""What the Triton backend declines, and that nobody gets it unasked."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from torch_stn.sampling.choose import BACKENDS, choose, reasons
from torch_stn.sampling.problem import Problem

TRITON = BACKENDS["triton"]
PROBLEM = Problem(
    dims=2, interpolation="bilinear", padding=("zeros", "zeros"), fill=0.0, align_corners=False, units="pixel",
    in_size=(5, 7), dtype=torch.float32, device="cuda", image_grad=True, deterministic=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"interpolation": "lanczos3"}, "know only nearest, bilinear, bicubic"),
        ({"device": "mps"}, "serve CUDA tensors, not mps"),
        ({"dims": 1, "in_size": (5,), "padding": ("zeros",)}, "no 1-D images"),
        ({"padding": ("zeros", "border")}, "pad all axes alike"),
        ({"padding": ("wrap", "wrap")}, "know only zeros, border, reflection padding"),
        ({"dtype": torch.int64, "interpolation": "nearest"}, "floating-point images only"),
        ({"fill": float("inf")}, "a fill that float32 holds"),
        ({"in_size": (2**16, 2**16)}, "32 bits"),
    ],
)
def test_it_says_why_not(change: dict[str, Any], word: str) -> None:
    problem = replace(PROBLEM, **change)
    assert word in str(TRITON.why_not(problem))
    with pytest.raises(ValueError, match=rf"^backend: 'triton' cannot serve this call: .*{word}"):
        choose(problem, "triton")


def test_nobody_gets_it_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRITON, "MISSING", None)
    assert TRITON.why_not(PROBLEM) is None
    assert choose(PROBLEM, "triton") is TRITON
    assert choose(PROBLEM) is not TRITON
    assert "not yet run on a GPU" in str(reasons(PROBLEM)["triton"])
    monkeypatch.setattr(TRITON, "MISSING", "no triton, as elsewhere")
    assert reasons(PROBLEM)["triton"] == "no triton, as elsewhere"
