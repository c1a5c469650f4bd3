"""Shards behind URLs: the same images, batches and predictions as those of this disk, and one line where it fails."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import complaint, stn
from photo_folder import WORDS, folder_config
from shard_folder import shard_folder

from torch_stn.lab.data import places
from torch_stn.lab.data.load import data_set, load
from torch_stn.lab.data.places import place, read_part, size_and_time
from torch_stn.lab.data.shards import expand, is_shards
from torch_stn.lab.errors import UserError

pytest.importorskip("upath", reason="universal-pathlib is not installed")


class Handler(SimpleHTTPRequestHandler):
    """Files with byte ranges, as buckets and most servers have them; `fails` counts answers that will be errors."""

    ranges = True
    fails = 0

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and type(self).fails:
            type(self).fails -= 1
            self.send_error(503)
            return
        if not wanted or not self.ranges:
            return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        part = data[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of tmp_path."""
    monkeypatch.setattr(Handler, "ranges", True)
    monkeypatch.setattr(Handler, "fails", 0)
    monkeypatch.setattr(places, "PAUSE", 0.01)
    made = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(tmp_path)))
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def config_of(data: str, *words: str) -> Any:
    return folder_config(Path("elsewhere"), f"data={data}", *words)


def test_batches_are_those_of_the_shards_on_disk(tmp_path: Path, server: str) -> None:
    shard_folder(tmp_path / "s")
    here, there = config_of(f"{tmp_path}/s"), config_of(f"{server}/s/train-{{0..2}}.tar")
    near, far = load(here, notice=lambda line: None), load(there, notice=lambda line: None)
    assert near.digest == far.digest  # type: ignore[union-attr]
    for step in (0, 1, 5):
        a, b = (data_set(each, here).training_batch(step, 6) for each in (near, far))
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_a_run_trains_is_evaluated_and_predicts(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shard_folder(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    data = f"{server}/s/train-{{0..2}}.tar"
    assert stn("train", "folder", *WORDS, f"data={data}", "steps=2", "--run", "r")[0] == 0
    assert stn("evaluate", "r")[0] == 0
    code, out, said = stn("predict", "r", f"{server}/s/train-0.tar", "--out", "far")
    assert (code, out) == (0, "far: 1 shards done, 0 were there\n")
    assert "train-0.tar: 8 images" in said
    assert stn("predict", "r", "s/train-0.tar", "--out", "near")[0] == 0
    assert (tmp_path / "far" / "train-0.csv").read_text() == (tmp_path / "near" / "train-0.csv").read_text()
    # It carries the time that the server gives the shard.
    assert stn("predict", "r", f"{server}/s/train-0.tar", "--out", "far")[1] == "far: 0 shards done, 1 were there\n"


def test_a_network_that_fails_twice_is_asked_a_third_time(tmp_path: Path, server: str) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(range(200)))
    path = place(f"{server}/a.tar")
    assert size_and_time(path)[0] == 200
    assert abs(size_and_time(path)[1] - (tmp_path / "a.tar").stat().st_mtime_ns) <= 1e9
    Handler.fails = 2
    assert read_part(path, 10, 5) == bytes(range(10, 15))
    Handler.fails = 3
    with pytest.raises(OSError, match="cannot be read: 503"):
        read_part(path, 10, 5)
    assert read_part(path, 198, 5) == bytes([198, 199])


def test_what_cannot_be_read_is_a_line(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shard_folder(tmp_path / "s", 2)
    monkeypatch.chdir(tmp_path)
    call = ("train", "folder", *WORDS)
    shard = f"{server}/s/train-2.tar"
    assert complaint(*call, f"data={server}/s/train-{{0..3}}.tar") == f"data: no shard {shard}, and 1 more are missing"
    assert complaint(*call, "data=nosuch://a/b.tar").startswith("nosuch://a/b.tar: ")
    Handler.ranges = False
    code, _, said = stn(*call, f"data={server}/s/train-{{0..1}}.tar")
    last = f"stn: {server}/s/train-1.tar: its server gives whole files only; wanted one that knows byte ranges"
    assert (code, said.splitlines()[1:]) == (2, [last])


def test_names_are_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_shards("https://example.org/train-{000..009}.tar")
    assert [str(place(each)) for each in expand("https://example.org/{a,b}.tar")] == [
        "https://example.org/a.tar",
        "https://example.org/b.tar",
    ]
    assert str(place(Path("https://example.org/a.tar"))) == "https://example.org/a.tar"
    assert place("a.tar") == Path("a.tar")
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(UserError, match=r"pip install 'torch-stn\[remote\]'"):
        place("https://example.org/a.tar")
