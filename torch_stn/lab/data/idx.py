"""The IDX format of MNIST: two zero bytes, type, number of dimensions, the sizes, then the numbers, all big-endian."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from torch_stn.lab.errors import UserError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_BYTES = 1 << 30  # MNIST's largest file has 47 MB; more than this is a lying header
CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
FOREIGN = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"\x80", "a Python pickle"),
    (b"<", "an HTML or XML page"),
)


def read_idx(
    path: str | os.PathLike[str],
    *,
    md5: str | None = None,
) -> np.ndarray[Any, Any]:  # the sizes and the type that the header announces, in native byte order
    """Read one IDX file, gzipped or not (its first bytes tell, not its name).

    No more is read than the header announces and at most 1 GiB is accepted, so a forged header or a gzip bomb
    costs no memory.
    Args: path, the file; md5, the hexadecimal checksum wanted of the raw (uncompressed) bytes.
    Returns: a new, writable array.
    Raises: UserError that names the file, what came and what was wanted.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(2) != GZIP:
                file.seek(0)
                return _parse(path, file, md5)
            file.seek(0)
            with gzip.open(file) as unpacked:
                return _parse(path, unpacked, md5)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, wanted an IDX file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip file ({error}), wanted a whole one") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}), wanted an IDX file") from None


def _parse(path: Path, file: IO[bytes] | gzip.GzipFile, md5: str | None) -> np.ndarray[Any, Any]:
    """Header, numbers, the end of the file, the checksum."""
    start = file.read(4)
    if not start:
        raise UserError(f"{path}: the file is empty, wanted an IDX file")
    if len(start) < 4 or start[:2] != b"\0\0":
        raise UserError(f"{path}: starts with {_what(start)}, wanted an IDX file (00 00, type, dimensions)")
    if start[2] not in TYPES:
        known = ", ".join(f"{code:02x}" for code in TYPES)
        raise UserError(f"{path}: IDX type {start[2]:02x} is unknown, wanted one of {known}")
    dims = start[3]
    sizes = file.read(4 * dims)
    if dims == 0 or len(sizes) < 4 * dims:
        raise UserError(f"{path}: the header announces {dims} dimensions but holds {len(sizes) // 4} of their sizes")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    dtype = np.dtype(TYPES[start[2]])
    wanted = math.prod(shape) * dtype.itemsize  # Python integers: 255 dimensions cannot overflow it
    if wanted > MOST_BYTES:
        raise UserError(f"{path}: the header announces {wanted:,} bytes, wanted at most {MOST_BYTES:,}")
    numbers = bytearray()
    while len(numbers) < wanted:  # by chunks, so that only bytes that are there take memory
        chunk = file.read(min(CHUNK, wanted - len(numbers)))
        if not chunk:
            announced = f"{'x'.join(map(str, shape))} = {wanted:,} bytes"
            raise UserError(f"{path}: cut short after {len(numbers):,} bytes of data, the header announces {announced}")
        numbers += chunk
    if file.read(1):  # in a gzip file this also checks the CRC
        raise UserError(f"{path}: more data than the {wanted:,} bytes that the header announces")
    if md5 is not None:
        digest = hashlib.md5(start + sizes, usedforsecurity=False)
        digest.update(numbers)
        if digest.hexdigest() != md5:
            raise UserError(f"{path}: the checksum differs (MD5 of the raw bytes {digest.hexdigest()}, wanted {md5})")
    return np.frombuffer(numbers, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _what(start: bytes) -> str:
    """The first bytes in words."""
    name = next((name for magic, name in FOREIGN if start.startswith(magic)), "")
    return f"bytes {start.hex(' ')}" + (f" ({name})" if name else "")
