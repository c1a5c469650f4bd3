"""Files and folders of this machine, and those behind a URL: https://, s3://, gs://, ..., whatever fsspec reaches.

A place of this machine is a pathlib.Path. One behind a URL is a UPath of universal-pathlib, which has the same methods;
what differs between the two is here. Both are read, never written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any, cast

from torch_stn.lab.errors import UserError

URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")  # a Path that was made of a URL has lost one of its slashes
TRIES = 3
TIMES = ("mtime", "LastModified", "Last-Modified", "updated")  # what protocols call it
PAUSE = 1.0  # seconds before the second try; before the third twice as many


def is_url(path: str | Path) -> bool:
    """Whether a path names something behind a URL.

    >>> is_url("https://example.org/a.tar"), is_url(Path("s3://bucket/a.tar")), is_url("c:/a.tar"), is_url("a.tar")
    (True, True, False, False)
    """
    return URL.match(str(path)) is not None


def place(path: str | Path) -> Path:
    """A place by its name; behind a URL, where universal-pathlib and what the protocol wants are installed.

    Raises: UserError where they are not.
    """
    if not is_url(path):
        return Path(path).expanduser()
    url = URL.sub(r"\1://", str(path), count=1)
    try:
        from upath import UPath

        return cast(Path, UPath(url))  # no Path, but all that is asked of one
    except ImportError as error:
        protocol = url.partition("://")[0]
        raise UserError(
            f"{url}: {protocol}:// needs universal-pathlib and what fsspec reads {protocol} with; "
            f"pip install 'torch-stn[remote]' (for s3 and gs also s3fs, gcsfs): {error}"
        ) from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and nanoseconds since 1970 at which it changed last; 0 where a server does not say.

    Raises: OSError.
    """
    if not is_url(path):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    remote = cast(Any, path)
    with _network_errors(path):
        told = remote.fs.info(remote.path)
    if not isinstance(told.get("size"), int):
        raise OSError(0, "its server does not say how large it is")
    return told["size"], _nanoseconds(next((told[key] for key in TIMES if told.get(key)), None))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, from front to back. Raises: OSError, in reading too."""
    if not is_url(path):
        with path.open("rb") as file:
            yield file
        return
    with _network_errors(path):
        file = path.open("rb")
    with file:
        yield cast(IO[bytes], _Reading(file, path))


def read_part(path: Path, offset: int, count: int) -> bytes:
    """So many bytes from there, or fewer where the file ends; from any thread. Tried again where a network fails.

    Raises: OSError.
    """
    if not is_url(path):
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return _fully(file, count)
    remote = cast(Any, path)
    for attempt in range(TRIES):
        try:
            with _network_errors(path):
                data: bytes = remote.fs.cat_file(remote.path, start=offset, end=offset + count)
            break
        except FileNotFoundError:
            raise
        except OSError:
            if attempt == TRIES - 1:
                raise
            time.sleep(PAUSE * 2**attempt)
    if len(data) > count:
        raise OSError(0, "its server gives whole files only; wanted one that knows byte ranges")
    return data


class _Reading:
    """A file behind a URL for tarfile, which asks for nothing but bytes."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file = file
        self.path = path

    def read(self, count: int = -1) -> bytes:
        with _network_errors(self.path):
            return self.file.read(count)


@contextmanager
def _network_errors(path: Path) -> Iterator[None]:
    """Whatever a protocol's library raises, as an OSError; FileNotFoundError stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(0, "is not there", str(path)) from None
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(0, f"cannot be read: {said[:150]}") from None


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
