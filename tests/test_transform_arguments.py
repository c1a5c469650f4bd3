"""What a transform or a map refuses, told in one line that names the argument, what came and what was wanted."""

from collections.abc import Callable
from math import inf, nan

import pytest
import torch

from torch_stn import (
    CPAB,
    Affine,
    Basis,
    BoundedAffine,
    FieldMap,
    LandmarkSpline,
    LogPolar,
    Polar,
    Rigid,
    Similarity,
    SplineMap,
    ThinPlateSpline,
    Transform,
    Translation,
    exponential,
    logarithm,
    warp,
)

STILL = Affine()(torch.eye(2, 3)[None])
LINE = torch.linspace(0, 1, 4)[None, :, None].expand(1, 4, 2)

CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a list of points": (
        lambda: ThinPlateSpline([[0.0, 0.0]]),
        ValueError,
        "control_points: wanted whole numbers, one",
    ),  # type: ignore[arg-type]
    "half a point": (lambda: ThinPlateSpline(2.5), ValueError, "control_points: wanted whole numbers, one an axis"),  # type: ignore[arg-type]
    "a word of points": (lambda: ThinPlateSpline("4"), ValueError, "control_points: wanted whole numbers"),  # type: ignore[arg-type]
    "no number to smooth by": (
        lambda: ThinPlateSpline(regularization="a"),
        TypeError,
        "regularization: wanted a number",
    ),  # type: ignore[arg-type]
    "endless smoothing": (
        lambda: LandmarkSpline(regularization=inf),
        ValueError,
        "regularization: wanted a number >= 0",
    ),
    "an endless span": (lambda: ThinPlateSpline(span=inf), ValueError, "span: wanted a number > 0, got inf"),
    "points on a line": (lambda: SplineMap(LINE, LINE), ValueError, "control_points: all points lie on one line"),
    "no points at NaN": (
        lambda: SplineMap(LINE * nan, LINE),
        ValueError,
        "control_points: every coordinate must be fin",
    ),
    "half a sub-step": (lambda: CPAB((2, 2), steps=1.5), ValueError, "steps, crossings: wanted whole numbers"),  # type: ignore[arg-type]
    "a word of sub-steps": (lambda: CPAB((2, 2), steps="a"), ValueError, "steps, crossings: wanted"),  # type: ignore[arg-type]
    "a truth of boxes": (lambda: CPAB((True, 2)), ValueError, "boxes: wanted 1 to 3 whole numbers"),
    "no function": (lambda: Basis(3, torch.eye(3, 2)), TypeError, "basis: wanted a function or nn.Module"),  # type: ignore[arg-type]
    "a list as identity": (
        lambda: Basis(lambda xy: xy, [[1, 0], [0, 1]]),
        TypeError,
        "identity: wanted a torch.Tensor",
    ),  # type: ignore[arg-type]
    "a word as radius": (lambda: Polar(radius="1"), TypeError, "radius: wanted a number, got '1'"),  # type: ignore[arg-type]
    "a word as inner": (lambda: LogPolar(inner="1"), TypeError, "inner: wanted a number, got '1'"),  # type: ignore[arg-type]
    "a word as bound": (lambda: BoundedAffine(max_shear="a"), TypeError, "max_shear: wanted a number, got 'a'"),  # type: ignore[arg-type]
    "a field without batch": (lambda: FieldMap(torch.zeros(4, 4, 2)), ValueError, r"field: wanted \(N, h, w, 2\) or"),
    "vectors of 3 in 2-D": (
        lambda: FieldMap(torch.zeros(1, 4, 4, 3)),
        ValueError,
        r"field: wanted .*, got \(1, 4, 4, 3\)",
    ),
    "a velocity without batch": (lambda: exponential(torch.zeros(4, 4, 2)), ValueError, r"velocity: wanted \(N, h, w"),
    "no map": (lambda: logarithm(torch.zeros(3), (4, 4)), TypeError, "map: wanted a Map, .* got Tensor"),  # type: ignore[arg-type]
    "another dimension": (lambda: logarithm(STILL, (4, 4, 4)), ValueError, "size: wanted that of a 2-D lattice"),
    "then a number": (lambda: STILL.then(3), TypeError, "then: wanted a Map, .* got int"),  # type: ignore[arg-type]
    "boxes as a list": (lambda: STILL.boxes([[0, 0, 1, 1]]), TypeError, "boxes: wanted a torch.Tensor, got list"),  # type: ignore[arg-type]
    "boxes of whole numbers": (lambda: STILL.boxes(torch.zeros(1, 1, 4).long()), TypeError, "boxes: wanted a floating"),
    "boxes of space": (
        lambda: STILL.boxes(torch.zeros(1, 1, 6)),
        ValueError,
        r"boxes: wanted \(N, B, 4\) .* \(1, 1, 6\)",
    ),
    "boxes on a line": (
        lambda: CPAB((3,))(torch.zeros(1, 4, 1)).boxes(torch.zeros(1, 1, 2)),
        ValueError,
        "boxes: there",
    ),
    "a flat box in space": (
        lambda: Translation(3)(torch.zeros(1, 3)).boxes(torch.zeros(1, 4)),
        ValueError,
        r"boxes: wanted \(N, B, 6\)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_arguments_are_named(case: str) -> None:
    call, error, message = CASES[case]
    with pytest.raises(error, match=f"^{message}") as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("family", [Rigid(3, rotation="quaternion"), Similarity(3, rotation="quaternion"), Affine(3)])
def test_a_theta_of_nan_leads_outside_and_moves_no_other_sample(family: Transform) -> None:
    theta = family.identity().flatten().repeat(2, 1)
    theta[1] = nan
    theta.requires_grad_()
    image = torch.rand(2, 1, 3, 4, 5)
    warped = warp(image, family(theta))
    assert torch.equal(warped[0], image[0])
    assert not warped[1].any()
    warped.sum().backward()
    assert theta.grad is not None
    assert torch.isfinite(theta.grad[0]).all()
