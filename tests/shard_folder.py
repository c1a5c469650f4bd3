"""Small WebDataset shards: what the tests of streaming learn from, written with tarfile alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from photo_folder import COLOURS, photo

Member = tuple[str, bytes]


def png(colour: str, seed: int) -> bytes:
    """A small picture of a colour."""
    file = io.BytesIO()
    photo(COLOURS[colour], seed).save(file, "png")
    return file.getvalue()


def pictures(count: int, first: int = 0) -> list[Member]:
    """So many samples, colour by colour in turn, KEY.cls before KEY.png as the names sort."""
    members: list[Member] = []
    for number in range(first, first + count):
        colour = list(COLOURS)[number % len(COLOURS)]
        members += [(f"{number:04d}.cls", f"{colour}\n".encode()), (f"{number:04d}.png", png(colour, number))]
    return members


def write_shard(path: Path, members: Iterable[Member]) -> Path:
    """A tar of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add(tar, name, data)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One more member."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def shard_folder(path: Path, shards: int = 3, each: int = 8) -> Path:
    """train-0.tar, train-1.tar, ... of different pictures."""
    for number in range(shards):
        write_shard(path / f"train-{number}.tar", pictures(each, number * each))
    return path
