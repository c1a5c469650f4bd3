"""`stn predict` over shards: each image once, whatever is killed and however often it is begun again."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import complaint, stn
from photo_folder import folder_config
from shard_folder import pictures, png, shard_folder, write_shard

from torch_stn.lab.claims import claimed, written_whole
from torch_stn.lab.data.load import load
from torch_stn.lab.predict_shards import predict_shards
from torch_stn.lab.session import start
from torch_stn.lab.train import train

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120
BIG = 90  # images of a shard that takes more than a batch


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on three shards."""
    folder = tmp_path_factory.mktemp("shards")
    config = folder_config(shard_folder(folder / "s"), "steps=1", "evaluations=0")
    source = load(config, notice=lambda line: None)
    train(start(config, folder / "run", source=source), source)
    return folder / "run"


def rows(out: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(out.glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            found += list(csv.DictReader(file))
    return found


def files(out: Path) -> list[str]:
    return [row["file"] for row in rows(out)]


def members(shards: int, each: int) -> list[str]:
    return [f"train-{shard}.tar/{shard * each + number:04d}.png" for shard in range(shards) for number in range(each)]


def test_each_image_is_a_line_and_what_is_there_is_left(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shard_folder(tmp_path / "s", 3, 70)
    code, out, err = stn("predict", run, "s/train-{0..1}.tar", "--out", "p")
    assert (code, out) == (0, "p: 2 shards done, 0 were there\n"), err
    assert files(tmp_path / "p") == members(2, 70)
    before = (tmp_path / "p" / "train-0.csv").stat().st_ino
    assert stn("predict", run, "s", "--out", "p")[1] == "p: 1 shards done, 2 were there\n"
    assert files(tmp_path / "p") == members(3, 70)
    assert (tmp_path / "p" / "train-0.csv").stat().st_ino == before
    assert sorted(os.listdir("p")) == ["predictions.json", "train-0.csv", "train-1.csv", "train-2.csv"]
    # The same as of the images in a folder.
    for number in range(5):
        (tmp_path / f"{number:04d}.png").write_bytes(pictures(5)[2 * number + 1][1])
    alone = list(csv.DictReader(stn("predict", run, *sorted(tmp_path.glob("*.png")))[1].splitlines()))
    for ours, theirs in zip(rows(tmp_path / "p"), alone, strict=False):
        assert ours["class"] == theirs["class"]
        assert float(ours["probability"]) == pytest.approx(float(theirs["probability"]), abs=2e-6)


def test_faults_are_lines_too_and_the_rest_goes_on(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cut = write_shard(tmp_path / "a.tar", pictures(4))
    cut.write_bytes(cut.read_bytes()[:-11_500])
    (tmp_path / "b.tar").write_bytes(b"no tar" * 1000)
    write_shard(tmp_path / "c.tar", [("x.png", b"broken"), ("y.png", png("red", 0))])
    code, out, err = stn("predict", run, "a.tar", "b.tar", "c.tar", "--out", "p")
    assert (code, out) == (1, "p: 2 shards done, 0 were there\n")
    assert err.splitlines()[-1].startswith("stn: not done, unreadable or in another process's hands: b.tar")
    assert err.count("b.tar: no tar: ") == 1
    found = {row["file"]: row["skipped"] for row in rows(tmp_path / "p")}
    assert found.pop("a.tar").startswith("cut short or damaged after 000")
    assert found["c.tar/x.png"] == "no image, whatever its name"
    assert found["c.tar/y.png"] == found["a.tar/0000.png"] == ""
    assert err.count("skipped c.tar/x.png: ") == 1
    # A shard that is made whole has another time, and is done again.
    write_shard(tmp_path / "a.tar", pictures(4))
    os.utime(tmp_path / "a.tar", (5000, 5000))
    assert stn("predict", run, "a.tar", "--out", "p")[1] == "p: 1 shards done, 0 were there\n"
    assert [name for name in files(tmp_path / "p") if name.startswith("a.tar")] == [
        f"a.tar/000{n}.png" for n in range(4)
    ]


def test_a_compressed_shard_is_read_too(tmp_path: Path, run: Path) -> None:
    import gzip

    plain = write_shard(tmp_path / "a.tar", pictures(3))
    with gzip.open(tmp_path / "b.tar.gz", "wb") as file:
        file.write(plain.read_bytes())
    predict_shards(str(run), [tmp_path / "b.tar.gz"], tmp_path / "p", notice=lambda line: None)
    assert files(tmp_path / "p") == [f"b.tar.gz/000{n}.png" for n in range(3)]


def test_mistakes_of_the_call_are_a_line(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shard_folder(tmp_path / "s", 2, 2)
    shard_folder(tmp_path / "t", 1, 2)
    (tmp_path / "a.png").write_bytes(png("red", 0))
    wanted = "wanted a folder for one CSV file a shard"
    assert complaint("predict", run, "s") == f"--out: {wanted}, got none"
    assert complaint("predict", run, "s", "--out", "p.csv") == f"--out: {wanted}, got p.csv"
    assert complaint("predict", run, "s", "--out", "a.png") == f"--out: {wanted}, got a.png"
    assert complaint("predict", run, "s", "a.png", "--out", "p").startswith("PATH: wanted shards alone or images alone")
    assert complaint("predict", run, "s/train-{0..3}.tar", "--out", "p").startswith("PATH: no shard s/train-2.tar")
    assert complaint("predict", run, "s", "t", "--out", "p").startswith(
        "PATH: 2 shards would be written to train-0.csv"
    )
    assert complaint("predict", run, "s", "--out", "p", "--workers", "0") == "--workers: wanted 1 to 256, got 0"
    assert complaint("predict", run, "a.png", "--workers", "2").startswith("--workers: wanted tar shards")
    assert complaint("predict", run, "s", "--out", "p", "--crops", "c") == "--crops: wanted none with shards"
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "predictions.json").write_text('{"network": "another"}')
    assert complaint("predict", run, "s", "--out", "p").startswith("--out: p holds the predictions of another network")


def test_one_claim_at_a_time_and_it_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with claimed(path, path.exists) as mine:
        assert mine
        with claimed(path, path.exists) as other:
            assert not other
        path.touch()
    assert os.listdir(tmp_path) == ["a.csv"]
    with claimed(path, path.exists) as again:
        assert not again
    path.unlink()
    code = f"""
import os, signal
from pathlib import Path
from torch_stn.lab.claims import claimed, written_whole
path = Path({str(path)!r})
with claimed(path, path.exists), written_whole(path) as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(os.listdir(tmp_path)) == 2  # the lock file and the half one
    with claimed(path, path.exists) as mine, written_whole(path) as file:
        assert mine
        file.write("whole")
    assert os.listdir(tmp_path) == ["a.csv"]
    assert path.read_text() == "whole"


def command(run: Path, folder: Path, workers: int) -> subprocess.Popen[str]:
    """The command in processes of its own; a session, so that all of it can be killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = ["predict", str(run), "s", "--out", "p", "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch_stn", *words], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def half_written(out: Path) -> bool:
    """Whether a shard is in the middle of being written."""
    return out.is_dir() and any(
        name.startswith(".train") and ".csv." in name and ".lock" not in name for name in os.listdir(out)
    )


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_command_that_is_killed_and_begun_again_loses_and_doubles_nothing(
    tmp_path: Path, run: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shard_folder(tmp_path / "s", 6, BIG)
    out = tmp_path / "p"
    with command(run, tmp_path, workers) as process:
        try:
            assert wait_for(lambda: len(list(out.glob("*.csv"))) >= 1 and half_written(out))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    whole = files(out)
    assert 0 < len(whole) < 6 * BIG
    assert len(whole) % BIG == 0
    code, said, err = stn("predict", run, "s", "--out", "p", "--workers", workers)
    assert code == 0, err
    assert said == f"p: {6 - len(whole) // BIG} shards done, {len(whole) // BIG} were there\n"
    assert files(out) == members(6, BIG)
    assert [name for name in os.listdir(out) if name.startswith(".")] == []


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, run: Path) -> None:
    shards = sorted(shard_folder(tmp_path / "s", 6, 300).glob("*.tar"))
    out, killed = tmp_path / "p", []

    def kill() -> None:
        # In the middle of a shard, once another is done.
        if wait_for(lambda: len(list(out.glob("*.csv"))) >= 1 and half_written(out)):
            writing = next(name for name in os.listdir(out) if name.startswith(".train") and not name.endswith("lock"))
            os.kill(int(writing.rpartition(".")[2]), signal.SIGKILL)
            killed.append(writing)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome = predict_shards(str(run), shards, out, workers=2, notice=print)
    thread.join()
    assert len(killed) == 1
    assert outcome.left == []
    assert files(out) == members(6, 300)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_two_commands_on_one_folder_share_the_work(tmp_path: Path, run: Path) -> None:
    shard_folder(tmp_path / "s", 8, BIG)
    with command(run, tmp_path, 1) as one, command(run, tmp_path, 1) as two:
        lines = [each.communicate(timeout=PATIENCE)[1] for each in (one, two)]
    # Each shard was done by one of the two; who came last may have found another at work.
    assert sum(line.startswith("train-") for line in "".join(lines).splitlines()) == 8
    assert files(tmp_path / "p") == members(8, BIG)
