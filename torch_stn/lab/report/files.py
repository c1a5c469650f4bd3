"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from torch_stn.lab.errors import UserError


def write_whole(path: Path, data: bytes) -> Path:
    """Write under a temporary name in the same folder, then rename: a reader never meets half a file."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, a file name was wanted")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is a device or a pipe, a file name was wanted")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path
