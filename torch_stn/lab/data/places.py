"""Files and folders of this machine, and those behind a URL: https://, s3://, gs://, ..., whatever fsspec reaches.

A place of this machine is a pathlib.Path. One behind a URL is a UPath of universal-pathlib, which has names and parents
alike; how the two are read differs, and is here. Nothing is written. A request that fails is tried three times, and
"is not there" is only what a server says so of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from torch_stn.lab.errors import UserError

URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
ABSENT = (403, 404, 410)  # a bucket that may not be listed says 403 of what it lacks
TIMES = ("mtime", "LastModified", "Last-Modified", "last_modified", "updated")  # what protocols call it
TRIES = 3
PAUSE = 1.0  # seconds before the second try; before the third twice as many
AHEAD = 4 << 20  # bytes of a request where a file is read from front to back

T = TypeVar("T")


def is_url(path: str | Path) -> bool:
    """Whether a path names something behind a URL.

    >>> is_url("https://example.org/a.tar"), is_url("c:/a.tar"), is_url("a.tar")
    (True, False, False)
    """
    return URL.match(str(path)) is not None


def place(path: str | Path) -> Path:
    """A place by its name; behind a URL, where universal-pathlib and what the protocol wants are installed.

    Raises: UserError where they are not, or the URL holds what must not be kept in a run folder.
    """
    if not is_url(path):
        return Path(path).expanduser()
    url = str(path)
    protocol, _, rest = url.partition("://")
    if "?" in url or "@" in rest.partition("/")[0]:
        raise UserError(
            f"{protocol}://...: wanted a URL without ? and without a user or password, which runs would keep"
        )
    try:
        from upath import UPath

        found = UPath(f"{protocol.lower()}://{rest}")
        _ = found.fs  # what the protocol needs is looked for only now
    except ImportError as error:
        raise UserError(
            f"{url}: wanted universal-pathlib, and what fsspec reads {protocol} with; pip install 'torch-stn[remote]' "
            f"(for s3 and gs also s3fs, gcsfs): {error}"
        ) from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    return cast(Path, found)  # no Path, but all that is asked of one


def is_there(path: Path) -> bool:
    """Whether there is such a file. Raises: OSError where nobody says so, or its server cannot give parts of it."""
    if not is_url(path):
        return path.is_file()
    try:
        read_part(path, 0, 1)
    except FileNotFoundError:
        return False
    return True


def children(folder: Path) -> list[Path]:
    """What lies in a folder, by name; servers of web pages list none. Raises: OSError."""
    if not is_url(folder):
        return sorted(folder.iterdir())
    if str(folder).startswith("http"):
        return []
    try:
        return sorted(_tried(folder, lambda: list(folder.iterdir())), key=str)
    except FileNotFoundError:
        return []


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and nanoseconds since 1970 at which it changed last; 0 where a server does not say.

    Raises: OSError.
    """
    if not is_url(path):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    remote = cast(Any, path)
    told = _tried(path, lambda: remote.fs.info(remote.path))
    if not isinstance(told.get("size"), int):
        raise OSError(0, "its server does not say how large it is")
    return told["size"], _nanoseconds(next((told[key] for key in TIMES if told.get(key)), None))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, from front to back. Raises: OSError, in reading too."""
    if is_url(path):
        yield cast(IO[bytes], _Reading(path))
        return
    with path.open("rb") as file:
        yield file


def read_part(path: Path, offset: int, count: int) -> bytes:
    """So many bytes from there, or fewer where the file ends; from any thread. Raises: OSError."""
    if not is_url(path):
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return _fully(file, count)
    remote = cast(Any, path)
    data: bytes = _tried(path, lambda: remote.fs.cat_file(remote.path, start=offset, end=offset + count))
    if len(data) > count:
        raise OSError(0, "its server gives whole files only; wanted one that knows byte ranges")
    return data


class _Reading:
    """A file behind a URL for who asks for nothing but the next bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size, _ = size_and_time(path)
        self.at = 0  # where the next request begins
        self.held = b""

    def read(self, count: int = -1) -> bytes:
        wanted = self.size if count < 0 else count
        parts = [self.held[:wanted]]
        self.held = self.held[wanted:]
        missing = wanted - len(parts[0])
        while missing > 0 and self.at < self.size:
            block = read_part(self.path, self.at, min(AHEAD, self.size - self.at))
            if not block:
                raise OSError(0, "is shorter than its server says")
            self.at += len(block)
            parts.append(block[:missing])
            self.held = block[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)


def reason(error: OSError) -> str:
    """Why, as the end of a sentence."""
    text = error.strerror or "cannot be read"
    return text[:1].lower() + text[1:]


def _tried(path: Path, ask: Callable[[], T]) -> T:
    """The answer, or an OSError of whatever a protocol's library raises; FileNotFoundError where it is not there."""
    for attempt in range(TRIES):
        try:
            return ask()
        except Exception as error:
            said = error
        if isinstance(said, FileNotFoundError) or getattr(said, "status", None) in ABSENT:
            raise FileNotFoundError(0, "is not there", str(path))
        if attempt < TRIES - 1:
            time.sleep(PAUSE * 2**attempt)
    line = (str(said).strip() or type(said).__name__).splitlines()[0]
    raise OSError(0, f"cannot be read: {line[:150]}")


def _fully(file: Any, count: int) -> bytes:
    """One read of a raw file may give less than it was asked for."""
    parts: list[bytes] = []
    while count > 0 and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _nanoseconds(when: Any) -> int:
    """A time as a file system, a bucket or a server gives it."""
    if isinstance(when, str):
        try:
            when = parsedate_to_datetime(when)
        except ValueError:
            return 0
    seconds = when if isinstance(when, int | float) else getattr(when, "timestamp", lambda: 0)()
    return int(seconds) * 10**9
