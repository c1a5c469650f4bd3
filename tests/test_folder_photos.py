"""A folder's images in memory: which are held out, and batches that are functions of (seed, step, place)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from photo_folder import COLOURS, folder_config, photo, photo_folder, read

from torch_stn.lab import models
from torch_stn.lab.data.augment import augment, poses
from torch_stn.lab.data.photo_set import PhotoSet, facts_of
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.train import classification_loss


def test_a_share_of_every_class_is_held_out_by_the_seed(tmp_path: Path) -> None:
    photo_folder(tmp_path, {"red": 10, "blue": 5, "green": 1})
    photos, _ = read(tmp_path, "validation=0.2")
    assert np.bincount(photos.test_labels, minlength=3).tolist() == [1, 0, 2]  # a single image is trained on
    assert np.bincount(photos.train_labels, minlength=3).tolist() == [4, 1, 8]
    same, _ = read(tmp_path, "validation=0.2")
    assert same.test_files == photos.test_files
    assert same.digest == photos.digest
    others = {read(tmp_path, "validation=0.2", f"seed={seed}")[0].test_files for seed in range(5)}
    assert len(others) > 2


def test_frames_of_one_film_are_held_out_together(tmp_path: Path) -> None:
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for film in range(5):
            for frame in range(3):
                photo(COLOURS[name], 15 * film + frame).save(tmp_path / name / f"film-{film}_{frame}.png")
    photos, _ = read(tmp_path, "together=_", "validation=0.4")
    films: dict[str, int] = {}
    for name in photos.test_files:
        films[name.rpartition("_")[0]] = films.get(name.rpartition("_")[0], 0) + 1
    assert len(films) == 3 * 2
    assert set(films.values()) == {3}


def test_folders_train_and_val_are_the_split(tmp_path: Path) -> None:
    photo_folder(tmp_path / "train", 4)
    photo_folder(tmp_path / "val", {"red": 2, "blue": 1})
    (tmp_path / "val" / "strange").mkdir()
    (tmp_path / "train" / "red" / "000.jpg").rename(tmp_path / "val" / "strange" / "000.jpg")
    photos, _ = read(tmp_path)
    assert photos.classes == tuple(COLOURS)
    assert (len(photos.train_images), len(photos.test_images)) == (11, 3)
    assert [(each.name, each.reason) for each in photos.skipped] == [
        ("val/strange/000.jpg", "its class has no training image")
    ]


def test_uneven_classes_are_spoken_of(tmp_path: Path) -> None:
    photo_folder(tmp_path, {"red": 20, "blue": 3})
    assert any("classes are uneven, 2 to 16" in line for line in read(tmp_path)[1])
    assert not any("classes are uneven" in line for line in read(tmp_path, "balance=draws")[1])


def test_the_facts_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    photos, _ = read(photo_folder(tmp_path))
    facts = facts_of(photos)
    pixels = photos.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(facts.mean, pixels.mean(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(facts.deviation, pixels.std(axis=(0, 1, 2)), atol=1e-6)
    assert facts.shape == (3, 16, 16)


def data(path: Path, *words: str) -> PhotoSet:
    return PhotoSet(read(path, *words)[0], folder_config(path, *words))


@pytest.mark.parametrize("balance", ["none", "draws"])
def test_ranks_draw_together_what_one_would(tmp_path: Path, balance: str) -> None:
    photo_folder(tmp_path)
    words = ("flip=true", f"balance={balance}")
    one, two = data(tmp_path, *words), data(tmp_path, *words)
    for step in (0, 3, 1):  # in any order
        whole = one.training_batch(step, 8)
        parts = [two.training_batch(step, 8, rank, 2) for rank in (0, 1)]
        for key in ("labels", "samples", "indices"):
            assert torch.equal(torch.cat([getattr(part, key) for part in parts]), getattr(whole, key))
        torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images)
    assert not torch.equal(
        data(tmp_path, *words, "seed=1").training_batch(0, 8).images, one.training_batch(0, 8).images
    )


def test_every_image_comes_once_a_pass(tmp_path: Path) -> None:
    images = data(photo_folder(tmp_path, 5), "validation=0.2")  # 12 to train on
    drawn = torch.cat([images.training_batch(step, 4).indices for step in range(3)])
    assert drawn.sort().values.tolist() == list(range(12))


def test_balanced_draws_see_every_class_as_often(tmp_path: Path) -> None:
    images = data(photo_folder(tmp_path, {"red": 12, "green": 3, "blue": 2}), "balance=draws")
    batch = images.training_batch(0, 3000)
    shares = torch.bincount(batch.labels) / 3000
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.04, rtol=0)
    assert torch.equal(images.train[1][batch.indices], batch.labels)
    assert len(batch.indices.unique()) == len(images.train[1])


def test_weights_make_every_class_count_the_same(tmp_path: Path) -> None:
    images = data(photo_folder(tmp_path, {"red": 12, "green": 3, "blue": 2}), "balance=weights")
    assert images.class_weights is not None
    counts = torch.bincount(images.train[1])
    torch.testing.assert_close(images.class_weights * counts, torch.full((3,), len(images.train[1]) / 3))
    scores, labels = torch.randn(8, 3), torch.randint(0, 3, (8,))
    halves = [
        classification_loss(half, of, 0.1, images.class_weights)
        for half, of in zip(scores.split(4), labels.split(4), strict=True)
    ]
    torch.testing.assert_close(sum(halves) / 2, classification_loss(scores, labels, 0.1, images.class_weights))
    ones = torch.ones(3)
    torch.testing.assert_close(classification_loss(scores, labels, 0.1, ones), classification_loss(scores, labels, 0.1))


def test_augmentation_stays_within_its_limits() -> None:
    samples = torch.arange(500)
    theta = poses(samples, 0, 0.1, flip=False)
    determinant = theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]
    assert float(determinant.sqrt().log().abs().max()) <= 0.1 + 1e-6
    assert float(theta[:, :, 2].abs().max()) <= 0.2
    assert float(torch.atan2(theta[:, 1, 0], theta[:, 0, 0]).abs().max()) <= 0.1 + 1e-6
    mirrored = poses(samples, 0, 0.0, flip=True)[:, 0, 0] < 0
    assert 200 < int(mirrored.sum()) < 300
    images = torch.rand(6, 3, 8, 8)
    assert torch.equal(augment(images, samples[:6], 0), images)
    flipped = augment(images, samples[:6], 0, flip=True)
    for image, other, turned in zip(images, flipped, mirrored, strict=False):
        torch.testing.assert_close(other, image.flip(-1) if turned else image, atol=1e-5, rtol=0)
    bright = augment(images, samples[:6], 0, colour=0.5)
    assert 0 <= float(bright.min()) <= float(bright.max()) <= 1
    assert not torch.equal(bright, images)


@pytest.mark.parametrize(
    "words",
    [
        ("transform=none",), ("transform=affine",), ("transform=tps",), ("transform=projective", "iterations=3"),
        ("transform=attention", "count=2", "crop=8"), ("transform=similarity", "count=3"), ("grey=true",),
        ("norm=batch",), ("size=32",), ("size=120",), ("transform=affine", "count=4", "crop=8", "size=32"),
    ],
)  # fmt: skip
def test_a_network_for_every_choice(tmp_path: Path, words: tuple[str, ...]) -> None:
    photos, _ = read(photo_folder(tmp_path), *words)
    config = folder_config(tmp_path, *words)
    model = models.build(config, facts_of(photos)).train()
    batch = PhotoSet(photos, config).training_batch(0, 4)
    model(batch.images).sum().backward()
    assert model(batch.images).shape == (4, 3)
    assert all(parameter.grad is not None for parameter in model.parameters())
    if isinstance(model, Aligned) and model.transformer.count == 1:
        torch.testing.assert_close(model.transformer(batch.images), batch.images, atol=1e-4, rtol=0)


def test_with_group_norm_an_image_is_judged_alone(tmp_path: Path) -> None:
    photos, _ = read(photo_folder(tmp_path))
    model = models.build(folder_config(tmp_path), facts_of(photos)).train()
    images = PhotoSet(photos, folder_config(tmp_path)).training_batch(0, 8).images
    torch.testing.assert_close(model(images)[:3], model(images[:3]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("transform=none", "count=2"), "transform=none: wanted no count"),
        (("count=2", "iterations=2"), "iterations: wanted 1 with count=2"),
        (("transform=polar", "iterations=2"), "which has|has no identity"),
        (("transform=afine",), "nearest: affine"),
    ],
)
def test_what_cannot_be_built_is_refused(tmp_path: Path, words: tuple[str, ...], wanted: str) -> None:
    photos, _ = read(photo_folder(tmp_path))
    with pytest.raises(UserError, match=wanted):
        models.build(folder_config(tmp_path, *words), facts_of(photos))


def test_several_windows_start_spread_over_the_image(tmp_path: Path) -> None:
    photos, _ = read(photo_folder(tmp_path))
    for transform in ("attention", "affine"):
        config = folder_config(tmp_path, "count=4", f"transform={transform}", "crop=8")
        model = models.build(config, facts_of(photos))
        assert isinstance(model, Aligned)
        boxes = model.transformer.boxes(model.transformer.theta(torch.rand(1, 3, 16, 16)), (16, 16))[0]
        wanted = torch.tensor([[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]]) - 0.5
        torch.testing.assert_close(boxes, wanted, atol=1e-4, rtol=0)
