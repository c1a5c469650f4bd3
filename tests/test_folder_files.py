"""Which files a folder holds, and what becomes of them: sizes, depths, orientation, and those that mean harm."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hostile_folder import FOREIGN, LONG, hostile_folder
from photo_folder import COLOURS, photo, photo_folder, read
from PIL import Image

from torch_stn.lab.data.decode import NotAnImageError, decode, hostile_files
from torch_stn.lab.data.listing import list_images, shown
from torch_stn.lab.errors import UserError


def pixels(image: Image.Image, path: Path, *, grey: bool = False, **options: object) -> np.ndarray:
    image.save(path, **options)
    with hostile_files():
        return decode(path, 8, grey=grey)[0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"])
@pytest.mark.parametrize("grey", [False, True])
def test_every_mode_becomes_eight_bits(tmp_path: Path, mode: str, grey: bool) -> None:
    values = np.full((10, 12), 255 if mode == "1" else 128, np.uint8)
    image = Image.fromarray(values)
    if mode in ("I;16", "I"):
        image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    if mode != image.mode:
        image = image.convert(mode)
    found = pixels(image, tmp_path / ("a.tif" if mode == "I" else "a.png"), grey=grey)
    assert found.shape == (8, 8, 1 if grey else 3)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, values.flat[0], atol=1)


def test_cmyk_comes_as_colours(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    found = pixels(red.convert("CMYK"), tmp_path / "a.jpg", quality=95)
    assert found[4, 4, 0] > 200
    assert found[4, 4, 1] < 60


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (pixels(clear, tmp_path / "a.png") == 255).all()
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    np.testing.assert_allclose(pixels(half, tmp_path / "b.png"), 127, atol=1)
    marked = Image.new("P", (8, 8), 3)
    marked.putpalette([0] * 768)
    assert (pixels(marked, tmp_path / "c.png", transparency=3) == 255).all()


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0)), (2, (0, 1))])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_the_picture_is_turned_as_its_exif_data_say(
    tmp_path: Path, orientation: int, corner: tuple[int, int], ending: str
) -> None:
    image = Image.new("RGB", (16, 16))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # bright above left as it lies in the file
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(image, tmp_path / f"a.{ending}", exif=exif)
    bright = found[..., 0].reshape(2, 4, 2, 4).mean(axis=(1, 3))
    assert np.unravel_index(bright.argmax(), (2, 2)) == corner


def test_a_large_jpeg_is_reduced_as_a_plain_resize_would(tmp_path: Path) -> None:
    smooth = photo((200, 90, 20), 1).resize((1200, 900), Image.Resampling.BICUBIC)
    found = pixels(smooth, tmp_path / "a.jpg", quality=95)
    wanted = np.asarray(smooth.resize((8, 8), Image.Resampling.BOX), dtype=float)
    assert np.abs(found - wanted).mean() < 4


def test_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnImageError, match="mode F"):
        pixels(Image.fromarray(np.zeros((8, 8), np.float32)), tmp_path / "a.tif")


def test_the_hostile_folder_is_named_file_by_file(tmp_path: Path) -> None:
    path, bad = hostile_folder(tmp_path / "photos")
    photos, said = read(path)
    reasons = dict(photos.skipped)
    assert reasons.keys() == bad.keys()
    assert len(photos.skipped) == len(bad)
    for name, reason in bad.items():
        assert reason in reasons[name], name
        assert sum(shown(name) in line for line in said) == 1, name
    assert len(photos.train_images) + len(photos.test_images) == 3 * 6 + 3
    assert photos.classes == ("blue", "green", "red")
    assert "  no image in class nothing: left out" in said
    assert "  1 other files (.txt) are no images by their names" in said
    assert f"  skipped {len(bad)} of {len(bad) + 21} files:" in said
    assert not any("\n" in line for line in said)


def test_a_link_gives_no_image_another_class(tmp_path: Path) -> None:
    photo_folder(tmp_path)
    os.symlink(tmp_path / "red", tmp_path / "blue" / "more")  # red comes later than blue
    os.symlink("green", tmp_path / "olive")
    photos, _ = read(tmp_path)
    assert photos.classes == tuple(COLOURS)
    assert len(photos.train_images) + len(photos.test_images) == 18
    assert [name for name, _ in photos.skipped] == ["blue/more", "olive"]


def test_names_of_any_kind_are_one_line() -> None:
    assert shown(FOREIGN) == FOREIGN
    assert len(shown(LONG)) < 110
    assert shown("a\nb\x1b[31m") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m"
    assert shown(os.fsdecode(b"caf\xe9")) == "caf\N{REPLACEMENT CHARACTER}"


def test_a_name_that_is_no_text_trains_all_the_same(tmp_path: Path) -> None:
    photo_folder(tmp_path)
    name = os.path.join(os.fsencode(tmp_path / "red"), b"caf\xe9.png")
    with open(name, "wb") as file:
        photo(COLOURS["red"], 77).save(file, "png")
    photos, _ = read(tmp_path)
    assert len(photos.train_images) + len(photos.test_images) == 19
    assert not photos.skipped


def csv(path: Path, text: str) -> Path:
    file = path / "list.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_csv_file_names_files_and_classes(tmp_path: Path) -> None:
    photo_folder(tmp_path)
    rows = [f"{name}/{index:03d}.{'png' if index % 2 else 'jpg'},{name}" for name in COLOURS for index in range(6)]
    text = "\ufefffile,label\n" + "\n".join([*rows, "red/none.png,red", "red/001.png,blue", "red/001.png,", ",red"])
    photos, _ = read(csv(tmp_path, text))
    assert photos.classes == tuple(COLOURS)
    assert len(photos.train_images) + len(photos.test_images) == 18
    assert [each.reason for each in photos.skipped] == [
        "no such file or directory", "listed twice", "no label", "no file",
    ]  # fmt: skip
    assert photos.name == "list.csv"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_file_may_say_what_is_for_validation(tmp_path: Path, separator: str) -> None:
    photo_folder(tmp_path)
    lines = ["label,split,file"]
    for name in COLOURS:
        lines += [f"{name},{'val' if i < 2 else 'train'},{name}/{i:03d}.{'png' if i % 2 else 'jpg'}" for i in range(6)]
    photos, _ = read(csv(tmp_path, "\n".join(lines).replace(",", separator)))
    assert (len(photos.train_images), len(photos.test_images)) == (12, 6)
    assert all(name.endswith(("000.jpg", "001.png")) for name in photos.test_files)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("file,class\na,b\n", "no column 'label'; wanted file,label, got file, class"),
        ("", "no column 'file'; wanted file,label, got none"),
        ('file,label\n"a,b\n', "is no CSV"),
    ],
)
def test_a_csv_file_that_lacks_something_is_refused_in_a_line(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(UserError) as raised:
        read(csv(tmp_path, text))
    assert wanted in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("counts", "words", "wanted"),
    [
        ({"red": 1}, (), "wanted at least 2 classes with images to train on"),
        ({"red": 5}, (), "got 1 (red)"),
        ({"red": 1, "blue": 1}, (), "validation: no image is left to validate on"),
        ({"red": 3, "blue": 3}, ("validation=0",), "validation: no image is left to validate on"),
    ],
)
def test_too_little_is_refused_in_a_line(
    tmp_path: Path, counts: dict[str, int], words: tuple[str, ...], wanted: str
) -> None:
    with pytest.raises(UserError) as raised:
        read(photo_folder(tmp_path, counts), *words)
    assert wanted in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_folder_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    for path, wanted in (
        (tmp_path / "none", "data: no folder"),
        (tmp_path, "data: no image in a sub-folder"),
        ("", "got none"),
    ):
        with pytest.raises(UserError, match=wanted):
            list_images(path)
