"""Reading run folders: what is broken is named in one line, what a kill leaves behind is tolerated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from synthetic_run import write_run

from torch_stn.lab.errors import UserError
from torch_stn.lab.report import build_report
from torch_stn.lab.report.runs import Snapshot, moments, read_run


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such run folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a run folder"):
        read_run(tmp_path)
    folder = write_run(tmp_path / "run")
    for name, content, message in [
        ("config.json", '{"format": 2}', "run format 2, this version reads format 1"),
        ("config.json", '{"format": 1, "mod', r"config\.json: truncated or not JSON"),
        ("config.json", "[1]", "holds a list, a JSON object was wanted"),
        ("environment.json", "", r"environment\.json: truncated"),
        ("evaluation.json", "{}", "error is None, a number in percent was wanted"),
        ("evaluation.safetensors", "foreign", "truncated or not a safetensors file"),
        ("metrics.jsonl", '{"step": 1, "lo\n{"step": 2}\n', "line 1 of 2 is not a JSON object"),
        ("snapshots/step-00000000.safetensors", "foreign", "truncated or not a safetensors file"),
    ]:
        path = folder / name
        good = path.read_bytes()
        path.write_text(content)
        with pytest.raises(UserError, match=message) as raised:
            read_run(folder)
        assert "\n" not in str(raised.value)
        path.write_bytes(good)
    read_run(folder)


def test_arrays_are_checked(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / "evaluation.safetensors"
    arrays = load_file(path)
    for broken, message in [
        ({"labels": arrays["labels"][:5]}, "lengths differ: inputs 12, labels 5"),
        ({"inputs": arrays["inputs"][0]}, r"inputs has shape \(42, 42\), 3 or 4 axes were wanted"),
    ]:
        save_file(arrays | broken, path)
        with pytest.raises(UserError, match=message):
            read_run(folder)
    save_file({name: array for name, array in arrays.items() if name != "confusion"}, path)
    with pytest.raises(UserError, match="confusion is missing"):
        read_run(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"missing beside evaluation\.json"):
        read_run(folder)


def test_what_a_kill_leaves_behind_is_tolerated(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", snapshots=5)
    whole = read_run(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9999, "seconds": 1')
    last = sorted((folder / "snapshots").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:1000])
    cut = read_run(folder)
    assert len(cut.loss) == len(whole.loss) == 80
    assert len(cut.snapshots) == len(whole.snapshots) - 1


def test_a_step_written_twice_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", model="fcn")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "seconds": 1, "loss": 7.5}\n\n{"step": 100, "seconds": 2, "loss": NaN}\n')
    loss = read_run(folder).loss
    assert len(loss) == 80
    assert loss.value[0] == 7.5
    assert np.isnan(loss.value[1])
    build_report([folder], tmp_path / "report.html")


def test_moments_keep_the_ends_and_the_count() -> None:
    empty = np.zeros((1, 1, 1))
    snapshots = tuple(Snapshot(step, step / 10, empty, empty) for step in range(0, 4001, 50))
    chosen = [snapshot.step for snapshot in moments(snapshots, 6)]
    assert len(chosen) == 6
    assert (chosen[0], chosen[-1]) == (0, 4000)
    assert np.all(np.diff(np.diff(chosen)) >= 0)
    assert len(moments(snapshots[:3], 6)) == 3
