"""The `stn` command: what it does, and what a person sees who makes a mistake."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import FOREIGN, INTERRUPTED, MISTAKE, complaint, move_to, see_few_digits, stn, train
from tiny_run import tiny_config, tiny_train, weights

from torch_stn._version import __version__
from torch_stn.lab import experiments, models, session
from torch_stn.lab.run_folder import RunFolder


@pytest.fixture(autouse=True)
def bare_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    see_few_digits(monkeypatch)


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


@pytest.mark.parametrize("command", ["train", "evaluate", "report", "demo", "bench", "doctor"])
def test_every_command_is_explained(command: str) -> None:
    code, out, _ = stn("--help")
    assert code == 0
    assert command in out
    code, out, _ = stn(command, "--help")
    assert code == 0
    assert "Usage" in out


def test_the_help_names_every_experiment() -> None:
    _, out, _ = stn("train", "--help")
    assert all(name in out for name in experiments.names())


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


@pytest.mark.parametrize(
    ("words", "environment", "text"),
    [
        (("devices=1000", "batch_size=1000"), {}, "devices: wanted"),
        (("nodes=2",), {}, "MASTER_ADDR: not in the environment"),
        (("nodes=2",), {"MASTER_ADDR": "127.0.0.1"}, "NODE_RANK: not in the environment"),
        (("nodes=2",), {"MASTER_ADDR": "127.0.0.1", "NODE_RANK": "2"}, "NODE_RANK: wanted a number from 0 to 1"),
        (("nodes=2",), {"MASTER_ADDR": "a", "NODE_RANK": "1", "MASTER_PORT": "x"}, "MASTER_PORT: wanted a number"),
        (
            ("devices=3",),
            {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
            "devices, nodes: wanted none beside torchrun's 2 processes",
        ),
    ],
)
def test_several_processes_are_refused_before_any_is_started(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], environment: dict[str, str], text: str
) -> None:
    from lightning_fabric import Fabric

    def launch(self: Fabric, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("processes were about to be started")

    monkeypatch.setattr(Fabric, "launch", launch)
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert text in complaint(*train(*words))
    assert list(Path().iterdir()) == []


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
    session.start(tiny_config(), Path("q"))
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

    monkeypatch.setattr(models, "build", press)
    assert complaint(*train("--run", "r"), code=INTERRUPTED) == "interrupted"
