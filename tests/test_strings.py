"""Digit strings: labels, what they depend on, where they stand, whether they can be seen."""

import pytest
import torch
from torch import Tensor

from torch_stn.lab.data.backgrounds import PHOTOGRAPHS, photographs
from torch_stn.lab.data.digits import load_digits
from torch_stn.lab.data.kinds import KINDS
from torch_stn.lab.data.strings import CONTRAST, LENGTHS, NONE, draw_strings
from torch_stn.lab.errors import UserError

COUNT = 400


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    found = load_digits("embedded")
    return torch.from_numpy(found.train_images), torch.from_numpy(found.train_labels)


def drawn(digits: tuple[Tensor, Tensor], size: int, seed: int = 3, count: int = COUNT) -> tuple[Tensor, Tensor]:
    each = torch.arange(count)
    return draw_strings(*digits, each, each + 10_000, seed, size, photographs())


@pytest.fixture(scope="module", params=[64, 128])
def batch(request: pytest.FixtureRequest, digits: tuple[Tensor, Tensor]) -> tuple[int, Tensor, Tensor]:
    return request.param, *drawn(digits, request.param)


def test_pictures_and_labels(batch: tuple[int, Tensor, Tensor], digits: tuple[Tensor, Tensor]) -> None:
    size, images, labels = batch
    assert (images.shape, images.dtype, labels.shape) == ((COUNT, 3, size, size), torch.float32, (COUNT, 5))
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert torch.equal(labels[:, 0], digits[1][:COUNT])  # the first digit is the one asked for
    there = labels != NONE
    assert torch.equal(there, there.long().cummin(dim=1).values.bool())  # digits first, then none
    shares = torch.bincount(there.sum(dim=1), minlength=6)[1:] / COUNT
    assert (shares - torch.tensor(LENGTHS)).abs().max() < 0.08  # three deviations of 400 draws
    assert set(labels[there].tolist()) == set(range(10))


@pytest.mark.parametrize("size", [64, 128])
def test_a_string_is_a_function_of_seed_and_sample(digits: tuple[Tensor, Tensor], size: int) -> None:
    images, labels = drawn(digits, size, count=12)
    some = torch.tensor([7, 2])
    again, their_labels = draw_strings(*digits, some, some + 10_000, 3, size, photographs())
    assert torch.equal(again, images[some])
    assert torch.equal(their_labels, labels[some])
    others, _ = draw_strings(*digits, some, some + 10_000, 4, size, photographs())
    assert not torch.equal(others, again)


def ink_of(digits: tuple[Tensor, Tensor], size: int, levels: tuple[int, int] = (0, 0)) -> Tensor:
    """How far each pixel is from an even background, (B, size, size): on black, the ink's brightness."""
    even = torch.full((1, 3, size, size), levels[0], dtype=torch.uint8)
    each = torch.arange(COUNT)
    images, _ = draw_strings(*digits, each, each, 3, size, even)
    return (images - levels[0] / 255).abs().amax(dim=1)


@pytest.mark.parametrize("level", [0, 120, 255])
def test_strings_stand_out_from_their_background(digits: tuple[Tensor, Tensor], level: int) -> None:
    strongest = ink_of(digits, 64, (level, level)).flatten(1).amax(dim=1)
    assert float(strongest.min()) > 0.9 * CONTRAST


def test_strings_fill_the_small_picture_and_lie_inside(digits: tuple[Tensor, Tensor]) -> None:
    ink = ink_of(digits, 64) > 0.2
    columns = ink.any(dim=1).float().sum(dim=1)
    assert float(columns.mean()) > 0.5 * 64
    border = torch.cat([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], dim=1)
    assert float(border.any(dim=1).float().mean()) < 0.05


def test_on_128_pixels_a_string_lies_off_the_middle_among_pieces(digits: tuple[Tensor, Tensor]) -> None:
    small, large = (ink_of(digits, size) > 0.2 for size in (64, 128))
    middle = torch.arange(128.0)
    rows = (large.sum(dim=2) * middle).sum(dim=1) / large.sum(dim=(1, 2))
    assert 5 < float(rows.std()) < 15
    # The same string in pixels, and at most six pieces of 8 x 8 beside it.
    more = (large.sum(dim=(1, 2)) - small.sum(dim=(1, 2))).float()
    assert 20 < float(more.mean()) < 6 * 64


def test_what_networks_are_told() -> None:
    for size in (64, 128):
        facts = KINDS[f"strings-{size}"].facts
        assert (facts.shape, facts.heads, len(facts.classes)) == ((3, size, size), 5, 11)


def test_a_missing_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    photographs.cache_clear()
    for package, name, says in (
        ("no_such_package", "a.jpg", "package no_such_package, whose photograph a.jpg"),
        ("matplotlib", "a.jpg", r"a\.jpg: no such file in the package matplotlib"),
    ):
        monkeypatch.setattr("torch_stn.lab.data.backgrounds.PHOTOGRAPHS", ((package, name),))
        with pytest.raises(UserError, match=says):
            photographs()
    monkeypatch.undo()
    assert len(photographs()) == len(PHOTOGRAPHS) == 3
