"""Downloads: what is kept, what is not, and how long one waits. No test uses a network."""

import gzip
import hashlib
import struct
import threading
import time

import pooch
import pytest

from torch_stn.lab.data import download
from torch_stn.lab.data.download import DownloadError, fetch

RAW = struct.pack(">II", 0x801, 3) + b"abc"
MD5 = hashlib.md5(RAW).hexdigest()


def quiet(line: str) -> None:
    """A notice that nobody reads."""


def test_a_silent_network_is_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    done = threading.Event()
    monkeypatch.setattr(download, "_retrieve", lambda *args: done.wait(30))
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"nothing came from https://.* for 0 s"):
        fetch({"x-labels": MD5}, tmp_path, quiet)
    assert time.monotonic() - start < 5
    done.set()


def test_a_slow_network_is_not_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 1.0)

    def retrieve(url, folder, name, md5, watch):
        watch.total = 6
        for _ in range(6):
            time.sleep(0.25)
            watch.update(1)
        (folder / name).touch()

    monkeypatch.setattr(download, "_retrieve", retrieve)
    fetch({"x-labels": MD5}, tmp_path, quiet)
    assert (tmp_path / "x-labels.gz").exists()


def mirror(monkeypatch, content):
    """pooch with a downloader that writes this content, or raises half-way where it is None."""

    class Downloader:
        def __init__(self, progressbar, chunk_size, timeout):
            assert max(timeout) <= download.PATIENCE

        def __call__(self, url, output_file, pooch):
            with open(output_file, "wb") as file:
                if content is None:
                    file.write(b"half")
                    raise OSError("the line broke")
                file.write(content)

    monkeypatch.setattr(pooch, "HTTPDownloader", Downloader)


def test_pooch_keeps_what_was_verified(tmp_path, monkeypatch):
    mirror(monkeypatch, gzip.compress(RAW))
    fetch({"x-labels": MD5}, tmp_path / "new", quiet)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x-labels.gz"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>sign in</html>", r"the mirror sent another file: .*HTML"),
        (gzip.compress(RAW[:-1] + b"d", mtime=0), r"the mirror sent another file: .*checksum differs"),
        (None, "the line broke"),
    ],
)
def test_pooch_keeps_nothing_else(tmp_path, monkeypatch, content, words):
    mirror(monkeypatch, content)
    with pytest.raises(DownloadError, match=words):
        fetch({"x-labels": MD5}, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []
