"""Who makes a file, when several processes could: a lock that dies with its process, and a name given at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from torch_stn.lab.errors import UserError

try:
    import fcntl
except ImportError:  # no Unix
    fcntl = None  # type: ignore[assignment]

CAN_LOCK = fcntl is not None


@contextlib.contextmanager
def claimed(path: Path, finished: Callable[[], bool], *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone makes ``path`` until the block ends; False where it is finished or another makes it.

    A lock (flock) on .NAME.lock beside it: a process that is killed loses it, however it dies. The lock file goes when
    the path is finished, never before, so that no two can hold locks on two files of that name and both find work.
    Args: wait, for another's claim to end. Raises: UserError where the file system keeps no locks.
    """
    if finished():
        yield False
        return
    with open(_lock_file(path), "a", encoding="utf-8") as file:
        mine = _lock(file, wait) and not finished()
        yield mine
        if finished():
            release(path)


def release(path: Path) -> None:
    """Take away the lock file of a path that is finished; a kill just before may have left it."""
    _lock_file(path).unlink(missing_ok=True)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """A text file that takes its name when the block ends well; to be called inside a claim.

    What was killed on this machine while it wrote the same file is swept away: under a claim nobody writes it now.
    """
    start = f".{path.name}.{socket.gethostname()}."
    for old in path.parent.iterdir():
        if old.name.startswith(start):
            old.unlink(missing_ok=True)
    temporary = path.with_name(f"{start}{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _lock(file: IO[str], wait: bool) -> bool:
    """Whether the lock was free."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise UserError(
            f"{file.name}: its file system keeps no locks ({error.strerror}); wanted a folder on another one"
        ) from None
    return True
