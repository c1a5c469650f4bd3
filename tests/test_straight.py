"""What plain calls remember: for each question its own answer, the one that the general way gives."""

from typing import Any

import pytest
import torch
from cases import draw, pictures

from torch_stn import Affine, Projective, Translation, sample, warp

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
