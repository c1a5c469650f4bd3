"""`stn predict` with networks of digits: how a file becomes a digit on the canvas, and what is printed."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import complaint, move_to, stn
from PIL import Image, ImageOps
from tiny_run import tiny_digits, tiny_train
from typer.testing import CliRunner

from torch_stn.lab import models, predict, zoo
from torch_stn.lab.cli import app
from torch_stn.lab.data.digit_files import place
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.run_folder import RunFolder

COUNT = 12


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


# The canvas


def test_a_picture_of_the_set_itself_comes_through_as_it_is() -> None:
    for digit in tiny_digits().test_images[:20]:
        assert np.array_equal(np.asarray(place(picture(digit), 28)), digit)


def test_a_smaller_picture_stands_in_the_middle_at_its_own_size() -> None:
    digit = tiny_digits().test_images[0]
    canvas = np.asarray(place(picture(digit), 42))
    assert canvas.shape == (42, 42)
    assert np.array_equal(canvas[7:35, 7:35], digit)
    assert canvas.sum() == digit.sum()


def test_a_dark_digit_on_white_is_turned_to_its_negative() -> None:
    digit = tiny_digits().test_images[3]
    turned = place(ImageOps.invert(picture(digit)), 28)
    assert digit.max() == 255
    assert np.array_equal(np.asarray(turned), digit)


def test_grey_paper_becomes_black_and_ink_white() -> None:
    pixels = np.full((28, 28), 200)
    pixels[10:18, 12:16] = 50
    pixels[4, 4] = 230  # lighter than the paper: no ink
    canvas = np.asarray(place(picture(pixels), 28))
    assert set(np.unique(canvas)) == {0, 255}
    assert (canvas > 0).sum() == 32


def test_a_dim_picture_on_dark_grey_is_stretched() -> None:
    pixels = np.full((28, 28), 20)
    pixels[10:18, 12:16] = 100
    pixels[12, 13] = 60
    canvas = np.asarray(place(picture(pixels), 28))
    assert canvas[10, 12] == 255
    assert canvas[12, 13] == 128  # half of the way
    assert canvas[0, 0] == 0


def test_a_larger_picture_keeps_its_shape_and_its_light() -> None:
    pixels = np.zeros((56, 112))
    pixels[20:36, 40:72] = 255  # 16 x 32, of which a quarter is left a side
    canvas = np.asarray(place(picture(pixels), 28)).astype(float) / 255
    assert canvas[:7].sum() == canvas[21:].sum() == 0  # 112 x 56 becomes 28 x 14
    assert canvas.sum() == pytest.approx(4 * 8, rel=0.02)
    ys, xs = np.mgrid[:28, :28]
    centre = (canvas * ys).sum() / canvas.sum(), (canvas * xs).sum() / canvas.sum()
    assert centre == pytest.approx((27.5 / 4 - 0.5 + 7 + 0.125, 55.5 / 4 - 0.5 + 0.125), abs=0.05)


@pytest.mark.parametrize("value", [0, 7, 127, 128, 255])
def test_an_empty_page_stays_empty(value: int) -> None:
    assert not np.asarray(place(picture(np.full((50, 30), value)), 28)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_thin_pictures_are_no_trouble(size: tuple[int, int]) -> None:
    assert place(Image.new("L", size, 9), 28).size == (28, 28)


# The command


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A run `run` on R, and a folder `digits` with pictures of that set."""
    move_to(tmp_path, monkeypatch)
    tiny_train(tmp_path / "run", "model=st-fcn", "width=32", "steps=60", "learning_rate=5e-3", "evaluations=0")
    batch = DigitSet(tiny_digits(), "r", 0).test_batch(0, torch.arange(COUNT))
    Path("digits").mkdir()
    paths = [Path(f"digits/{index:02d}.png") for index in range(COUNT)]
    for path, image in zip(paths, batch.images, strict=True):
        picture((image[0] * 255).round().numpy()).save(path)
    return paths


def expected(paths: list[Path]) -> torch.Tensor:
    """The probabilities that the network itself gives these files."""
    folder = RunFolder.open("run")
    model = models.build(folder.config()).eval()
    folder.load_into(model)
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    with torch.no_grad():
        return model(torch.from_numpy(pixels)[:, None].float() / 255).softmax(1)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_a_folder_of_digits_becomes_rows_and_aligned_crops(files: list[Path]) -> None:
    code, out, err = stn("predict", "run", "digits", "--crops", "crops")
    assert (code, err) == (0, "")
    wanted = expected(files)
    found = rows(out)
    assert list(found[0]) == ["file", "class", "probability"]
    assert [row["file"] for row in found] == [str(path) for path in files]
    assert [int(row["class"]) for row in found] == wanted.argmax(1).tolist()
    assert [float(row["probability"]) for row in found] == pytest.approx(wanted.amax(1).tolist(), abs=1e-5)
    crops = sorted(Path("crops").iterdir())
    assert [path.name for path in crops] == [f"{index:05d}-{index:02d}.png" for index in range(COUNT)]
    folder = RunFolder.open("run")
    model = models.build(folder.config()).eval()
    folder.load_into(model)
    source = torch.from_numpy(np.asarray(Image.open(files[3])).copy())[None, None].float() / 255
    with torch.no_grad():
        aligned = model.transformer(source)[0, 0]
    assert not torch.allclose(aligned, source[0, 0], atol=0.1)  # it does something
    assert np.abs(np.asarray(Image.open(crops[3])) - (aligned * 255).round().numpy()).max() <= 1


def test_dark_on_white_and_colour_say_the_same(files: list[Path]) -> None:
    Path("white").mkdir()
    for path in files:
        ImageOps.invert(Image.open(path)).convert("RGB").save(Path("white") / path.name)
    one, other = rows(stn("predict", "run", "digits")[1]), rows(stn("predict", "run", "white")[1])
    # R's pictures are interpolated and need not reach 255: what is on paper is stretched to it.
    assert [row["class"] for row in one] == [row["class"] for row in other]


def from_standard_input(data: bytes) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `stn predict run -`."""
    result = CliRunner().invoke(app, ["predict", "run", "-"], input=data)
    return result.exit_code, result.stdout, result.stderr


def test_standard_input_is_one_image(files: list[Path]) -> None:
    code, out, err = from_standard_input(files[2].read_bytes())
    assert (code, err) == (0, "")
    assert [row["file"] for row in rows(out)] == ["-"]
    assert float(rows(out)[0]["probability"]) == pytest.approx(float(expected(files)[2].max()), abs=1e-5)


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"no picture", "no image, whatever its name")])
def test_standard_input_that_is_no_image_is_told(files: list[Path], data: bytes, reason: str) -> None:
    code, out, err = from_standard_input(data)
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"skipped -: {reason}", "stn: PATH: no image that can be read, 1 skipped"]


def test_standard_input_has_an_end(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "MOST_BYTES", 10_000)
    code, out, err = from_standard_input(b"x" * 10_001)
    assert (code, out) == (2, "")
    assert err.startswith("skipped -: more than 0 MB")


def test_a_network_of_the_zoo_is_named_without_a_folder(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.open("run")
    monkeypatch.setattr(zoo, "names", lambda: ["r-tiny"])
    monkeypatch.setattr(zoo, "config_of", lambda name: folder.config())
    model = models.build(folder.config()).eval()
    folder.load_into(model)
    monkeypatch.setattr(zoo, "load", lambda name, device: model)
    assert stn("predict", "r-tiny", "digits")[1] == stn("predict", "run", "digits")[1]
    text = complaint("predict", "r-tin", "digits")
    assert text == "r-tin: no run folder, and no network of the zoo, which has: r-tiny"


def test_what_cannot_be_is_one_line(tmp_path: Path, files: list[Path]) -> None:
    assert complaint("predict", "run", "nowhere.png") == "nowhere.png: no such file or folder"
    tiny_train(tmp_path / "fcn", "steps=1", "evaluations=0")
    assert complaint("predict", "fcn", "digits", "--crops", "c").startswith("--crops: FCN has no transformer")
    tiny_train(tmp_path / "behind", "model=st-cnn", "layer=1", "steps=1", "evaluations=0")
    assert "behind a layer" in complaint("predict", "behind", "digits", "--crops", "c")
    tiny_train(tmp_path / "sum", "model=fcn", "data=addition", "steps=1", "evaluations=0")
    text = complaint("predict", "sum", "digits")
    assert text == "sum: learned from data=addition, wanted a run on pictures of one digit, or on images"
    assert not Path("c").exists()
