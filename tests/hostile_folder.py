"""A folder of images among which many files mean harm or are broken: each with the words by which it is told."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from photo_folder import COLOURS, photo, photo_folder

LONG = "x" * 240
FOREIGN = "Füße-猫-🚦"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds nothing of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def hostile_folder(path: Path) -> tuple[Path, dict[str, str]]:
    """The folder, and for each bad file its name with a part of the reason."""
    photo_folder(path)
    bad: dict[str, str] = {}

    def put(name: str, data: bytes, reason: str) -> None:
        (path / name).write_bytes(data)
        bad[name] = reason

    whole = (path / "red" / "000.jpg").read_bytes()
    put("red/cut-short.jpg", whole[: len(whole) // 2], "runcated")
    put("red/empty.png", b"", "empty")
    put("red/words.png", b"this is no picture\n" * 40, "no image, whatever its name")
    put("green/wide.png", png_header(30_000, 30_000), "a decompression bomb")
    put("green/large.png", png_header(9_000, 9_000), "9000 x 9000 pixels")
    put("green/header-only.png", png_header(30, 30), "broken: ")
    put("blue/script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image, whatever its name")
    os.symlink("itself.png", path / "blue" / "itself.png")
    bad["blue/itself.png"] = "too many levels of symbolic links"
    os.symlink(path / "blue", path / "blue" / "again")
    bad["blue/again"] = "a link to a folder that was read already"
    os.symlink("..", path / "red" / "up")
    bad["red/up"] = "a link to a folder that was read already"
    os.symlink("nowhere.png", path / "blue" / "dangling.png")
    bad["blue/dangling.png"] = "no such file or directory"
    os.mkfifo(path / "blue" / "pipe.png")
    bad["blue/pipe.png"] = "no regular file"
    # Good ones with odd names, an odd shape, a class that holds nothing, and files that are none of ours.
    photo(COLOURS["red"], 900).save(path / "red" / f"{FOREIGN}.png")
    photo(COLOURS["red"], 901).save(path / "red" / f"{LONG}.png")
    photo(COLOURS["red"], 902, (30_000, 8)).save(path / "red" / "ribbon.png")
    (path / "nothing").mkdir()
    (path / "red" / "notes.txt").write_text("not an image by its name")
    (path / "red" / ".hidden.png").write_bytes(b"")
    return path, bad
