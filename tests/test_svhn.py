"""SVHN's format 1, written as it is published: labels, crops, and one line for each fault."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from number_files import Box, number_folder, row_of, tinted, write_struct

from torch_stn.lab.config import override
from torch_stn.lab.data.photo_set import PhotoSet
from torch_stn.lab.data.photos import Photos
from torch_stn.lab.data.svhn import Box as StructBox
from torch_stn.lab.data.svhn import crop, load_svhn
from torch_stn.lab.errors import UserError
from torch_stn.lab.experiments.numbers import CONFIG

pytest.importorskip("h5py")
SIZE = (100, 50)
# Four numbers of each length from one to five, two of six.
LENGTHS = [1 + k % 5 for k in range(20)] + [6, 6]
NUMBERS = [[(7 * k + 3 * place) % 10 for place in range(length)] for k, length in enumerate(LENGTHS)]


def read(folder: Path, *words: str) -> Photos:
    return load_svhn(override(CONFIG, ["source=svhn", f"data={folder}", "size=64", *words]), lambda line: None)


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Train: 22 numbers of one to six digits and 8 with a fault; test: 3."""
    entries: list[tuple[str, Sequence[Box]]] = [(f"{k}.png", row_of(digits)) for k, digits in enumerate(NUMBERS, 1)]
    entries += [
        ("23.png", row_of([1, 2])),  # no such file
        ("24.png", [(120, 10, 10, 20, 3)]),  # right of its photograph
        ("25.png", [*row_of([4]), (40, -30, 10, 20, 5)]),  # its second box is above it
        ("26.png", [(20, 10, 0, 20, 6)]),  # no width
        ("27.png", [(20, 10, 10, 20, 11)]),  # no digit
        ("28.png", row_of([7])),  # cut short
        ("29.png", row_of([8])),  # no picture
        ("30.png", []),  # no box
    ]
    train = tmp_path / "train"
    train.mkdir()
    for name, boxes in entries:
        tinted(SIZE, [box for box in boxes if 0 <= box[0] < SIZE[0] and box[1] >= 0]).save(train / name)
    (train / "23.png").unlink()
    (train / "28.png").write_bytes((train / "28.png").read_bytes()[:60])
    (train / "29.png").write_text("not a picture")
    write_struct(train / "digitStruct.mat", entries)
    number_folder(tmp_path / "test", [[0], [1, 0], [9, 9, 1]], SIZE)
    return tmp_path


def test_labels_of_every_length(street: Path) -> None:
    photos = read(street)
    wanted = [digits + [10] * (5 - len(digits)) for digits in NUMBERS if len(digits) <= 5]
    assert photos.train_labels.tolist() == wanted
    assert photos.test_labels.tolist() == [[0, 10, 10, 10, 10], [1, 0, 10, 10, 10], [9, 9, 1, 10, 10]]
    assert photos.test_files == ("test/1.png", "test/2.png", "test/3.png")
    assert photos.summary[1] == "  digits: 5 of 1, 5 of 2, 5 of 3, 4 of 4, 4 of 5; left out: 2 of more"


def test_one_line_for_each_fault(street: Path) -> None:
    assert {each.name: each.reason for each in read(street).skipped} == {
        "train/21.png": "more than 5 digits",
        "train/22.png": "more than 5 digits",
        "train/23.png": "no such file",
        "train/24.png": "a box (120, 10, 10 x 20) outside its 100 x 50 pixels",
        "train/25.png": "a box (40, -30, 10 x 20) outside its 100 x 50 pixels",
        "train/26.png": "a box of 0 x 20 pixels",
        "train/27.png": "label 11, wanted 1 to 10",
        "train/28.png": "broken: image file is truncated",
        "train/29.png": "no png",
        "train/30.png": "it has no digits",
    }


def test_crops_show_the_digits_in_their_order(street: Path) -> None:
    # 1.3 times the box of all digits: a margin of 0.15 / 1.3 of the side on each side, the digits between.
    photos = read(street)
    margin = 0.15 / 1.3
    for image, label in zip(photos.train_images, photos.train_labels, strict=True):
        digits = label[label < 10]
        centres = (margin + (np.arange(len(digits)) + 0.5) / len(digits) * (1 - 2 * margin)) * 64
        greys = image[32, centres.astype(int), 0].astype(int)
        assert np.abs(greys - (20 * digits + 40)).max() <= 1
        outside = int(margin * 64) - 2
        assert image[:outside].max() == image[-outside:].max() == image[:, :outside].max() == 0


def test_the_looser_crop_has_four_times_the_background() -> None:
    boxes = [StructBox(200, 100, 10, 20, 1), StructBox(212, 104, 10, 20, 2)]  # together 200..222, 100..124
    assert crop(boxes, (500, 400), 1.3) == pytest.approx((211 - 14.3, 112 - 15.6, 211 + 14.3, 112 + 15.6))
    assert crop(boxes, (500, 400), 2.6) == pytest.approx((211 - 28.6, 112 - 31.2, 211 + 28.6, 112 + 31.2))
    assert crop(boxes, (230, 120), 2.6) == pytest.approx((211 - 28.6, 112 - 31.2, 230, 120))  # cut at the edges


def test_crops_at_128(street: Path) -> None:
    photos = read(street, "size=128")
    assert photos.train_images.shape == (20, 128, 128, 3)
    # The fifth number, 8 1 4 7 0, has boxes from 20 to 70, so its crop from -20 to 110 is cut to all of the width.
    assert NUMBERS[4] == [8, 1, 4, 7, 0]
    at = [int(128 * (25 + 10 * k) / 100) for k in range(5)]
    # From top to bottom too: 25 - 26 to 25 + 26.
    assert photos.train_images[4, 64, at, 0].tolist() == [200, 60, 120, 180, 40]


def test_numbers_held_out(street: Path) -> None:
    photos = read(street, "validation=0.25")
    assert (len(photos.train_labels), len(photos.test_labels)) == (15, 5)
    assert {name.split("/")[0] for name in photos.test_files} == {"train"}
    assert photos.name == "SVHN 64 px (numbers held out)"


def test_extra_is_learned_from(street: Path) -> None:
    number_folder(street / "extra", [[5, 5]], SIZE)
    photos = read(street)
    assert photos.train_labels[-1].tolist() == [5, 5, 10, 10, 10]
    assert len(photos.test_labels) == 3


def test_five_heads_reach_the_network(street: Path) -> None:
    data = PhotoSet(read(street), override(CONFIG, ["source=svhn", f"data={street}", "size=64"]))
    assert (data.facts.heads, data.facts.classes[-1], data.facts.shape) == (5, "none", (3, 64, 64))
    batch = data.training_batch(0, 4)
    assert batch.images.shape == (4, 3, 64, 64)
    assert batch.labels.tolist() == data.train[1][batch.indices].tolist()


@pytest.mark.parametrize("cut", [0, 100, 4000])
def test_a_truncated_struct_is_refused_by_name(street: Path, cut: int) -> None:
    path = street / "train" / "digitStruct.mat"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"train/digitStruct\.mat: cannot be read as the boxes of SVHN's format 1: .+"):
        read(street)


def test_a_damaged_entry_is_told_and_the_rest_goes_on(street: Path) -> None:
    import h5py

    with h5py.File(street / "train" / "digitStruct.mat", "r+") as file:
        del file[file["digitStruct/bbox"][2, 0]]["label"]
    photos = read(street)
    assert photos.skipped[0] == ("train/3.png", "its entry in digitStruct.mat is damaged")
    assert len(photos.train_labels) == 19


def test_a_name_that_leads_elsewhere_is_refused(street: Path) -> None:
    write_struct(street / "test" / "digitStruct.mat", [("../train/1.png", row_of([1])), ("2.png", row_of([1, 0]))])
    photos = read(street)
    assert ("test/../train/1.png", "its name is none of a file beside it") in photos.skipped
    assert photos.test_files == ("test/2.png",)


def test_what_is_not_there(street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (street / "test" / "digitStruct.mat").unlink()
    with pytest.raises(UserError, match=r"test/digitStruct\.mat: no such file; wanted the folders train and test"):
        read(street)
    with pytest.raises(UserError, match="nowhere: no folder train; wanted the folders train and test"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="size: wanted 64 or 128 for SVHN, got 32"):
        read(street, "size=32")
    monkeypatch.setenv("TORCH_STN_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"data/svhn: no folder train"):
        load_svhn(override(CONFIG, ["source=svhn", "data=", "size=64"]), lambda line: None)


def test_without_h5py(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="h5py is missing"):
        read(street)
