"""The index of tar shards: where each image lies, its class and checksum, from reading every shard once.

That first pass decodes each image, so that whatever is broken is named before training and takes no part in it, and the
mean and deviation are those of all training pixels, exact. It is kept in the run folder, shards.json, and a shard whose
size and time have not changed is not read again. The images are not kept; those for validation are, in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from torch_stn.lab.config import Config
from torch_stn.lab.data.decode import NotAnImageError, decode, hostile_files
from torch_stn.lab.data.facts import counted_facts
from torch_stn.lab.data.listing import Listing, Skipped, shown
from torch_stn.lab.data.photos import Photos, refuse_too_few, summary_lines
from torch_stn.lab.data.places import reason, size_and_time
from torch_stn.lab.data.shards import REQUESTS, class_names, split_shards
from torch_stn.lab.data.stored import Array, Stored
from torch_stn.lab.data.tar_samples import NotAShardError, Sample, read_samples
from torch_stn.lab.errors import UserError

FORMAT = 1  # of shards.json
MOST_HELD = 8 << 30  # bytes of validation images in memory
WAITING = 4  # images read and not yet decoded, a thread
COLUMNS = ("names", "labels", "offsets", "lengths", "checksums", "widths", "heights")


class Row(NamedTuple):
    """One image of the index: a line of the COLUMNS."""

    name: str
    label: str
    offset: int
    length: int
    checksum: int
    width: int
    height: int


def load_shards(config: Config, notice: Callable[[str], None], run: Path | None = None) -> Photos:
    """The images of the shards that ``config.data`` names, those for training left where they are.

    Classes are those of the training shards, numbers in their order before names; with a file classes.txt beside them
    its lines, in which a number counts from 0 and another class is unknown. ``run``: see :func:`.load.load`.
    Raises: UserError in one line where there is nothing to learn, or too much to validate on.
    """
    if config.together:
        raise UserError("together: wanted none with shards, which are held out whole")
    parts = split_shards(config.data, config.validation)
    known = class_names(parts[0][0])
    head = {"format": FORMAT, "size": config.size, "grey": config.grey, "classes": None if known is None else [*known]}
    records = _records([*parts[0], *parts[1]], config, known, _kept(run, head), notice)
    train, held = ([(path, row) for path in part for row in _rows(records[str(path)])] for part in parts)
    skipped = [Skipped(*each) for record in records.values() for each in record["skipped"]]

    classes = sorted({row.label for _, row in train}, key=_natural)
    if known is not None:
        classes = [name for name in known if name in classes]
    taught = set(classes)
    skipped += [Skipped(row.name, "its class has no training image") for _, row in held if row.label not in taught]
    held = [each for each in held if each[1].label in taught]
    refuse_too_few(config, classes, np.array([False] * len(train) + [True] * len(held)), skipped)
    _refuse_too_many(len(held), config)
    number = {label: place for place, label in enumerate(classes)}
    labels, test_labels = (np.array([number[row.label] for _, row in part], dtype=np.int64) for part in (train, held))
    counts = torch.tensor([records[str(path)]["counts"] for path in parts[0]]).sum(dim=0)
    photos = Photos(
        np.empty((0, config.size, config.size, 1 if config.grey else 3), dtype=np.uint8), labels,
        _decoded(_stored(parts[1], held, config), config), test_labels,
        test_files=tuple(row.name for _, row in held),
        classes=tuple(classes),
        skipped=tuple(skipped),
        summary=(),
        name=shown(Path(config.data).name) or "shards",
        digest=_digest(train, held),
        stored=_stored(parts[0], train, config),
        facts=counted_facts(counts, config.size, classes),
        index={**head, "shards": records},
    )  # fmt: skip
    lines = _summary(photos, config, parts, [row for _, row in (*train, *held)])
    for line in lines:
        notice(line)
    return Photos(**{**photos.__dict__, "summary": tuple(lines)})


def index_shard(path: Path, config: Config, known: Sequence[str] | None, pool: ThreadPoolExecutor) -> dict[str, Any]:
    """The record of one shard: COLUMNS of its usable images, counts of pixel values, what is skipped and why."""
    size, changed = _size_and_time(path)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    counts = np.zeros((1 if config.grey else 3, 256), dtype=np.int64)
    skipped: list[Skipped] = []

    def look(sample: Sample) -> tuple[Row, Array] | Skipped:
        label, fault = _class(sample, known)
        if not label:
            return Skipped(sample.name, fault)
        try:
            pixels, whole = decode(BytesIO(sample.data), config.size, grey=config.grey)
        except NotAnImageError as error:
            return Skipped(sample.name, str(error))
        histogram = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(pixels, 2, 0)])
        return Row(sample.name, label, sample.offset, len(sample.data), zlib.crc32(sample.data), *whole), histogram

    try:
        for found in _in_order(read_samples(path, compressed=False), look, pool, WAITING * (config.threads or 4)):
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            for name, value in zip(COLUMNS, found[0], strict=True):
                columns[name].append(value)
            counts += found[1]
    except NotAShardError as error:
        skipped.append(Skipped(path.name, str(error)))
    except OSError as error:
        raise _unreadable(path, error) from None
    return {"bytes": size, "time": changed, **columns, "counts": counts.tolist(),
            "skipped": [list(each) for each in skipped]}  # fmt: skip


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        return size_and_time(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{shown(str(path))}: {reason(error)}")


def _in_order(
    samples: Iterator[Sample | Skipped],
    look: Callable[[Sample], tuple[Row, Array] | Skipped],
    pool: ThreadPoolExecutor,
    most: int,
) -> Iterator[tuple[Row, Array] | Skipped]:
    """What ``look`` makes of each sample, in threads, in the order of the shard; few wait in memory."""
    waiting: deque[Future[tuple[Row, Array] | Skipped] | Skipped] = deque()
    for each in samples:
        waiting.append(each if isinstance(each, Skipped) else pool.submit(look, each))
        if len(waiting) > most:
            first = waiting.popleft()
            yield first if isinstance(first, Skipped) else first.result()
    for last in waiting:
        yield last if isinstance(last, Skipped) else last.result()


def _class(sample: Sample, known: Sequence[str] | None) -> tuple[str, str]:
    """The class of a sample, or "" and why there is none."""
    if known is None or not sample.label or sample.label in known:
        return sample.label, sample.fault
    if sample.label.isascii() and sample.label.isdigit() and int(sample.label) < len(known):
        return known[int(sample.label)], ""
    return "", f"class {shown(sample.label)} is unknown to classes.txt"


def _records(
    shards: Sequence[Path],
    config: Config,
    known: Sequence[str] | None,
    kept: Mapping[str, Any],
    notice: Callable[[str], None],
) -> dict[str, Any]:
    """A record for each shard: from an earlier index where it holds, else from reading the shard."""
    records: dict[str, Any] = {}
    fresh, total = [], 0
    with ThreadPoolExecutor(REQUESTS) as pool:
        found = list(pool.map(_size_and_time, shards))
    for path, (size, changed) in zip(shards, found, strict=True):
        record = kept.get(str(path))
        if record is None or (record["bytes"], record["time"]) != (size, changed):
            fresh.append(path)
            total += size
        records[str(path)] = record
    if fresh:
        megabytes = f"{total / 1e6:,.1f} MB"
        notice(f"index: {len(fresh):,} shards of {megabytes} are read once, each image is decoded and checked")
    with hostile_files(), ThreadPoolExecutor(config.threads or os.cpu_count() or 1) as pool:
        for path in fresh:
            records[str(path)] = index_shard(path, config, known, pool)
    return records


def _kept(run: Path | None, head: Mapping[str, Any]) -> Mapping[str, Any]:
    """The records of a run folder's index; none where it is of other settings or damaged: it can be made again."""
    if run is None:
        return {}
    try:
        index = json.loads((run / "shards.json").read_text(encoding="utf-8"))
        if any(index[key] != value for key, value in head.items()):
            return {}
        whole = {"bytes", "time", "counts", "skipped", *COLUMNS}
        return {path: record for path, record in index["shards"].items() if record.keys() == whole}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _rows(record: Mapping[str, Any]) -> Iterator[Row]:
    return (Row(*each) for each in zip(*(record[name] for name in COLUMNS), strict=True))


def _stored(shards: Sequence[Path], images: Sequence[tuple[Path, Row]], config: Config) -> Stored:
    place = {path: number for number, path in enumerate(shards)}
    return Stored(
        tuple(shards),
        np.array([place[path] for path, _ in images], dtype=np.int32),
        np.array([row.offset for _, row in images], dtype=np.int64),
        np.array([row.length for _, row in images], dtype=np.int64),
        np.array([row.checksum for _, row in images], dtype=np.int64),
        config.size,
        config.grey,
    )


def _decoded(stored: Stored, config: Config) -> Array:
    """All of the images, in memory."""
    images = np.empty((len(stored), config.size, config.size, 1 if config.grey else 3), dtype=np.uint8)
    with hostile_files(), ThreadPoolExecutor(config.threads or os.cpu_count() or 1) as pool:
        for index, pixels in enumerate(pool.map(stored.read, range(len(stored)))):
            images[index] = pixels
    return images


def _refuse_too_many(count: int, config: Config) -> None:
    wanted = count * config.size**2 * (1 if config.grey else 3)
    if wanted > MOST_HELD:
        raise UserError(
            f"validation: {count:,} images of {config.size} pixels would take {wanted / 2**30:.1f} GB of memory; "
            f"at most {MOST_HELD >> 30} GB are held, wanted fewer shards to validate on"
        )


def _digest(train: Sequence[tuple[Path, Row]], held: Sequence[tuple[Path, Row]]) -> str:
    """Names, classes, split and bytes of the images, wherever the shards lie."""
    digest = hashlib.sha256(f"{len(train)}".encode())
    for _, row in (*train, *held):
        digest.update(f"\0{row.name}\0{row.label}\0{row.length}\0{row.checksum}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _natural(label: str) -> tuple[bool, int, str]:
    """Numbers by their value, then names."""
    number = label.isascii() and label.isdigit()
    return not number, int(label) if number else 0, label


def _summary(photos: Photos, config: Config, parts: tuple[list[Path], list[Path]], rows: Sequence[Row]) -> list[str]:
    """What was found: as of a folder, but for the first line."""
    sizes = [(row.width, row.height) for row in rows]
    first = (
        f"data: {len(rows):,} images in {len(photos.classes)} classes of {photos.name}: {len(photos.train_labels):,} "
        f"in {len(parts[0])} shards to train on, read as they are needed; {len(photos.test_labels):,} in "
        f"{len(parts[1])} to validate on, {photos.test_images.nbytes / 1e6:.1f} MB of memory; "
        f"{config.size} x {config.size} pixels"
    )
    return [first, *summary_lines(photos, config, Listing([], [], [], []), (), sizes)[1:]]
