"""What plain calls remember: for each question its own answer, the one that the general way gives."""

import gc
import weakref
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import draw, pictures
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from torch_stn import Affine, Projective, Translation, lowered, sample, warp
from torch_stn.sampling import straight
from torch_stn.sampling.backends import cpu, reference, triton
from torch_stn.sampling.choose import BACKENDS
from torch_stn.sampling.interpolation import Linear, as_interpolation
from torch_stn.sampling.problem import problem_of
from torch_stn.transforms.maps import Map

PLAIN: dict[str, Any] = {}
OTHERS: list[dict[str, Any]] = [
    {"mode": "nearest"},
    {"mode": "bicubic"},
    {"padding_mode": "border"},
    {"padding_mode": ("reflection", "reflection")},
    {"fill": 1},
    {"fill": -0.5},
    {"align_corners": True},
    {"deterministic": False},
    {"backend": "reference"},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_an_option_is_part_of_the_question(options: dict[str, Any], dtype: torch.dtype) -> None:
    image = pictures(2, (5, 6), dtype=dtype)
    points = (2 * draw(2, 4, 3, 2) - 1).to(torch.float64 if dtype == torch.float64 else torch.float32)
    map = Affine()(torch.tensor([[0.9, 0.2, 0.3, -0.1, 1.1, -0.4]]).to(points.dtype))
    for _ in range(2):
        for how in (PLAIN, options):
            read, _ = warp(image, map, (4, 7), return_mask=True, **how)
            assert torch.equal(warp(image, map, (4, 7), **how), read)
            read, _ = sample(image, points, return_mask=True, **how)
            assert torch.equal(sample(image, points, **how), read)
            read, _ = sample(image, points, units="pixel", return_mask=True, **how)
            assert torch.equal(sample(image, points, units="pixel", **how), read)


def test_sizes_and_families_are_part_of_the_question() -> None:
    image = pictures(1, (5, 6))
    for map in (Translation()(torch.tensor([[0.2, 0.1]])), Projective()(torch.eye(3).flatten()[None, :8])):
        for size in (None, (3, 4), [5, 6], torch.Size((2, 2))):
            assert warp(image, map, size).shape == (1, *image.shape[1:2], *(size or (5, 6)))
    for shape in ((1, 7, 2), (3, 4, 5, 2), (3, 2), (3, 2, 2, 2, 2)):
        assert sample(image, torch.zeros(shape)).shape == (shape[0], image.shape[1], *shape[1:-1])


def test_what_is_refused_is_refused_after_a_call_that_was_not() -> None:
    image, map, points = pictures(2, (5, 6)), Affine()(torch.eye(2, 3)[None]), torch.zeros(1, 3, 2)
    for _ in range(2):
        assert torch.equal(warp(image, map, fill=0), warp(image, map, fill=0.0))
        sample(image, points)
        for wrong, word in (
            ({"fill": False}, "fill"),
            ({"mode": "cubist"}, "mode"),
            ({"padding_mode": "none"}, "padding_mode"),
            ({"backend": "gpu"}, "backend"),
        ):
            with pytest.raises((TypeError, ValueError), match=word):
                warp(image, map, **wrong)  # type: ignore[call-overload]
            with pytest.raises((TypeError, ValueError), match=word):
                sample(image, points, **wrong)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="size: every entry"):
            warp(image, map, (0, 4))
        with pytest.raises(ValueError, match=r"map: wanted the batch size of image, 2, or 1, got 3"):
            warp(image, Affine()(torch.eye(2, 3).repeat(3, 1, 1)))
        with pytest.raises(ValueError, match="map: wanted a 3-D map"):
            warp(image[:, :, None], map)
        with pytest.raises(ValueError, match="units"):
            sample(image, points, units="metres")


def test_a_size_is_remembered_by_its_value() -> None:
    image, map = pictures(1, (5, 6)), Affine()(torch.eye(2, 3)[None])
    side = torch.tensor(3)
    assert warp(image, map, (side, side)).shape[2:] == (3, 3)  # type: ignore[arg-type]
    side += 1
    assert warp(image, map, (side, side)).shape[2:] == (4, 4)  # type: ignore[arg-type]


def hits() -> int:
    return straight._remembered.cache_info().hits


def test_plain_calls_do_go_the_straight_way() -> None:
    image, map, points = pictures(2, (5, 6)), Affine()(torch.eye(2, 3)[None]), torch.zeros(1, 3, 2)
    for call in (lambda: warp(image, map), lambda: warp(image, map, [3, 4]), lambda: sample(image, points)):
        call()
        before = hits()
        call()
        assert hits() == before + 1


@pytest.mark.parametrize("dims", [0, 4, 5])
def test_pictures_of_other_dimensions_are_refused(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, points = torch.ones(1, 1, *[4] * dims), torch.zeros(1, 7, dims)
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(ValueError, match=r"image: wanted \(N, C, W\)"):
            sample(image.to(dtype), points)
    shown = problem_of(
        image, (4,) * dims, as_interpolation("bilinear"), padding_mode="zeros", fill=0.0, edge="blend",
        align_corners=False, units="pixel", image_grad=False, deterministic=True,
    )  # fmt: skip
    for backend in (cpu, triton):
        monkeypatch.setattr(backend, "MISSING", None)
        assert f"no {dims}-D images" in str(backend.why_not(shown)) or "CUDA" in str(backend.why_not(shown))


def test_objects_are_not_kept() -> None:
    class Loud(Linear):
        """A kernel of the user's own."""

    mode = Loud()
    seen = weakref.ref(mode)
    sample(pictures(1, (5, 6)), torch.zeros(1, 3, 2), mode=mode)
    warp(pictures(1, (5, 6)), Affine()(torch.eye(2, 3)[None]), mode=mode)
    del mode
    gc.collect()
    assert seen() is None


def test_units_and_sizes_of_odd_kinds_are_the_general_way_s() -> None:
    image, map = pictures(2, (5, 6)), Affine()(torch.eye(2, 3)[None])
    for units in (None, ""):
        with pytest.raises(ValueError, match="units"):
            sample(image, torch.rand(2, 4, 7, 2), units=units)  # type: ignore[call-overload]
    assert warp(image, map, (n for n in (3, 4)), padding_mode="wrap").shape[2:] == (3, 4)  # type: ignore[call-overload]
    assert warp(image, map, (n for n in (3, 4))).shape[2:] == (3, 4)  # type: ignore[call-overload]


def test_a_flag_that_changes_is_asked_again() -> None:
    image, map, flag = pictures(1, (5, 6)), Affine()(torch.eye(2, 3)[None] * 0.9), torch.tensor(True)
    first = warp(image, map, (4, 7), align_corners=flag)  # type: ignore[call-overload]
    flag.fill_(False)
    assert torch.equal(first, warp(image, map, (4, 7), align_corners=True))
    second = warp(image, map, (4, 7), align_corners=flag)  # type: ignore[call-overload]
    assert torch.equal(second, warp(image, map, (4, 7)))
    assert not torch.equal(first, second)


def test_another_backend_of_the_same_name_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    image, map = pictures(1, (5, 6)), Affine()(torch.eye(2, 3)[None])
    warp(image, map)
    other = ModuleType("other")
    other.__dict__.update(vars(reference) | {"not_by_default": lambda problem: None})
    other.sample = lambda *args: torch.full_like(reference.sample(*args), 7.0)  # type: ignore[attr-defined]
    monkeypatch.setitem(BACKENDS, "cpu", other)
    assert (warp(image, map) == 7).all()


def test_a_fill_of_minus_zero_leaves_no_sign_behind() -> None:
    image, nowhere = pictures(1, (5, 6)), torch.full((1, 3, 2), float("nan"))
    for fill in (-0.0, 0.0):
        assert not torch.signbit(sample(image, nowhere, fill=fill)).any()


class LyingMap(Map):
    """A map whose lowered form is not what it says."""

    dims, batch = 2, 1

    def __init__(self, form: lowered.Lowered) -> None:
        self.form = form

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def lower(self, size: Sequence[int], *, align_corners: bool = False) -> lowered.Lowered:
        return self.form

    def displacement(self, xy: Tensor) -> Tensor:
        return torch.zeros_like(xy)


@pytest.mark.parametrize(
    "form",
    [
        lowered.Matrix(torch.eye(2, 3).repeat(3, 1, 1)),
        lowered.Field(torch.zeros(1, 2, 3, 2)),
        lowered.Basis(torch.zeros(2, 3, 4), torch.zeros(1, 4, 2)),
        lowered.Basis(torch.zeros(5, 6, 4), torch.zeros(1, 3, 2)),
    ],
    ids=["batch", "field", "basis", "coefficients"],
)
def test_a_lowered_form_that_does_not_fit_is_refused(form: lowered.Lowered) -> None:
    with pytest.raises(ValueError, match="map: wanted"):
        warp(pictures(2, (5, 6), dtype=torch.float32), LyingMap(form), backend="cpu")


def test_numbers_that_do_not_lie_as_they_are() -> None:
    """A fake tensor has none; one to be read negated has others."""
    image, points = pictures(1, (5, 6), dtype=torch.float32), torch.zeros(1, 3, 2)
    wanted = -sample(image, points)
    assert torch.equal(sample(torch._neg_view(image), points), wanted)
    seen = image.clone().requires_grad_()
    sample(seen, points).backward(torch._neg_view(torch.ones_like(wanted)))
    assert seen.grad is not None
    assert (seen.grad <= 0).all()
    fake = FakeTensorMode(allow_non_fake_inputs=True).from_tensor(image)
    assert sample(fake, points).shape == wanted.shape
