"""`scripts/gpu.py`: what it wants, how it judges, and that all of it runs where there is no GPU (--tiny)."""

import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
from gpu_goals import device as devices
from gpu_goals import screen
from gpu_goals.device import Device
from gpu_goals.lines import (
    FAILED,
    MET,
    NOT_RUN,
    SHORT,
    TOLD,
    WRONG,
    Goal,
    Got,
    Line,
    NotRunError,
    Task,
    Wanted,
    WrongError,
    measured,
)
from gpu_goals.listing import GOALS
from rich.console import Console

from torch_stn.lab.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LEAST, MOST = Wanted(0.82, "floor"), Wanted(40e-6, "us", most=True)


def one(wanted: Wanted | str, value: float) -> Task:
    return Task([Line("it", wanted)], lambda: [Got(value, "a note", {"seconds": 1.0})])


# Judging


@pytest.mark.parametrize(
    ("wanted", "value", "verdict", "got"),
    [
        (LEAST, 0.82, MET, "82 % of the floor"),
        (LEAST, 0.8196, SHORT, "81.96 % of the floor"),
        (LEAST, float("nan"), SHORT, "nan % of the floor"),
        (MOST, 40e-6, MET, "40 µs"),
        (MOST, 41e-6, SHORT, "41 µs"),
        (MOST, float("nan"), SHORT, "nan µs"),
        ("ms", 0.25, TOLD, "250 ms"),
    ],
)
def test_a_value_is_judged_by_its_bound(wanted: Wanted | str, value: float, verdict: str, got: str) -> None:
    (row,) = measured(2, one(wanted, value))
    assert (row.goal, row.verdict, row.got, row.note) == (2, verdict, got, "a note")
    assert row.wanted == {LEAST: "at least 82 % of the floor", MOST: "at most 40 µs", "ms": ""}[wanted]
    assert row.numbers == {"seconds": 1.0}


@pytest.mark.parametrize(
    ("error", "verdict", "note"),
    [
        (NotRunError("no such tool"), NOT_RUN, "no such tool"),
        (WrongError("off by 1"), WRONG, "off by 1"),
        (RuntimeError("CUDA error\nand much more"), FAILED, "RuntimeError: CUDA error"),
    ],
)
def test_what_has_no_value_has_its_reason(error: Exception, verdict: str, note: str) -> None:
    def fails() -> list[Got]:
        raise error

    rows = measured(1, Task([Line("this", LEAST), Line("that", "ms")], fails))
    assert [(row.what, row.verdict, row.note, row.got) for row in rows] == [
        ("this", verdict, note, ""),
        ("that", verdict, note, ""),
    ]


def test_a_measurement_that_leaves_a_line_out_fails() -> None:
    (row,) = measured(1, Task([Line("this", LEAST)], list))
    assert row.verdict == FAILED


# What is wanted


def lines(number: int) -> dict[str, str]:
    device = Device(tiny=True)
    device.fitted = lambda case, least=None: case  # type: ignore[method-assign]
    device.some = lambda cases: cases  # type: ignore[method-assign]
    device.runs = 20
    found = [line for goal in GOALS if goal.number == number for task in goal.tasks(device) for line in task.lines]
    assert len({line.what for line in found}) == len(found)
    return {line.what: "" if isinstance(line.wanted, str) else str(line.wanted) for line in found}


def test_every_goal_is_there_and_fits_nine_minutes() -> None:
    assert sorted({goal.number for goal in GOALS}) == list(range(9))
    assert sum(goal.seconds for goal in GOALS) <= devices.LIMIT < 540
    for goal in GOALS:
        assert any(lines(goal.number).values())


@pytest.mark.parametrize(
    ("number", "what", "wanted"),
    [
        (1, "forward, affine, 8x3x2160x3840 float32", "at least 82 % of the floor"),
        (1, "forward, projective, 64x3x512x512 bfloat16", "at least 65 % of the floor"),
        (1, "forward, grid given, 256x64x56x56 bfloat16", "at least 65 % of the floor"),
        (1, "forward, TPS of 16 points, 64x3x512x512 float32", "at least 50 % of the floor"),
        (1, "host cost of warp(image, affine(theta)), 1x1x4x4", "at most 40 µs"),
        (2, "backward, affine, 256x64x56x56 float32", "at least 60 % of the floor"),
        (2, "backward, affine, 8x3x2160x3840 bfloat16", "at least 45 % of the floor"),
        (2, "backward to the image alone, projective, 64x3x512x512 float32", "at least 50 % of the floor"),
        (2, "backward, grid given, 64x3x512x512 float32", ""),
        (2, "backward, TPS of 16 points, 256x64x56x56 float32", "at least 25 % of the floor"),
        (3, "forward, 4096x1x28x28 float32, against eager", "at least 16 x eager's speed"),
        (3, "forward + backward, 256x64x56x56 float32, against eager", "at least 3.8 x eager's speed"),
        (3, "forward, 32x3x512x512 to 224x224 float32, against eager", "at least 4 x eager's speed"),
        (3, "forward + backward, 8x3x2160x3840 float32, against eager", "at least 130 x eager's speed"),
        (3, "forward, 64x256x28x28 float32, against compile", ""),
        (4, "forward, 3-D affine, 2x1x256x256x256 float32", "at least 55 % of the floor"),
        (4, "backward, 3-D affine, 1x16x128x128x128 float32", "at least 25 % of the floor"),
        (5, "theta gradient, on a smooth image, 8x3x512x512 bfloat16", "at most 0.3 % off"),
        (6, "same bits of the theta gradient, points, 8x3x512x512 float32", "at least 20 runs alike"),
        (6, "deterministic image gradient of a given grid, 256x64x56x56 float32", "at most 1.3 x torch's time"),
        (6, "forward + backward, theta = 0, 16x3x512x512 float32", "at most 10 ms"),
        (7, "memory added forward, affine, 64x3x512x512 bfloat16", "at most 1.01 x the picture"),
        (8, "the sampler in a step of ST-CNN affine, 4x1x28x28 float32", "at most 4 % of the step"),
    ],
)
def test_the_bounds_are_the_goals(number: int, what: str, wanted: str) -> None:
    assert lines(number)[what] == wanted


# The command


def goals(*tasks: Task, seconds: float = 60) -> list[Goal]:
    return [
        Goal(number, f"goal {number}", seconds, lambda device, task=task: [task]) for number, task in enumerate(tasks)
    ]


def test_the_record_is_kept_after_every_goal() -> None:
    kept: list[Any] = []
    said: list[str] = []
    two = goals(one(LEAST, 0.9), one(MOST, 1.0))
    gpu.measure(two, True, said.append, lambda record: kept.append(json.loads(json.dumps(record))))
    assert [(len(record["goals"]), record["finished"]) for record in kept] == [(0, False), (1, False), (2, True)]
    last = kept[-1]
    assert last["tiny"]
    assert last["machine"]["bandwidth"] > 0
    assert last["counts"] == {"met": 1, "short": 1, "wrong": 0, "failed": 0, "not run": 0, "told": 0}
    (row,) = last["goals"][1]["rows"]
    assert (row["wanted"], row["got"], row["verdict"], row["value"]) == ("at most 40 µs", "1e+06 µs", "short", 1.0)
    assert "1. it: 1e+06 µs, wanted at most 40 µs: short (a note)" in said
    file = io.StringIO()
    screen.show(Console(file=file, width=40), last)
    for text in (
        "goal 1",
        "at most 40 µs",
        "1e+06 µs",
        "short",
        "a note",
        "1 met, 1 short",
        "the figures mean nothing",
    ):
        assert text in file.getvalue()


def test_what_no_time_is_left_for_is_told() -> None:
    record = gpu.measure(goals(one(LEAST, 0.9), seconds=-1), True, str, dict)
    assert [(row["verdict"], row["note"]) for row in record["goals"][0]["rows"]] == [("not run", gpu.LATE)]


def test_some_goals() -> None:
    assert [goal.number for goal in gpu.chosen(GOALS, "6, 1")] == [1, 6, 6]
    assert gpu.chosen(GOALS, None) == list(GOALS)
    with pytest.raises(UserError, match="--only: wanted some of 0,1,2,3,4,5,6,7,8, got '9'"):
        gpu.chosen(GOALS, "1,9")


def test_without_a_gpu_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # which the command takes away, and the test's end brings back
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    assert gpu.main(["--json", str(tmp_path / "gpu.json")]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"gpu: {gpu.NO_GPU}\n")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert gpu.main([]) == 1
    assert capsys.readouterr().err == f"gpu: {gpu.NO_TRITON}\n"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="the package triton is not installed")
def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    told = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "scripts/gpu.py", "--tiny", "--json", str(path)],
        cwd=ROOT,
        env=told | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["tiny"]
    assert record["finished"]
    assert [goal["goal"] for goal in record["goals"]] == [goal.number for goal in GOALS]
    rows = [row for goal in record["goals"] for row in goal["rows"]]
    for row in rows:
        assert {"what", "wanted", "got", "verdict"} <= row.keys()
        assert row["verdict"] in (MET, SHORT, TOLD, NOT_RUN), row
        assert row["note"] if row["verdict"] == NOT_RUN else row["got"]
        assert row["wanted"] or row["verdict"] in (TOLD, NOT_RUN)
    for goal in record["goals"]:
        assert goal["rows"]
    # What no clock has a part in is right, or it is not; but the interpreter cuts bits off where a GPU rounds to bfloat16.
    exact = [row for goal in record["goals"] if goal["goal"] in (0, 5) for row in goal["rows"]]
    cut = [row for row in exact if row["verdict"] == SHORT]
    assert all("bfloat16" in row["what"] and row["value"] < 2**-8 for row in cut)
    assert {row["verdict"] for row in exact if row not in cut} == {MET, TOLD}
    assert {row["verdict"] for row in rows if row["what"].startswith("same bits")} == {MET}
    assert "the figures mean nothing" in done.stdout
