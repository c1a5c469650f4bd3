"""The `stn` command: what a person sees who makes a mistake, has a broken file or a full disk, and what is left then."""

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
from tiny_run import WORDS, go_on, tiny_digits, tiny_train, weights
from typer.testing import CliRunner

from torch_stn._version import __version__
from torch_stn.lab import demo as demo_module
from torch_stn.lab import evaluate as evaluate_module
from torch_stn.lab import experiments, session
from torch_stn.lab.cli import app
from torch_stn.lab.config import override
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.run_folder import RunFolder

MISTAKE, FOREIGN, INTERRUPTED = 2, 1, 130


@pytest.fixture(autouse=True)
def bare_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder and no data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCH_STN_DATA", raising=False)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training sees 300 digits."""
    for module in (session, evaluate_module, demo_module):
        monkeypatch.setattr(module, "load_digits", lambda *args, **kwargs: tiny_digits())


def stn(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; an exception that reaches the top would be a traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def complaint(*words: object, code: int = MISTAKE) -> str:
    """The one line on stderr of a command that fails."""
    exit_code, out, err = stn(*words)
    assert exit_code == code, err
    assert out == ""
    lines = err.splitlines()
    # What a run said before it failed stands above; the last line says why it ended.
    assert all(line.startswith("FCN: step ") for line in lines[:-1]), err
    assert lines[-1].startswith("stn: ")
    return lines[-1].removeprefix("stn: ")


def train(*words: object) -> tuple[object, ...]:
    """A tiny training of the table's experiment; later words win."""
    return ("train", "table1", *WORDS, *words)


def unbroken(path: Path, *words: str) -> RunFolder:
    """The same without the command."""
    return go_on(session.start(override(experiments.config("table1"), [*WORDS, *words]), path))


# Things that work


def test_train_report_evaluate(few_digits: None) -> None:
    code, out, err = stn(*train("model=st-fcn", "--run", "r"))
    assert code == 0
    assert out.rstrip().endswith("run: r")
    assert "ST-FCN" in out
    assert all(line.startswith("ST-FCN affine: step ") for line in err.splitlines())
    assert RunFolder.open("r").checkpoints()

    code, out, err = stn("evaluate", "r")
    assert (code, err) == (0, "")
    assert "ST-FCN" in out

    code, out, err = stn("report", "r", "--out", "page.html")
    assert (code, out, err) == (0, "report: page.html\n", "")
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!")


def test_a_run_without_a_name_of_its_own_gets_one(few_digits: None) -> None:
    for name in ("table1-r-fcn-seed0", "table1-r-fcn-seed0-2"):
        code, out, _ = stn(*train("steps=1"))
        assert code == 0
        assert out.rstrip().endswith(f"run: runs/{name}")


def test_resume_goes_on_with_the_config_of_the_run(few_digits: None, tmp_path: Path) -> None:
    whole = tiny_train(tmp_path / "whole")
    folder = tiny_train(tmp_path / "r", "steps=4", "schedule=steps", "warmup=0")
    code, out, _ = stn("train", "--resume", tmp_path / "r")
    assert code == 0
    assert "FCN" in out
    assert folder.load_state()["step"] == 4
    assert weights(folder) != weights(whole)


def test_version() -> None:
    assert stn("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", ["train", "evaluate", "report", "demo", "doctor"])
def test_every_command_is_explained(command: str) -> None:
    code, out, _ = stn("--help")
    assert code == 0
    assert command in out
    code, out, _ = stn(command, "--help")
    assert code == 0
    assert "Usage" in out


# Mistakes in the words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("train",), "NAME: wanted one of"),
        (("train", "tabel1"), "nearest: table1"),
        (("train", "table1", "modle=fcn"), "modle: no such key; nearest: model"),
        (("train", "table1", "model=fnc"), "nearest: fcn"),
        (("train", "table1", "digits=embedded", "transform=afine"), "nearest: affine"),
        (("train", "table1", "steps=many"), "steps: wanted a whole number, got 'many'"),
        (("train", "table1", "learning_rate=fast"), "learning_rate: wanted a number, got 'fast'"),
        (("train", "table1", "seed"), "'seed': wanted key=value"),
        (("train", "table1", "seed=99999999999999999999"), "seed: wanted"),
        (
            ("train", "table1", "digits=embedded", "model=tutorial", "data=tc"),
            "model=tutorial: wanted a set on 28 x 28 pixels",
        ),
        (("train", "table1", "digits=embedded", "precision=foo", "accelerator=cpu"), "precision"),
        (("train", "table1", "digits=embedded", "accelerator=foo"), "accelerator"),
        (("train", "table1", "digits=embedded", "accelerator=tpu"), "accelerator"),
        (("demo", "model=fcn", "seconds=0.01", "test_distortions=1"), "model"),
        (("train", "table1", "--resume", "r"), "--resume"),
        (("train", "seed=1", "--resume", "r"), "--resume"),
        (("train", "--resume", "r", "--run", "q"), "--resume"),
        (("demo", "modle=fcn"), "modle: no such key; nearest: model"),
        (("demo", "seconds=few"), "seconds: wanted a number, got 'few'"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(words: tuple[str, ...], text: str) -> None:
    assert text in complaint(*words)
    assert list(Path().iterdir()) == []  # nothing was begun


def test_more_processes_than_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_fabric import Fabric

    def launch(self: Fabric, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("thousands of processes were about to be started")

    monkeypatch.setattr(Fabric, "launch", launch)
    assert "devices" in complaint(*train("devices=3000", "batch_size=3000"))


@pytest.mark.parametrize("words", [("trian",), ("train", "table1", "--ruN", "r"), ("evaluate",), ("report",)])
def test_a_mistake_in_the_command_is_told_without_a_traceback(words: tuple[str, ...]) -> None:
    code, out, err = stn(*words)
    assert code == 2
    assert out == ""
    assert "Usage: " in err
    assert "Traceback" not in err


def test_a_command_like_another_is_answered_with_it() -> None:
    assert "'train'" in stn("trian")[2]


# Folders


@pytest.mark.parametrize(
    "words", [("evaluate", "nowhere"), ("train", "--resume", "nowhere"), ("report", "nowhere"), ("report", ".")]
)
def test_a_folder_without_a_run_is_named(words: tuple[str, ...]) -> None:
    text = complaint(*words)
    assert text.startswith(words[-1])
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [("evaluate",), ("train", "--resume"), ("report",)])
def test_a_file_instead_of_a_run_is_named(command: tuple[str, ...]) -> None:
    Path("file").write_text("mine")
    assert complaint(*command, "file").startswith("file: ")
    assert complaint(*command, "file/under").startswith("file/under: ")
    assert Path("file").read_text() == "mine"


def test_an_existing_run_is_refused_and_left_alone(few_digits: None) -> None:
    folder = tiny_train(Path("r"))
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    text = complaint(*train("--run", "r"))
    assert "holds a run already" in text
    assert "--resume r" in text
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("run", ["file", "file/under"])
def test_a_file_in_the_way_of_a_new_run_is_named(few_digits: None, run: str) -> None:
    Path("file").write_text("mine")
    code, out, err = stn(*train("--run", run))
    assert code in (MISTAKE, FOREIGN)
    assert (out, len(err.splitlines())) == ("", 1)
    assert f"{run}: " in err
    assert "folder" in err or "irectory" in err  # says what was wanted, not only that a file exists
    assert Path("file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(few_digits: None, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "locked/r: " in complaint(*train("--run", "locked/r"), code=FOREIGN)


@pytest.mark.parametrize("command", [("evaluate",), ("train", "--resume"), ("report",)])
def test_a_run_of_another_version_is_refused(few_digits: None, command: tuple[str, ...]) -> None:
    folder = tiny_train(Path("r"), "steps=1")
    record = folder.read_json("config.json", missing="")
    folder.write_json("config.json", {**record, "format": 2, "new_key": 1})
    text = complaint(*command, "r")
    assert "format 2" in text
    assert "format 1" in text


@pytest.mark.parametrize("command", [("evaluate",), ("train", "--resume"), ("report",)])
@pytest.mark.parametrize("content", ["", '{"format": 1, "mod', "[]", "null", "\x00\x01"])
def test_a_damaged_config_is_named(few_digits: None, command: tuple[str, ...], content: str) -> None:
    folder = tiny_train(Path("r"), "steps=1")
    (folder.path / "config.json").write_text(content)
    assert complaint(*command, "r").startswith("r/config.json: ")


@pytest.mark.parametrize("command", [("evaluate",), ("train", "--resume")])
def test_a_config_that_another_hand_spoilt_is_named(few_digits: None, command: tuple[str, ...]) -> None:
    folder = tiny_train(Path("r"), "steps=1")
    folder.write_json("config.json", {**folder.read_json("config.json", missing=""), "seed": "one"})
    assert complaint(*command, "r") == "r/config.json: seed: wanted int, got 'one'"


def test_evaluating_a_run_without_a_checkpoint(few_digits: None) -> None:
    session.start(session.RunFolder.open(tiny_train(Path("r"), "steps=1").path).config(), Path("q"))
    assert complaint("evaluate", "q") == "q: no checkpoint yet"


@pytest.mark.parametrize("accelerator", ["foo", "", "cuda:99"])
def test_an_accelerator_that_is_not_there(few_digits: None, accelerator: str) -> None:
    tiny_train(Path("r"), "steps=1")
    assert "accelerator" in complaint("evaluate", "r", "--accelerator", accelerator)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(few_digits: None) -> None:
    tiny_train(Path("r"), "steps=1")
    assert "accelerator" in complaint("evaluate", "r", "--accelerator", "cuda")
    assert "accelerator" in complaint(*train("accelerator=cuda"))


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
    monkeypatch.setattr(session, "load_digits", lambda *args, **kwargs: tiny_digits())
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
        # What each writes: 0.9 kB, 5 kB, 26 kB, 57 kB, 40 kB, 146 kB.
        (50, (), "config.json|environment.json"),
        (900, ("log_every=1", "steps=40", "checkpoint_every=100"), "metrics.jsonl"),
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


# NaN and Ctrl-C


def test_a_loss_that_is_not_finite_is_one_line(few_digits: None) -> None:
    folder = tiny_train(Path("r"), "steps=4")
    folder.write_json(
        "config.json",
        {**folder.read_json("config.json", missing=""), "steps": 20, "learning_rate": 1e30, "warmup": 0.0},
    )
    text = complaint("train", "--resume", "r")
    assert text.startswith("loss: not finite at step ")
    assert "r/checkpoints/step-00000004" in text


def test_ctrl_c_says_how_to_go_on(few_digits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_stn.lab.recorder import Recorder

    row = Recorder.row

    def press(self: Recorder, values: dict[str, Any]) -> None:
        row(self, values)
        if values["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Recorder, "row", press)
    text = complaint(*train("--run", "r"), code=INTERRUPTED)
    assert "step 3" in text or "step 4" in text
    assert text.endswith("go on with: stn train --resume r")
    assert RunFolder.open("r").checkpoints()


def test_ctrl_c_during_the_evaluation_says_how_to_go_on(few_digits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "evaluate", press)
    text = complaint(*train("--run", "r"), code=INTERRUPTED)
    assert text.endswith("stn train --resume r")
    assert RunFolder.open("r").load_state()["step"] == 6


def test_ctrl_c_before_the_training_is_one_line(few_digits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session.models, "build", press)
    assert complaint(*train("--run", "r"), code=INTERRUPTED) == "interrupted"


# The demo's folder


def test_the_demo_leaves_the_folders_of_others_alone(few_digits: None) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years")
    Path("mine/fcn").mkdir()
    Path("mine/fcn/more.txt").write_text("more")
    text = complaint("demo", "--run", "mine")
    assert text.startswith("mine: holds thesis.txt")
    assert Path("mine/thesis.txt").read_text() == "years"
    assert Path("mine/fcn/more.txt").read_text() == "more"
    Path("file").write_text("mine")
    assert complaint("demo", "--run", "file").startswith("file: ")


def test_the_demo_replaces_an_earlier_demo_only(few_digits: None) -> None:
    """A folder that only looks like a part of the demo is somebody's."""
    Path("mine/fcn").mkdir(parents=True)
    Path("mine/fcn/thesis.txt").write_text("years")
    complaint("demo", "seconds=0.01", "test_distortions=1", "--run", "mine")
    assert Path("mine/fcn/thesis.txt").read_text() == "years"


def test_the_help_names_every_experiment() -> None:
    _, out, _ = stn("train", "--help")
    assert all(name in out for name in experiments.names())


def test_json_of_a_run_is_json(few_digits: None) -> None:
    assert stn(*train("model=st-fcn", "data=p", "--run", "r"))[0] == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for path in Path("r").glob("*.json*"):
        for line in [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines():
            json.loads(line, parse_constant=refuse)
