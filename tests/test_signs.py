"""GTSRB in its published layout and as the compact archive: classes, tracks that stay together, the official test."""

from pathlib import Path

import numpy as np
import pytest
from photo_folder import sign_folder

from torch_stn.lab.config import override
from torch_stn.lab.data.photos import Photos, load_photos
from torch_stn.lab.errors import UserError
from torch_stn.lab.experiments.signs import CONFIG


def read(path: Path, *words: str) -> Photos:
    return load_photos(override(CONFIG, [f"data={path}", "size=16", *words]), lambda line: None)


def compact(path: Path) -> Path:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    label = np.repeat([3, 14], 6)
    track, frame = np.tile(np.repeat([0, 1], 3), 2), np.tile([5, 11, 17], 4)
    sizes = random.integers(20, 90, (18, 2))
    np.savez(
        path / "gtsrb32.npz",
        train_x=pixels[:12], train_y=label, train_track=track, train_frame=frame, train_orig_wh=sizes[:12],
        test_x=pixels[12:], test_y=np.array([3, 3, 3, 14, 14, 14]), test_orig_wh=sizes[12:],
    )  # fmt: skip
    return path


def test_the_published_layout(tmp_path: Path) -> None:
    photos = read(sign_folder(tmp_path))
    assert photos.classes == ("00003", "00014")
    assert photos.train_labels.tolist() == [0] * 6 + [1] * 6
    assert (photos.test_labels.tolist(), photos.test_files) == (
        [1, 1, 0, 0], tuple(f"test/{index:05d}.ppm" for index in range(4)),
    )  # fmt: skip
    assert photos.name == "GTSRB"


def test_the_archive(tmp_path: Path) -> None:
    photos = read(compact(tmp_path), "size=32")
    archive = np.load(tmp_path / "gtsrb32.npz")
    assert np.array_equal(photos.train_images, archive["train_x"])
    assert np.array_equal(photos.test_images, archive["test_x"])
    assert photos.classes == ("00003", "00014")
    assert photos.test_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert read(tmp_path, "grey=true").train_images.shape == (12, 16, 16, 1)


@pytest.mark.parametrize("make", [sign_folder, compact])
def test_tracks_of_the_training_set_are_held_out_together(tmp_path: Path, make: object) -> None:
    photos = read(make(tmp_path), "validation=0.5")  # type: ignore[operator]
    assert (len(photos.train_images), len(photos.test_images)) == (6, 6)
    tracks = {name.rpartition("_")[0] for name in photos.test_files}
    assert len(tracks) == 2
    assert photos.name == "GTSRB (tracks held out)"


def test_what_is_no_gtsrb_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_STN_DATA", raising=False)
    with pytest.raises(UserError, match="no GTSRB here; wanted gtsrb32"):
        read(tmp_path)
    with pytest.raises(UserError, match="or TORCH_STN_DATA set"):
        load_photos(CONFIG, lambda line: None)
    truth = sign_folder(tmp_path) / "Final_Test" / "Images" / "GT-final_test.csv"
    truth.write_text("a;b\n")
    with pytest.raises(UserError, match="wanted the columns Filename and ClassId"):
        read(tmp_path)
    truth.unlink()
    with pytest.raises(UserError, match=r"no GT-final_test\.csv"):
        read(tmp_path)
    (tmp_path / "gtsrb32.npz").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match="cannot be read as the archive"):
        read(tmp_path)


def test_the_real_archive_is_complete(real_data: Path) -> None:
    if not (real_data / "gtsrb" / "gtsrb32.npz").exists():
        pytest.skip("no gtsrb/gtsrb32.npz in TORCH_STN_DATA")
    photos = load_photos(override(CONFIG, [f"data={real_data / 'gtsrb'}"]), lambda line: None)
    assert (len(photos.train_images), len(photos.test_images), len(photos.classes)) == (6534, 12630, 43)
