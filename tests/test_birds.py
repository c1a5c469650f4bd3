"""CUB-200-2011 in its published layout and as the compact archive: species, the official split, faults."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from photo_folder import COLOURS, SPECIES, bird_folder, photo

from torch_stn.lab.config import override
from torch_stn.lab.data.photos import Photos, load_photos
from torch_stn.lab.errors import UserError
from torch_stn.lab.experiments.birds import CONFIG


def read(path: Path, *words: str) -> Photos:
    return load_photos(override(CONFIG, [f"data={path}", "size=16", *words]), lambda line: None)


def compact(path: Path) -> Path:
    files = []
    for index in range(8):
        buffer = BytesIO()
        photo(list(COLOURS.values())[index // 4], index).save(buffer, "JPEG")
        files.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    np.savez(
        path / "cub100_128.npz",
        jpeg=np.concatenate(files), offsets=np.cumsum([0, *map(len, files)]),
        label=np.repeat(np.int16([1, 0]), 4), is_train=np.tile([True, True, True, False], 2),
        classes=np.array([name[4:] for name in SPECIES]),
    )  # fmt: skip
    return path


def test_the_published_layout(tmp_path: Path) -> None:
    photos = read(bird_folder(tmp_path))
    assert photos.classes == SPECIES
    assert photos.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert photos.test_labels.tolist() == [0, 1]
    assert photos.test_files[0] == f"{SPECIES[0]}/Black_footed_Albatross_0003_4.jpg"
    assert photos.name == "CUB-200-2011"
    assert np.array_equal(read(tmp_path / "CUB_200_2011").train_images, photos.train_images)


def test_the_archive(tmp_path: Path) -> None:
    photos = read(compact(tmp_path), "size=24")
    assert photos.classes == ("Black_footed_Albatross", "Laysan_Albatross")
    assert photos.train_labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert photos.test_labels.tolist() == [1, 0]
    assert photos.name == "CUB-200-2011, 100 species"


@pytest.mark.parametrize("make", [bird_folder, compact])
def test_with_validation_the_official_test_is_not_read(tmp_path: Path, make: object) -> None:
    official = {image.tobytes() for image in read(make(tmp_path)).test_images}  # type: ignore[operator]
    photos = read(tmp_path, "validation=0.4")
    assert (len(photos.train_images), len(photos.test_images)) == (4, 2)
    assert not official & {image.tobytes() for image in (*photos.train_images, *photos.test_images)}
    assert photos.name.endswith("(held out)")


def test_faults_are_named(tmp_path: Path) -> None:
    bird_folder(tmp_path)
    folder = tmp_path / "CUB_200_2011"
    next((folder / "images" / SPECIES[0]).glob("*_0000_*")).unlink()
    (folder / "image_class_labels.txt").write_text(
        (folder / "image_class_labels.txt").read_text().replace("6 2", "6 9")
    )
    photos = read(tmp_path)
    assert len(photos.train_images) == 4
    assert [(each.name.split("/")[0], each.reason) for each in photos.skipped] == [
        (name, "no class, no side of the split, or no such file") for name in SPECIES
    ]
    (folder / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes\.txt: cannot be read; wanted cub100_128\.npz, or the folder"):
        read(tmp_path)


def test_a_broken_archive_is_refused_and_a_broken_photo_named(tmp_path: Path) -> None:
    compact(tmp_path)
    archive = dict(np.load(tmp_path / "cub100_128.npz"))
    archive["jpeg"] = archive["jpeg"].copy()
    archive["jpeg"][: archive["offsets"][1]] = 0
    np.savez(tmp_path / "cub100_128.npz", **archive)
    assert [each.name for each in read(tmp_path).skipped] == ["Laysan_Albatross/0000.jpg"]
    (tmp_path / "cub100_128.npz").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"cub100_128\.npz: cannot be read as the archive of birds"):
        read(tmp_path)


def test_nothing_named_and_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_STN_DATA", raising=False)
    with pytest.raises(UserError, match="TORCH_STN_DATA set to the folder above it"):
        load_photos(CONFIG, lambda line: None)


def test_the_real_birds(real_data: Path) -> None:
    if not (real_data / "cub100" / "cub100_128.npz").exists():
        pytest.skip("no cub100/cub100_128.npz in TORCH_STN_DATA")
    photos = load_photos(override(CONFIG, [f"data={real_data / 'cub100'}", "size=16"]), lambda line: None)
    assert (len(photos.train_images), len(photos.test_images), len(photos.classes)) == (2999, 2903, 100)
