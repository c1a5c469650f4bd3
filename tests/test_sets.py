"""Sets of distorted digits: batches are functions of numbers alone, ranks share them out, tests stay what they are."""

import pytest
import torch
from tiny_run import tiny_digits
from torch import Tensor

from torch_stn.lab.data import sets
from torch_stn.lab.data.distortions import DISTORTIONS, distort
from torch_stn.lab.data.draws import batch_indices
from torch_stn.lab.data.sets import DRAWN_AT_ONCE, TEST_SEED, Batch, DigitSet, PosedBatch

KINDS = list(DISTORTIONS)
DIGITS = tiny_digits()
TRAIN, TEST = len(DIGITS.train_labels), len(DIGITS.test_labels)


def digit_set(kind: str = "r", seed: int = 0) -> DigitSet:
    return DigitSet(DIGITS, kind, seed)


def same(a: Batch | PosedBatch, b: Batch | PosedBatch) -> bool:
    return a.images.equal(b.images) and a.labels.equal(b.labels) and a.samples.equal(b.samples)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_pictures_classes_and_samples(kind: str) -> None:
    batch = digit_set(kind).training_batch(3, 16)
    side = DISTORTIONS[kind].size
    assert batch.images.shape == (16, 1, side, side)
    assert batch.images.dtype == torch.float32
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert batch.labels.dtype == torch.int64
    assert batch.samples.tolist() == list(range(48, 64))
    posed = digit_set(kind).test_batch(0, torch.arange(16))
    assert posed.images.shape == batch.images.shape
    assert posed.map.grid((side, side)).shape == (16, side, side, 2)
    assert digit_set(kind).name == DISTORTIONS[kind].name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_draw_what_one_rank_draws(kind: str, ranks: int) -> None:
    data = digit_set(kind)
    step = TRAIN // 16  # this batch straddles two passes over the digits
    whole = data.training_batch(step, 16)
    shares = [data.training_batch(step, 16, rank, ranks) for rank in range(ranks)]
    assert torch.cat([share.images for share in shares]).equal(whole.images)
    assert torch.cat([share.labels for share in shares]).equal(whole.labels)
    assert torch.cat([share.samples for share in shares]).equal(whole.samples)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first = digit_set().training_batch(5, 8)
    torch.manual_seed(7)
    data = digit_set()
    for step in (9, 0, 6):  # whatever was drawn before
        data.training_batch(step, 8)
    assert same(data.training_batch(5, 8), first)
    assert not same(data.training_batch(6, 8), first)
    assert not same(digit_set(seed=1).training_batch(5, 8), first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_what_its_own_draw_gives(kind: str) -> None:
    """Several steps are drawn at once: the first and the last of such a group, and the first of the next, are those
    that a draw of the one batch gives."""
    size, ranks = 24, 2
    group = DRAWN_AT_ONCE * ranks // size
    data, own = digit_set(kind), torch.from_numpy(DIGITS.train_images)
    for step in (0, group - 1, group, 1):
        batch = data.training_batch(step, size, 1, ranks)
        samples = torch.arange(step * size + size // 2, (step + 1) * size)
        assert batch.samples.equal(samples)
        indices = batch_indices(0, int(samples[0]), len(samples), TRAIN)
        assert batch.labels.equal(torch.from_numpy(DIGITS.train_labels)[indices])
        torch.testing.assert_close(batch.images, distort(kind, own, indices, samples, 0).images, rtol=0, atol=1e-5)


def test_a_batch_does_not_depend_on_where_training_began() -> None:
    """A resumed run begins within a group of steps that are drawn at once; not a bit may differ."""
    unbroken = digit_set("e")
    for step in range(70):
        batch = unbroken.training_batch(step, 8)
        if step in (1, 40, 63, 64, 69):
            assert same(digit_set("e").training_batch(step, 8), batch)


def test_the_samples_do_not_depend_on_the_size_of_the_batch() -> None:
    data = digit_set()
    large = data.training_batch(0, 24)
    small = [data.training_batch(step, 8) for step in range(3)]
    assert torch.cat([batch.images for batch in small]).equal(large.images)
    assert torch.cat([batch.labels for batch in small]).equal(large.labels)


def test_each_pass_shows_every_digit_once_in_another_order() -> None:
    data = digit_set("plain")
    passes = []
    for first in (0, TRAIN // 8):
        batches = [data.training_batch(first + step, 8) for step in range(TRAIN // 8)]
        passes.append(torch.cat([batch.images for batch in batches])[:, 0].flatten(1))
    digits = torch.from_numpy(DIGITS.train_images).flatten(1).float() / 255

    def ordered(x: Tensor) -> list[tuple[float, ...]]:
        return sorted(tuple(row) for row in x.tolist())

    assert ordered(passes[0]) == ordered(digits) == ordered(passes[1])
    assert not passes[0].equal(passes[1])
    assert not passes[0].equal(digits)


def test_a_digit_is_distorted_anew_in_each_pass() -> None:
    data = digit_set("r")
    seen: dict[int, list[Tensor]] = {}
    for step in range(2 * TRAIN // 8):
        batch = data.training_batch(step, 8)
        for label, image in zip(batch.labels.tolist(), batch.images, strict=True):
            seen.setdefault(label, []).append(image)
    for images in seen.values():
        assert len(torch.stack(images).unique(dim=0)) == len(images)


@pytest.mark.parametrize("kind", KINDS)
def test_test_sets_are_fixed_whatever_the_seed(kind: str) -> None:
    indices = torch.tensor([5, 0, 41])
    first, other = (digit_set(kind, seed).test_batch(2, indices) for seed in (0, 1))
    assert same(first, other)
    assert first.labels.equal(torch.from_numpy(DIGITS.test_labels)[indices])
    # And is what the pinned seed and the sample's number say.
    expected = distort(kind, torch.from_numpy(DIGITS.test_images), indices, indices + 2 * TEST, TEST_SEED)
    assert first.images.equal(expected.images)
    assert TEST_SEED == 2015


@pytest.mark.parametrize("kind", KINDS)
def test_test_digits_do_not_depend_on_the_batch_they_come_in(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = digit_set(kind)
    whole = data.test_batch(1, torch.arange(TEST))
    monkeypatch.setattr(sets, "TEST_BATCH", 7)
    parts = list(data.test_batches(1))
    assert len(parts) == -(-TEST // 7)
    assert torch.cat([part.images for part in parts]).equal(whole.images)
    assert torch.cat([part.labels for part in parts]).equal(whole.labels)


def test_distortions_of_the_test_set_differ() -> None:
    data = digit_set("rts")
    images = [data.test_batch(number, torch.arange(TEST)).images for number in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not (images[a] == images[b]).flatten(1).all(dim=1).any()
    samples = torch.cat([data.test_batch(number, torch.arange(TEST)).samples for number in range(3)])
    assert len(samples.unique()) == 3 * TEST


def test_the_dozen_shows_every_class_and_two_of_2_and_4() -> None:
    dozen = digit_set().dozen()
    assert len(dozen.unique()) == 12
    labels = torch.from_numpy(DIGITS.test_labels)[dozen]
    assert labels.tolist() == [*range(10), 2, 4]
    assert digit_set("e", 9).dozen().equal(dozen)
