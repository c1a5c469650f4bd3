"""MNIST from a public mirror into the cache of the user."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch_stn.lab.data.idx import read_idx
from torch_stn.lab.errors import UserError

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
PATIENCE = 10.0  # seconds without a byte


class DownloadError(Exception):
    """The network, the mirror or the cache folder did not give the file; one line says why."""


def fetch(files: dict[str, str], folder: Path, notice: Callable[[str], None]) -> None:
    """Download the files (name: MD5 of the raw bytes) as NAME.gz into the folder.

    pooch writes to a temporary name in the same folder; the file takes its own name only once its content has been
    verified, so a cache never holds half a file. The smallest go first: where nothing can be had, it shows at once.
    Raises: DownloadError after at most some 10 s without a byte.
    """
    notice(f"Downloading MNIST (11 MB) from {MIRROR} to {folder}")
    with _progress() as advance:
        for name in sorted(files, key=lambda name: ("images" in name, name)):
            _fetch_one(name, files[name], folder, advance)


def _fetch_one(name: str, md5: str, folder: Path, advance: Callable[[str, int, int], None]) -> None:
    """One file, in a thread of its own: the look-up of a host name knows no time-out, so the clock is kept outside."""
    watch = _Watch(name, advance)
    outcome: list[Exception | None] = []

    def work() -> None:
        try:
            _retrieve(f"{MIRROR}{name}.gz", folder, f"{name}.gz", md5, watch)
            outcome.append(None)
        except Exception as error:  # whatever it was, the thread that waits reports it
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        if thread.is_alive() and time.monotonic() - watch.heard > PATIENCE:
            raise DownloadError(f"nothing came from {MIRROR} for {PATIENCE:.0f} s")
    if outcome[0] is not None:
        raise DownloadError(_reason(outcome[0])) from None


def _retrieve(url: str, folder: Path, name: str, md5: str, watch: _Watch) -> None:
    """The one line that needs a network; tests put another in its place."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # its notes on checksums of the gzip wrapper would mislead
    download = pooch.HTTPDownloader(progressbar=watch, chunk_size=1 << 16, timeout=(PATIENCE / 2, PATIENCE))

    def checked(url: str, output_file: str, pooch: Any) -> None:
        download(url, output_file, pooch)
        read_idx(output_file, md5=md5)

    pooch.retrieve(url, known_hash=None, fname=name, path=folder, downloader=checked)


def _reason(error: Exception) -> str:
    """An exception of requests, pooch or the file system, as one short line."""
    kind = type(error).__name__
    if isinstance(error, UserError):
        return f"the mirror sent another file: {error}"
    if kind in ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError"):
        return f"no connection to {MIRROR}"
    return f"{kind}: {' '.join(str(error).split())[:200]}"


class _Watch:
    """The bar that pooch fills: notes when it last heard something and passes the count on."""

    def __init__(self, name: str, advance: Callable[[str, int, int], None]) -> None:
        self.name, self.advance = name, advance
        self.total = self.done = 0
        self.heard = time.monotonic()

    def update(self, count: int) -> None:
        self.heard = time.monotonic()
        self.done = min(self.done + count, self.total)
        self.advance(self.name, self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """pooch calls it at the end; nothing is open."""


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a file on stderr where that is a terminal and rich is installed; otherwise silence."""
    try:
        from rich.console import Console
        from rich.progress import DownloadColumn, Progress, TransferSpeedColumn
    except ImportError:
        yield lambda name, done, total: None
        return
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        yield advance
