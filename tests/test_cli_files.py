"""The `stn` command before broken files and a full disk: one line, no traceback, nothing lost, nothing run."""

import errno
import json
import os
import pickle
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import FOREIGN, MISTAKE, complaint, move_to, see_few_digits, stn, train, unbroken
from tiny_run import tiny_digits, tiny_train, weights

from torch_stn.lab.data import load
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.run_folder import RunFolder


@pytest.fixture(autouse=True)
def bare_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    see_few_digits(monkeypatch)


# Checkpoints


class Malice:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


def unfinished() -> RunFolder:
    """A run in r that stopped at step 4 of 6."""
    folder = tiny_train(Path("r"), "steps=4")
    folder.write_json("config.json", {**folder.read_json("config.json", missing=""), "steps": 6})
    return folder


@pytest.mark.parametrize("by", [torch.save, lambda record, path: path.write_bytes(pickle.dumps(record))])
@pytest.mark.parametrize("name", ["state.pt", "model.safetensors"])
def test_a_malicious_checkpoint_is_refused_and_not_run(
    few_digits: None, by: Callable[[object, Path], object], name: str
) -> None:
    folder = unfinished()
    for checkpoint in folder.checkpoints():
        by({"step": 4, "optimizer": Malice()}, checkpoint / name)
    assert name in complaint("train", "--resume", "r")
    if name == "model.safetensors":
        assert name in complaint("evaluate", "r")
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["state.pt", "model.safetensors"])
@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_truncated_checkpoint_is_named(few_digits: None, name: str, size: int) -> None:
    folder = unfinished()
    for checkpoint in folder.checkpoints():
        path = checkpoint / name
        path.write_bytes(path.read_bytes()[:size])
    text = complaint("train", "--resume", "r")
    assert text.startswith("r/checkpoints/step-0000000")
    assert name in text


def test_weights_of_another_network_are_named(few_digits: None) -> None:
    folder = unfinished()
    folder.write_json("config.json", {**folder.read_json("config.json", missing=""), "model": "cnn"})
    for words in (("train", "--resume", "r"), ("evaluate", "r")):
        assert complaint(*words).startswith("r/checkpoints/step-0000000")


# Data


def idx(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(torch.Size(shape).numel())


def write_mnist(folder: Path) -> None:
    """Four whole IDX files, but of other digits."""
    folder.mkdir(parents=True)
    for part, count in {"train": 60, "t10k": 10}.items():
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx((count, 28, 28)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx((count,)))


@pytest.mark.parametrize("digits", ["auto", "mnist"])
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda folder: shutil.rmtree(folder.parent), "data/mnist"),
        (lambda folder: (folder / "train-images-idx3-ubyte").unlink(), "data/mnist: no file train-images-idx3-ubyte"),
        (lambda folder: None, "train-images-idx3-ubyte: the checksum differs"),
        (lambda folder: os.truncate(folder / "train-images-idx3-ubyte", 1000), "train-images-idx3-ubyte: cut short"),
        (
            lambda folder: os.truncate(folder / "train-images-idx3-ubyte", 0),
            "train-images-idx3-ubyte: the file is empty",
        ),
        (
            lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
            "train-images-idx3-ubyte: starts with bytes 89 50 4e 47 (a PNG picture)",
        ),
        (
            lambda folder: (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b" + bytes(30)),
            "train-images-idx3-ubyte.gz: broken gzip file",
        ),
    ],
    ids=["no folder", "missing", "checksum", "truncated", "empty", "foreign", "broken gzip"],
)
def test_bad_data_is_named_and_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, digits: str, spoil: Callable[[Path], object], text: str
) -> None:
    write_mnist(Path("data/mnist"))
    spoil(Path("data/mnist"))
    monkeypatch.setenv("TORCH_STN_DATA", "data")
    assert text in complaint(*train(f"digits={digits}", "--run", "r"))
    # So the same words work once the data are there.
    assert not Path("r").exists()


def test_a_resume_does_not_change_its_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `digits=auto` found at the start is what the run goes on with, or an error; never other digits."""
    monkeypatch.setattr(load, "load_digits", lambda *args, **kwargs: tiny_digits())
    assert stn(*train("digits=auto", "--run", "r", "steps=2"))[0] == 0
    assert RunFolder.open("r").config().digits != "auto"


# A full disk


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the writers meet what they meet on a full disk, a write that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("size", "words", "where"),
    [
        # What each writes: 1.2 kB, 5 kB, 26 kB, 57 kB, 40 kB, 146 kB.
        (50, (), "config.json|environment.json"),
        (2_000, ("log_every=1", "steps=40", "checkpoint_every=100"), "metrics.jsonl"),
        (20_000, (), "checkpoints/step-00000002"),
        (40_000, (), "checkpoints/step-00000002"),
        (30_000, ("model=st-fcn",), "snapshots/step-00000000.safetensors"),
        (100_000, (), "evaluation.safetensors"),
    ],
    ids=["json", "metrics", "weights", "state", "snapshot", "evaluation"],
)
def test_a_full_disk_is_one_line_and_loses_nothing(
    few_digits: None, tmp_path: Path, size: int, words: tuple[str, ...], where: str
) -> None:
    whole = unbroken(tmp_path / "whole", *words)
    with at_most(size):
        code, out, err = stn(*train(*words, "--run", "r"))
    assert code in (MISTAKE, FOREIGN)
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("stn: ")
    assert any(name in last for name in where.split("|")), last
    assert "FCN: " not in last
    assert sum(line.startswith("stn: ") for line in err.splitlines()) == 1
    if where.startswith("config"):
        assert stn(*train(*words, "--run", "r"))[0] == 0
    else:
        assert stn("train", "--resume", "r")[0] == 0
    assert weights(RunFolder.open("r")) == weights(whole)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
@pytest.mark.parametrize("name", ["config.json", "environment.json", "evaluation.json"])
def test_no_space_left_is_told_with_the_file(few_digits: None, name: str) -> None:
    Path("r").mkdir()
    link = Path("r", f".{name}.tmp")  # under this name the file is written
    link.symlink_to("/dev/full")
    code, _, err = stn(*train("--run", "r"))
    assert code in (MISTAKE, FOREIGN)
    last = err.splitlines()[-1]
    assert last.startswith("stn: ")
    assert f"r/{name}" in last
    assert "No space left on device" in last
    link.unlink()
    assert stn("train", "--resume", "r")[0] == 0 if name == "evaluation.json" else stn(*train("--run", "r"))[0] == 0


def test_no_space_left_while_a_checkpoint_takes_its_name(
    few_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = unbroken(tmp_path / "whole")
    true = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == "step-00000004":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        true(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        _, _, err = stn(*train("--run", "r"))
    assert "step-00000004" in err.splitlines()[-1]
    assert "No space left on device" in err.splitlines()[-1]
    folder = RunFolder.open("r")
    assert [path.name for path in folder.checkpoints()] == ["step-00000002"]
    assert stn("train", "--resume", "r")[0] == 0
    assert weights(folder) == weights(whole)


# Reports


def test_a_report_that_cannot_be_written(few_digits: None) -> None:
    evaluate(tiny_train(Path("r"), "steps=1"), "cpu", tiny_digits())
    Path("file").write_text("mine")
    for target in ("file/page.html", "r"):
        assert complaint("report", "r", "--out", target).startswith(f"{target}: ")
    assert Path("file").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="no /dev/null here")
def test_a_report_does_not_replace_what_is_no_file(few_digits: None) -> None:
    evaluate(tiny_train(Path("r"), "steps=1"), "cpu", tiny_digits())
    os.mkfifo("pipe")  # for root, a device would give way to a plain file just so
    complaint("report", "r", "--out", "pipe")
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.safetensors", "metrics.jsonl"])
def test_a_damaged_file_of_a_run_is_named_by_the_report(few_digits: None, name: str) -> None:
    folder = tiny_train(Path("r"), "steps=2")
    evaluate(folder, "cpu", tiny_digits())
    (folder.path / name).write_bytes(b'{"step": 1, "lo\n{"step"\n')
    assert complaint("report", "r").startswith(f"r/{name}: ")
    assert not Path("report.html").exists()


def test_json_of_a_run_is_json(few_digits: None) -> None:
    assert stn(*train("model=st-fcn", "data=p", "--run", "r"))[0] == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for path in Path("r").glob("*.json*"):
        for line in [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines():
            json.loads(line, parse_constant=refuse)
