"""examples/serve_onnx.py reads a file to the bytes that training read."""

import importlib
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from photo_folder import photo
from PIL import Image

from torch_stn.lab.data.decode import NotAnImageError, decode, hostile_files

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("serve_onnx")


def oriented(image: Image.Image, orientation: int, path: Path) -> None:
    """Save with an EXIF tag that says how the picture lies."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def sixteen() -> Image.Image:
    """A ramp over all 16 bits."""
    return Image.fromarray(np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(30, 40))


def pictures(folder: Path) -> list[Path]:
    """One of each kind that wants a rule."""
    colour = photo((200, 50, 40), 0, (48, 30))
    for orientation in range(1, 9):
        oriented(colour, orientation, folder / f"turned-{orientation}.jpg")
    oriented(colour, 6, folder / "turned.png")
    oriented(colour, 6, folder / "turned.webp")
    sixteen().save(folder / "sixteen.png")
    sixteen().save(folder / "sixteen.tif")
    oriented(sixteen(), 6, folder / "sixteen-turned.png")
    Image.fromarray(np.asarray(sixteen()).astype(np.int32)).save(folder / "thirty-two.tif")
    clear = colour.convert("RGBA")
    clear.putalpha(90)
    clear.save(folder / "clear.png")
    colour.quantize(16).save(folder / "palette.gif")
    colour.convert("L").save(folder / "grey.png")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_reads_what_training_read(example: ModuleType, tmp_path: Path, channels: int) -> None:
    for path in pictures(tmp_path):
        with hostile_files():
            wanted, _ = decode(path, 16, grey=channels == 1)
        read = example.read(path, 16, channels)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, wanted, err_msg=path.name)


def test_the_example_obeys_the_orientation_and_the_depth(example: ModuleType, tmp_path: Path) -> None:
    pictures(tmp_path)
    plain, turned = (example.read(tmp_path / f"sixteen{name}.png", 16, 1)[..., 0] for name in ("", "-turned"))
    assert plain[0].max() < 30  # the ramp goes down the picture,
    assert plain[-1].min() > 225
    assert turned[:, 0].min() > 225  # and lies on its side once it is turned
    assert turned[:, -1].max() < 30


def test_more_than_sixteen_bits_are_refused_by_both(example: ModuleType, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "large.tif")
    with pytest.raises(ValueError, match="mode I: wanted 8 or 16 bits a channel"):
        example.read(tmp_path / "large.tif", 16, 1)
    with hostile_files(), pytest.raises(NotAnImageError, match="mode I: wanted 8 or 16 bits a channel"):
        decode(BytesIO((tmp_path / "large.tif").read_bytes()), 16)
