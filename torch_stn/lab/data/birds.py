"""Birds (CUB-200-2011): the published folder, or the archive cub100_128.npz of 100 species; the official split."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np

from torch_stn.lab.config import Config
from torch_stn.lab.data.decode import NotAnImageError, decode, hostile_files
from torch_stn.lab.data.listing import Listed, Listing, Skipped, shown
from torch_stn.lab.data.signs import Array
from torch_stn.lab.errors import UserError

COMPACT = "cub100_128.npz"
PUBLISHED = "CUB_200_2011"  # the folder in the published archive
TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
HOW = f"wanted {COMPACT}, or the folder {PUBLISHED} with images and {', '.join(TABLES)}"


def birds_folder(config: Config) -> Path:
    """``data=PATH``, else below $TORCH_STN_DATA the folder cub100, or CUB_200_2011 where that is there."""
    if config.data:
        return Path(config.data).expanduser()
    if not os.environ.get("TORCH_STN_DATA"):
        raise UserError(f"data: wanted the folder of birds, or TORCH_STN_DATA set to the folder above it; {HOW}")
    above = Path(os.environ["TORCH_STN_DATA"]).expanduser()
    return above / PUBLISHED if (above / PUBLISHED).is_dir() else above / "cub100"


def is_compact(folder: Path) -> bool:
    """Whether the folder holds the archive."""
    return (folder / COMPACT).is_file()


def list_birds(folder: Path, config: Config) -> Listing:
    """The published layout: tables of (image, file), (image, class), (image, 1 for training), (class, name). With
    validation=0 the official test images judge; else a share of the training images does, and they are not read.
    """
    folder = folder / PUBLISHED if (folder / PUBLISHED).is_dir() else folder
    images, labels, training, names = (_table(folder / name) for name in TABLES)
    found = Listing([], [], [], [])
    for image, file in images.items():
        at = folder / "images" / file
        name = names.get(labels.get(image, ""))
        if name is None or image not in training or not at.is_file():
            found.skipped.append(Skipped(file, "no class, no side of the split, or no such file"))
        elif training[image] == "1" or not config.validation:
            part = "train" if training[image] == "1" else "val"
            found.files.append(Listed(at, file, name, "" if config.validation else part))
    return found


def read_compact(
    folder: Path, config: Config
) -> tuple[Array, list[Listed], list[tuple[int, int]], list[Skipped]]:  # images (n, S, S, C) uint8
    """Images, what they are, their sizes in the archive, and those that cannot be read."""
    path = folder / COMPACT
    try:
        with np.load(path, allow_pickle=False) as archive:
            pixels, ends = archive["jpeg"].tobytes(), archive["offsets"].tolist()
            labels, training, classes = archive["label"], archive["is_train"], archive["classes"]
            rows = [(i, str(classes[labels[i]]), bool(training[i])) for i in range(len(ends) - 1)]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{shown(str(path))}: cannot be read as the archive of birds: {error}") from None
    images, kept, sizes, skipped = [], [], [], []
    with hostile_files():
        for index, label, trains in rows:
            if config.validation and not trains:
                continue
            name = f"{label}/{index:04d}.jpg"
            try:
                image, size = decode(BytesIO(pixels[ends[index] : ends[index + 1]]), config.size, grey=config.grey)
            except NotAnImageError as error:
                skipped.append(Skipped(name, str(error)))
                continue
            images.append(image)
            sizes.append(size)
            kept.append(Listed(path, name, label, "" if config.validation else "train" if trains else "val"))
    return np.stack(images), kept, sizes, skipped


def _table(path: Path) -> dict[str, str]:
    """Lines "key value" of one of the published tables."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{shown(str(path))}: cannot be read; {HOW}") from None
    return {key: value for key, _, value in (line.strip().partition(" ") for line in lines) if value}
