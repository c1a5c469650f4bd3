"""House numbers of the street view (SVHN), format 1 as it is published: train/, test/ and, where it is there, extra/,
each with N.png and digitStruct.mat, a MATLAB 7.3 file (HDF5) with the box and the digit of every numeral.

A crop is the box around all digits of a number, enlarged about its middle, cut at the edges of the photograph and made
square: by 1.3 to 64 pixels, as Goodfellow et al. 2014 do, and by 2.6 to 128 pixels, the looser set, where digits have
as many pixels and the background is four times as large (Ba et al. 2015 do not say by how much theirs is looser).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from torch_stn.lab.config import Config
from torch_stn.lab.data.decode import hostile_files
from torch_stn.lab.data.listing import Skipped, shown
from torch_stn.lab.data.photos import Photos
from torch_stn.lab.data.strings import LONGEST, NONE
from torch_stn.lab.errors import UserError

ENLARGED = {64: 1.3, 128: 2.6}  # pixels a side -> sides of the crop, in sides of the box around the digits
PARTS = {"train": "train", "extra": "train", "test": "val"}  # folder -> what it is for
STRUCT = "digitStruct.mat"
FIELDS = ("left", "top", "width", "height", "label")
CLASSES = (*"0123456789", "none")
TOLD = 20
TOO_LONG = f"more than {LONGEST} digits"
HOW = f"wanted the folders train and test of SVHN's format 1 (N.png and {STRUCT}), extra if you have it"
Array = np.ndarray[Any, Any]


class Box(NamedTuple):
    """One digit, as the file has it: pixels from the left and the top, and 1 to 10, where 10 is the digit 0."""

    left: float
    top: float
    width: float
    height: float
    label: int


class Number(NamedTuple):
    """One house number."""

    file: Path
    name: str  # "train/1.png"
    boxes: tuple[Box, ...]  # left to right


def svhn_folder(config: Config) -> Path:
    """``data=PATH``, else the folder svhn below $TORCH_STN_DATA."""
    if config.data:
        return Path(config.data).expanduser()
    if not os.environ.get("TORCH_STN_DATA"):
        raise UserError(f"data: wanted the folder of SVHN, or TORCH_STN_DATA set to the folder above svhn; {HOW}")
    return Path(os.environ["TORCH_STN_DATA"]).expanduser() / "svhn"


def load_svhn(config: Config, notice: Callable[[str], None]) -> Photos:
    """The crops of all numbers of one to five digits at ``config.size``, labels (n, 5): the digits, then 10 for none.

    Longer numbers are left out and counted; a number with a fault (no such png, a box without area or outside its
    photograph, a label that is no digit) is left out with its reason. With ``validation`` > 0 so many of the training
    numbers are held out instead, evenly spread, and the test set is not read.
    Raises: UserError where a folder or a digitStruct.mat is missing, or cannot be read as such.
    """
    if config.size not in ENLARGED:
        raise UserError(f"size: wanted {' or '.join(map(str, ENLARGED))} for SVHN, got {config.size}")
    folder = svhn_folder(config)
    parts = [part for part in PARTS if not (config.validation and part == "test")]
    for part in parts:
        if part != "extra" and not (folder / part).is_dir():
            raise UserError(f"{shown(str(folder))}: no folder {part}; {HOW}")
    numbers: dict[str, list[Number]] = {"train": [], "val": []}
    skipped: list[Skipped] = []
    for part in (part for part in parts if (folder / part).is_dir()):
        for each in read_struct(folder / part):
            if isinstance(each, Skipped):
                skipped.append(each)
            else:
                numbers[PARTS[part]].append(each)
    if config.validation:
        every = max(2, round(1 / config.validation))
        numbers = {"train": [each for k, each in enumerate(numbers["train"]) if k % every],
                   "val": numbers["train"][::every]}  # fmt: skip
    (x, y, kept), (test_x, test_y, test_kept) = (_crops(numbers[key], config, skipped) for key in ("train", "val"))
    if not len(x) or not len(test_x):
        bad = f"; the first fault: {shown(skipped[0].name)}: {skipped[0].reason}" if skipped else ""
        raise UserError(f"{shown(str(folder))}: no number to {'test on' if len(x) else 'learn from'}{bad}")
    photos = Photos(
        x, y, test_x, test_y,
        test_files=tuple(each.name for each in test_kept),
        classes=CLASSES,
        skipped=tuple(skipped),
        summary=_summary(y, test_y, skipped, config),
        name=f"SVHN {config.size} px" + (" (numbers held out)" if config.validation else ""),
        digest=_digest([*kept, *test_kept], len(kept)),
    )  # fmt: skip
    for line in photos.summary:
        notice(line)
    return photos


def read_struct(folder: Path) -> Iterator[Number | Skipped]:
    """The numbers of one folder, in the order of its digitStruct.mat; those that are damaged or too long as Skipped."""
    path = folder / STRUCT
    h5py = _h5py()
    if not path.is_file():
        raise UserError(f"{shown(str(path))}: no such file; {HOW}")
    try:
        with h5py.File(path, "r") as file:
            names, boxes = (file[f"digitStruct/{key}"][:].flatten() for key in ("name", "bbox"))
            for index, (name, box) in enumerate(zip(names, boxes, strict=True), start=1):
                yield _number(file, name, box, folder, index)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{shown(str(path))}: cannot be read as the boxes of SVHN's format 1: {line}") from None


def crop(boxes: Sequence[Box], size: tuple[int, int], enlarged: float) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the crop in a photograph of (width, height), in pixel edges."""
    left, top = min(each.left for each in boxes), min(each.top for each in boxes)
    right = max(each.left + each.width for each in boxes)
    bottom = max(each.top + each.height for each in boxes)
    x, y = (left + right) / 2, (top + bottom) / 2
    wide, high = enlarged * (right - left) / 2, enlarged * (bottom - top) / 2
    return max(0.0, x - wide), max(0.0, y - high), min(float(size[0]), x + wide), min(float(size[1]), y + high)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError("SVHN's boxes: the package h5py is missing, pip install 'torch-stn[svhn]'") from None
    return h5py


def _number(file: Any, name: Any, box: Any, folder: Path, index: int) -> Number | Skipped:
    """One entry; what is wrong with it alone is told and the rest goes on."""
    called = f"{folder.name}/number {index}"
    try:
        text = "".join(map(chr, file[name][:].flatten()))
        called = f"{folder.name}/{text}"
        group = file[box]
        columns = [_column(file, group[key]) for key in FIELDS]
        boxes = tuple(Box(*row[:4], int(row[4])) for row in zip(*columns, strict=True))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError):
        return Skipped(called, f"its entry in {STRUCT} is damaged")
    reason = _fault(boxes, text)
    return Skipped(called, reason) if reason else Number(folder / text, called, boxes)


def _column(file: Any, dataset: Any) -> list[float]:
    """One field of all digits of a number: MATLAB keeps one value as it is, several as references to one each."""
    values = dataset[:].flatten()
    return [float(file[each][:].item()) for each in values] if dataset.dtype == object else [float(values.item())]


def _fault(boxes: Sequence[Box], name: str) -> str:
    """Why a number cannot be used, by its entry alone; empty: it can."""
    if not name or name != os.path.basename(name):
        return "its name is none of a file beside it"
    if not boxes:
        return "it has no digits"
    if len(boxes) > LONGEST:
        return TOO_LONG
    for each in boxes:
        if not 1 <= each.label <= 10:
            return f"label {each.label}, wanted 1 to 10"
        if not (each.width > 0 and each.height > 0):  # NaN compares false
            return f"a box of {each.width:g} x {each.height:g} pixels"
    return ""


def _crops(numbers: Sequence[Number], config: Config, skipped: list[Skipped]) -> tuple[Array, Array, list[Number]]:
    """Pixels (n, S, S, C) and labels (n, 5) of those that can be read; faults are added to ``skipped``."""
    images = np.empty((len(numbers), config.size, config.size, 1 if config.grey else 3), dtype=np.uint8)
    labels = np.full((len(numbers), LONGEST), NONE, dtype=np.int64)
    kept: list[Number] = []
    with hostile_files(), ThreadPoolExecutor(config.threads or os.cpu_count() or 1) as pool:
        for each, read in zip(numbers, pool.map(lambda each: _read(each, config), numbers), strict=True):
            if isinstance(read, Skipped):
                skipped.append(read)
                continue
            images[len(kept)] = read
            labels[len(kept), : len(each.boxes)] = [box.label % 10 for box in each.boxes]
            kept.append(each)
    return images[: len(kept)], labels[: len(kept)], kept


def _read(number: Number, config: Config) -> Array | Skipped:
    """The crop of one number."""
    try:
        with Image.open(number.file, formats=("PNG",)) as image:
            width, height = image.size
            for each in number.boxes:
                beyond = each.left >= width or each.top >= height
                if beyond or each.left + each.width <= 0 or each.top + each.height <= 0:
                    where = f"{each.left:g}, {each.top:g}, {each.width:g} x {each.height:g}"
                    return Skipped(number.name, f"a box ({where}) outside its {width} x {height} pixels")
            window = crop(number.boxes, image.size, ENLARGED[config.size])
            pixels = image.convert("L" if config.grey else "RGB").resize(
                (config.size, config.size), Image.Resampling.BILINEAR, box=window
            )
    except FileNotFoundError:
        return Skipped(number.name, "no such file")
    except UnidentifiedImageError:
        return Skipped(number.name, "no png")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Skipped(number.name, f"broken: {line}")
    return np.asarray(pixels).reshape(config.size, config.size, -1)


def _summary(labels: Array, test: Array, skipped: Sequence[Skipped], config: Config) -> tuple[str, ...]:
    """What was found, in lines."""
    lengths = Counter((np.concatenate([labels, test]) != NONE).sum(axis=1).tolist())
    longer = sum(each.reason == TOO_LONG for each in skipped)
    counts = ", ".join(f"{lengths[k]:,} of {k}" for k in range(1, LONGEST + 1))
    lines = [
        f"data: {len(labels):,} house numbers of SVHN to train on, {len(test):,} to test on, "
        f"{config.size} x {config.size} pixels",
        f"  digits: {counts}; left out: {longer:,} of more",
    ]
    if skipped:
        lines.append(f"  skipped {len(skipped):,}:")
        lines += [f"    {shown(each.name)}: {each.reason}" for each in skipped[:TOLD]]
    if len(skipped) > TOLD:
        lines.append(f"    and {len(skipped) - TOLD:,} more, all of them in data.json of the run folder")
    return tuple(lines)


def _digest(numbers: Sequence[Number], trained: int) -> str:
    """Names, boxes and split."""
    digest = hashlib.sha256(f"{trained}".encode())
    for each in numbers:
        digest.update(os.fsencode(f"\0{each.name}\0{each.boxes}"))
    return digest.hexdigest()
