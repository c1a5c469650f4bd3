"""Traffic signs (GTSRB): the published folders, or the compact archive gtsrb32.npz; 43 classes, the official test."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from torch_stn.lab.config import Config
from torch_stn.lab.data.listing import Listed, Listing, Skipped, shown
from torch_stn.lab.errors import UserError

CLASSES = 43
COMPACT = "gtsrb32.npz"
TRAINING = Path("Final_Training") / "Images"
TEST = Path("Final_Test") / "Images"
TRUTH = "GT-final_test.csv"
HOW = f"wanted {COMPACT}, or {TRAINING} and {TEST} with {TRUTH}"
Array = np.ndarray[Any, Any]


def signs_folder(config: Config) -> Path:
    """``data=PATH``, else the folder gtsrb below $TORCH_STN_DATA."""
    if config.data:
        return Path(config.data).expanduser()
    if not os.environ.get("TORCH_STN_DATA"):
        raise UserError(f"data: wanted the folder of GTSRB, or TORCH_STN_DATA set to the folder above gtsrb; {HOW}")
    return Path(os.environ["TORCH_STN_DATA"]).expanduser() / "gtsrb"


def is_compact(folder: Path) -> bool:
    """Whether the folder holds the archive."""
    return (folder / COMPACT).is_file()


def list_signs(folder: Path, config: Config) -> Listing:
    """The published layout: a sub-folder a class with TRACK_FRAME.ppm, the test images with their classes in a CSV
    file. With validation=0 the official test set judges; else tracks of the training set do, and it is not read.
    """
    found = Listing([], [], [], [])
    if not (folder / TRAINING).is_dir():
        raise UserError(f"{shown(str(folder))}: no GTSRB here; {HOW}")
    for place in sorted((folder / TRAINING).iterdir()):
        if place.is_dir() and place.name.isdigit() and int(place.name) < CLASSES:
            files = sorted(place.glob("*.ppm"))
            found.files.extend(Listed(each, f"{place.name}/{each.name}", place.name, "train") for each in files)
    if config.validation:
        # Split by track: neighbouring frames of one are nearly the same picture.
        return found._replace(files=[each._replace(part="") for each in found.files])
    truth = next((at for at in (folder / TEST / TRUTH, folder / TRUTH) if at.is_file()), None)
    if truth is None:
        raise UserError(f"{shown(str(folder / TEST))}: no {TRUTH} in it or in {shown(str(folder))}; {HOW}")
    with truth.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter=";")
        if not {"Filename", "ClassId"} <= set(rows.fieldnames or ()):
            raise UserError(f"{shown(str(truth))}: wanted the columns Filename and ClassId, separated by semicolons")
        for row in rows:
            name, label = row["Filename"] or "", row["ClassId"] or ""
            at = folder / TEST / name
            if not label.isdigit() or not at.is_file():
                found.skipped.append(Skipped(name or "a line without a file", "no class, or no such file"))
            else:
                found.files.append(Listed(at, f"test/{name}", f"{int(label):05d}", "val"))
    return found


def read_compact(folder: Path, config: Config) -> tuple[Array, list[Listed], list[tuple[int, int]]]:
    """Images (n, S, S, C), what they are, and their sizes before somebody made them 32 x 32."""
    path = folder / COMPACT
    keys = ("train_x", "train_y", "train_track", "train_frame", "train_orig_wh", "test_x", "test_y", "test_orig_wh")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in keys}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{shown(str(path))}: cannot be read as the archive of GTSRB: {error}") from None
    x, sizes = arrays["train_x"], arrays["train_orig_wh"]
    part = "" if config.validation else "train"
    kept = [
        Listed(path, f"{label:05d}/{track:05d}_{frame:05d}", f"{label:05d}", part)
        for label, track, frame in zip(*(arrays[f"train_{key}"] for key in ("y", "track", "frame")), strict=True)
    ]
    if not config.validation:
        x, sizes = np.concatenate([x, arrays["test_x"]]), np.concatenate([sizes, arrays["test_orig_wh"]])
        labels = arrays["test_y"].tolist()
        kept += [Listed(path, f"test/{index:05d}", f"{label:05d}", "val") for index, label in enumerate(labels)]
    images = np.stack([_sized(each, config) for each in x])
    return images, kept, [(int(width), int(height)) for width, height in sizes]


def _sized(pixels: Array, config: Config) -> Array:
    """At the size and in the colours that the run wants."""
    image = Image.fromarray(pixels).convert("L" if config.grey else "RGB")
    if image.size != (config.size, config.size):
        image = image.resize((config.size, config.size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(config.size, config.size, -1)
