"""A folder's images in memory: decoded, split into training and validation, told in a summary."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torch_stn.lab.config import Config
from torch_stn.lab.data import birds, signs
from torch_stn.lab.data.decode import NotAnImageError, decode, hostile_files
from torch_stn.lab.data.draws import draw_bits
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.listing import Listed, Listing, Skipped, list_images, shown
from torch_stn.lab.data.stored import Stored
from torch_stn.lab.errors import UserError

SPLIT_STREAM = 41  # of the random numbers that choose the images held out
MOST_BYTES = 32 << 30
TOLD = 20  # skipped files and classes that the screen names
UNEVEN = 3  # the largest class over the smallest, from which on the summary speaks of it
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Photos:
    """Images of classes, at one size."""

    train_images: Array  # (n, S, S, C) uint8; of shards empty, see stored
    train_labels: Array  # (n,) int64
    test_images: Array  # (m, S, S, C) uint8, those for validation
    test_labels: Array  # (m,) int64
    test_files: tuple[str, ...]  # their names
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    summary: tuple[str, ...]  # lines for a person
    name: str  # as a report prints it
    digest: str  # of names, classes, split and sizes of the files: another folder has another
    stored: Stored | None = None  # where the training images lie in shards
    facts: Facts | None = None  # of the training pixels, where they are not held
    index: Mapping[str, Any] | None = None  # of the shards, for the run folder


def load_photos(config: Config, notice: Callable[[str], None]) -> Photos:
    """Read the images that ``config.data`` names, and say what was found.

    The validation images are those below val/ or marked so in the CSV file; else a share of each class, drawn by
    (seed, place of the file in its class). A class of one image is trained on alone.
    Raises: UserError in one line where there is nothing to learn: fewer than two classes, no validation image.
    """
    listing, images, kept, sizes, broken = _read(config)
    skipped = [*listing.skipped, *broken]
    classes = sorted({each.label for each in kept})
    held = _held_out(kept, config)
    trained = {each.label for each, out in zip(kept, held, strict=True) if not out}
    for label in (label for label in classes if label not in trained):
        skipped += [Skipped(each.name, "its class has no training image") for each in kept if each.label == label]
    usable = np.array([each.label in trained for each in kept], dtype=bool)
    classes = [label for label in classes if label in trained]
    empty = sorted({*listing.empty} | {each.label for each in listing.files if each.label not in trained})
    refuse_too_few(config, classes, held & usable, skipped)
    labels = np.array([classes.index(each.label) if each.label in trained else -1 for each in kept], dtype=np.int64)
    train, test = np.flatnonzero(usable & ~held), np.flatnonzero(usable & held)
    photos = Photos(
        images[train], labels[train], images[test], labels[test],
        test_files=tuple(kept[i].name for i in test),
        classes=tuple(classes),
        skipped=tuple(skipped),
        summary=(),
        name=_name(config),
        digest=_digest([kept[i] for i in (*train, *test)], len(train)),
    )  # fmt: skip
    lines = summary_lines(photos, config, listing, empty, sizes)
    for line in lines:
        notice(line)
    return Photos(**{**photos.__dict__, "summary": tuple(lines)})


def _read(config: Config) -> tuple[Listing, Array, list[Listed], list[tuple[int, int]], list[Skipped]]:
    """The files, and the images, names and sizes of those that can be read."""
    if config.source == "gtsrb":
        folder = signs.signs_folder(config)
        if signs.is_compact(folder):
            images, kept, sizes = signs.read_compact(folder, config)
            return Listing(kept, [], [], []), images, kept, sizes, []
        listing = signs.list_signs(folder, config)
    elif config.source == "cub":
        folder = birds.birds_folder(config)
        if birds.is_compact(folder):
            images, kept, sizes, broken = birds.read_compact(folder, config)
            return Listing(kept, [], [], []), images, kept, sizes, broken
        listing = birds.list_birds(folder, config)
    else:
        listing = list_images(config.data)
    _refuse_too_many(len(listing.files), config)
    return listing, *_decoded(listing.files, config)


def _decoded(
    files: Sequence[Listed], config: Config
) -> tuple[Array, list[Listed], list[tuple[int, int]], list[Skipped]]:
    """The images that can be read, which files they are, their sizes, and the files that cannot."""
    channels = 1 if config.grey else 3
    images = np.empty((len(files), config.size, config.size, channels), dtype=np.uint8)

    def read(each: Listed) -> tuple[Array, tuple[int, int]] | Skipped:
        try:
            return decode(each.file, config.size, grey=config.grey)
        except NotAnImageError as error:
            return Skipped(each.name, str(error))

    kept: list[Listed] = []
    sizes: list[tuple[int, int]] = []
    broken: list[Skipped] = []
    with hostile_files(), ThreadPoolExecutor(config.threads or os.cpu_count() or 1) as pool:
        # Pillow lets go of Python's lock while it decodes; map() gives the files back in their order.
        for each, result in zip(files, pool.map(read, files), strict=True):
            if isinstance(result, Skipped):
                broken.append(result)
            else:
                images[len(kept)] = result[0]
                kept.append(each)
                sizes.append(result[1])
    return images[: len(kept)], kept, sizes, broken


def _held_out(kept: Sequence[Listed], config: Config) -> Array:
    """Which images are for validation."""
    if any(each.part == "val" for each in kept):
        return np.array([each.part == "val" for each in kept], dtype=bool)
    held = np.zeros(len(kept), dtype=bool)
    by_class: dict[str, list[int]] = {}
    for index, each in enumerate(kept):
        by_class.setdefault(each.label, []).append(index)
    for members in by_class.values():
        groups: dict[str, list[int]] = {}
        # By name, so that a folder listed in another order is split the same.
        for index in sorted(members, key=lambda index: kept[index].name):
            groups.setdefault(_group(kept[index].name, config.together), []).append(index)
        count = round(config.validation * len(groups))
        if config.validation:
            count = max(count, 1)
        order = draw_bits(config.seed, torch.arange(len(groups)), SPLIT_STREAM, 1)[:, 0].argsort(stable=True)
        together = list(groups.values())
        for group in order[: min(count, len(groups) - 1)].tolist():
            held[together[group]] = True
    return held


def _group(name: str, separator: str) -> str:
    """What files of one film, one track, one specimen share: the name up to the last separator."""
    head, found, _ = name.rpartition(separator) if separator else ("", "", "")
    return head if found else name


def _refuse_too_many(count: int, config: Config) -> None:
    wanted = count * config.size**2 * (1 if config.grey else 3)
    if wanted > MOST_BYTES:
        most = MOST_BYTES >> 30
        raise UserError(
            f"size: {count:,} images of {config.size} pixels would take {wanted >> 30} GB; at most {most} GB"
        )


def refuse_too_few(config: Config, classes: Sequence[str], held: Array, skipped: Sequence[Skipped]) -> None:
    """One line where training would be pointless; it ends with the first file that was skipped, if there is one."""
    bad = f"; skipped {len(skipped)}, the first {shown(skipped[0].name)}: {skipped[0].reason}" if skipped else ""
    if len(classes) < 2:
        had = f"{len(classes)} ({shown(classes[0])})" if classes else "none"
        raise UserError(
            f"data: wanted at least 2 classes with images to train on in {shown(config.data)}, got {had}{bad}"
        )
    if not held.any():
        raise UserError(
            f"validation: no image is left to validate on; wanted a class of at least 2 images, a share above 0{bad}"
        )


def _name(config: Config) -> str:
    if config.source == "gtsrb":
        return "GTSRB (tracks held out)" if config.validation else "GTSRB"
    if config.source == "cub":
        subset = ", 100 species" if birds.is_compact(birds.birds_folder(config)) else ""
        return f"CUB-200-2011{subset}{' (held out)' if config.validation else ''}"
    path = os.path.abspath(os.path.expanduser(config.data))
    return shown(os.path.basename(path)) or "images"


def _digest(files: Sequence[Listed], trained: int) -> str:
    """Names, classes, split and file sizes; the pixels may depend on the version of Pillow."""
    digest = hashlib.sha256(f"{trained}".encode())
    for each in files:
        digest.update(os.fsencode(f"\0{each.name}\0{each.label}\0{each.file.stat().st_size}"))
    return digest.hexdigest()


def summary_lines(
    photos: Photos, config: Config, listing: Listing, empty: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> list[str]:
    """What was found, in lines: counts, classes, sizes, each file that is left out with its reason."""
    train, test = (
        np.bincount(labels, minlength=len(photos.classes)) for labels in (photos.train_labels, photos.test_labels)
    )
    total = int(train.sum() + test.sum())
    memory = (photos.train_images.nbytes + photos.test_images.nbytes) / 1e6
    lines = [
        f"data: {total:,} images in {len(photos.classes)} classes of {photos.name}: {train.sum():,} to train on, "
        f"{test.sum():,} to validate on, {config.size} x {config.size} pixels, {memory:.1f} MB"
    ]
    lines += [
        f"  {shown(label)}: {count:,} + {held:,}"
        for label, count, held in zip(photos.classes[:TOLD], train, test, strict=False)
    ]
    if len(photos.classes) > TOLD:
        lines.append(f"  and {len(photos.classes) - TOLD:,} classes more")
    widths, heights = (sorted(each[axis] for each in sizes) for axis in (0, 1))
    middle = len(sizes) // 2
    lines.append(
        f"  in the files: {widths[0]} to {widths[-1]} pixels wide (median {widths[middle]}), "
        f"{heights[0]} to {heights[-1]} high (median {heights[middle]})"
    )
    if max(train) > UNEVEN * min(train) and config.balance == "none":
        lines.append(
            f"  classes are uneven, {min(train):,} to {max(train):,} images: balance=weights or balance=draws may help"
        )
    lines += [f"  no image in class {shown(label)}: left out" for label in empty]
    if listing.others:
        kinds = ", ".join(shown(kind) for kind, _ in Counter(listing.others).most_common(5))
        lines.append(f"  {len(listing.others):,} other files ({kinds}) are no images by their names")
    if photos.skipped:
        lines.append(f"  skipped {len(photos.skipped):,} of {total + len(photos.skipped):,} files:")
        lines += [f"    {shown(name)}: {reason}" for name, reason in photos.skipped[:TOLD]]
    if len(photos.skipped) > TOLD:
        lines.append(f"    and {len(photos.skipped) - TOLD:,} more, all of them in data.json of the run folder")
    return lines
