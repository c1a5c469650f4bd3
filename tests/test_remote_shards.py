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
from torch_stn.lab.data.shards import class_names, expand, is_shards
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
        if not wanted or not self.ranges or not Path(self.translate_path(self.path)).is_file():
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
    data = f"{server}/s/train-{{0..1}}.tar"
    Handler.fails = 1000
    assert complaint(*call, f"data={data}").startswith(f"data: {data}: cannot be read: 503")
    Handler.fails = 0
    Handler.ranges = False
    why = "its server gives whole files only; wanted one that knows byte ranges"
    assert complaint(*call, f"data={data}") == f"data: {data}: {why}"
    wanted = "wanted names that end in .tar, or a bucket's folder"
    assert complaint(*call, f"data={server}/s") == f"data: no shard in {server}/s; {wanted}"
    for url in ("https://example.org/a.tar?key=1", "https://me:secret@example.org/a.tar"):
        said = complaint(*call, f"data={url}")
        assert said.startswith("https://...: wanted a URL without ? and without a user or password")
        assert "secret" not in said


def test_class_names_are_read_and_a_failing_server_is_no_missing_file(tmp_path: Path, server: str) -> None:
    shard_folder(tmp_path / "s")
    shard = place(f"{server}/s/train-0.tar")
    assert class_names(shard) is None
    (tmp_path / "s" / "classes.txt").write_text("red\ngreen\n")
    assert class_names(shard) == ("red", "green")
    Handler.fails = 3
    with pytest.raises(UserError, match=r"classes\.txt: cannot be read as class names: .*503"):
        class_names(shard)


def test_names_are_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_shards("https://example.org/train-{000..009}.tar")
    assert [str(place(each)) for each in expand("https://example.org/{a,b}.tar")] == [
        "https://example.org/a.tar",
        "https://example.org/b.tar",
    ]
    assert str(place("HTTPS://example.org/a.tar")) == "https://example.org/a.tar"
    assert place("a.tar") == Path("a.tar")
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(UserError, match=r"pip install 'torch-stn\[remote\]'"):
        place("https://example.org/a.tar")
