"""Random calls of sample(), each by every backend that can, against the reference in float64: values and gradients."""

import math
import os
import random
from typing import Any

import pytest
import torch
from cases import draw, points_off_kinks
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_stn import sample
from torch_stn.sampling.choose import BACKENDS
from torch_stn.sampling.interpolation import INTERPOLATIONS
from torch_stn.sampling.padding import EDGES, PADDINGS

# Printed with a failure and by `pytest -s`; TORCH_STN_SEED=... repeats a run.
SEED = int(os.environ.get("TORCH_STN_SEED", random.SystemRandom().randrange(2**32)))
MODES = sorted(INTERPOLATIONS)
FEW_TAPS = [name for name in MODES if INTERPOLATIONS[name]().support <= 4]
SPECIAL = (math.nan, math.inf, -math.inf, 1e30, -1e30)
FILLS = (0.0, 0.0, 0.5, -3.0)


@st.composite
def calls(draw_: st.DrawFn) -> dict[str, Any]:
    """The arguments of one call; tensors by their seeds, so that a failure is printed in a line."""
    dims = draw_(st.integers(1, 3))
    batch = draw_(st.sampled_from([(1, 1), (2, 2), (1, 3), (3, 1), (0, 0), (1, 0)]))
    padding = st.sampled_from(sorted(PADDINGS))
    return {
        "seed": draw_(st.integers(0, 2**16)),
        "batch": batch,
        "channels": draw_(st.sampled_from([1, 1, 2, 5, 0])),
        "in_size": tuple(draw_(st.integers(1, 6 if dims < 3 else 4)) for _ in range(dims)),
        "count": draw_(st.sampled_from([0, 1, 5, 23])),
        "special": draw_(st.sampled_from([0, 0, 1, 3])),
        "mode": draw_(st.sampled_from(MODES if dims < 3 else FEW_TAPS)),
        "padding_mode": draw_(st.one_of(padding, st.tuples(*[padding] * dims))),
        "fill": draw_(st.sampled_from(FILLS)),
        "edge": draw_(st.sampled_from(EDGES)),
        "align_corners": draw_(st.booleans()),
        "return_mask": draw_(st.booleans()),
        "beyond": draw_(st.sampled_from([0.0, 1.0, 3.5])),
    }


def tensors(call: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The image, and pixel points off all kinks, some of them made not finite or absurdly far."""
    (n, m), in_size = call["batch"], call["in_size"]
    image = draw(n, call["channels"], *in_size, seed=call["seed"])
    points = points_off_kinks(m, call["count"], in_size, beyond=call["beyond"], seed=call["seed"] + 1)
    flat = points.view(-1)
    for i in range(min(call["special"], flat.numel())):
        flat[(call["seed"] * (i + 7)) % flat.numel()] = SPECIAL[(call["seed"] + i) % len(SPECIAL)]
    return image, points


def outcome(call: dict[str, Any], image: Tensor, points: Tensor, backend: str | None) -> list[Tensor]:
    """Values, mask, and the gradients of a fixed weighting of the values, in float64."""
    options = {key: call[key] for key in ("mode", "padding_mode", "fill", "edge", "align_corners", "return_mask")}
    u, p = image.clone().requires_grad_(), points.clone().requires_grad_()
    got = sample(u, p, units="pixel", backend=backend, **options)
    values, masks = (got[0], [got[1]]) if call["return_mask"] else (got, [])
    if values.requires_grad:
        values.backward(draw(*values.shape, seed=5).to(values.dtype))
    zeros = [torch.zeros_like(t) if t.grad is None else t.grad for t in (u, p)]
    return [t.detach().double() for t in (values, *masks, *zeros)]


def check(call: dict[str, Any]) -> None:
    image, points = tensors(call)
    wanted = outcome(call, image, points, "reference")
    assert all(bool(torch.isfinite(t).all()) for t in wanted), call
    for backend in (None, *BACKENDS.keys() - {"reference"}):
        try:
            got = outcome(call, image, points, backend)
        except ValueError as error:
            if f"backend: {backend!r} cannot serve this call: " not in str(error):
                raise
            continue
        for ours, truth in zip(got, wanted, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-9, msg=f"{backend}: {ours} is not {truth}")


def run(examples: int) -> None:
    """That many calls; hypothesis makes a failing one as small as it can."""
    print(f"TORCH_STN_SEED={SEED}: {examples} calls")

    @seed(SEED)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    @given(calls())
    def all_of_them(call: dict[str, Any]) -> None:
        check(call)

    try:
        all_of_them()
    except BaseException:
        print(f"repeat with TORCH_STN_SEED={SEED}")
        raise


def test_a_few_random_calls() -> None:
    run(150)


@pytest.mark.slow
def test_ten_thousand_random_calls() -> None:
    run(10_000)
