"""`stn bench`: a record is whole and honest, on the screen, on the page and in the picture; mistakes are one line."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import FOREIGN, MISTAKE, complaint, move_to, stn
from PIL import Image
from rich.console import Console

from torch_stn.lab.bench import cases, measure, memory, parity, picture, rows, screen, stopwatch
from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.page import page

TINY = Case("1x1x4x4 tiny", (1, 1, 4, 4), (4, 4), wanted=(1e9, None))
PLAIN = replace(TINY, name="1x1x4x4 plain", gradients=())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, a suite of two tiny cases, two rounds, no child process."""
    move_to(tmp_path, monkeypatch)
    monkeypatch.setitem(cases.SUITES, "cpu", (TINY, PLAIN))
    monkeypatch.setattr(stopwatch, "QUICK", stopwatch.Effort(rounds=2, seconds=0))
    monkeypatch.setattr(memory, "peaks", lambda *_: [{"stn": {"forward": 3 << 20, "both": 5 << 20}}, {}])


def record() -> dict[str, Any]:
    """A made-up record: ours takes 100 µs, forward 1.1 of eager's time is a loss, OpenCV reads other points."""

    def time(median: float) -> dict[str, float]:
        return {"median": median, "q1": 0.9 * median, "q3": 1.1 * median, "rounds": 7}

    contenders = {
        "stn": {
            "backend": "cpu",
            "errors": {"picture": 1e-6},
            "forward": time(100),
            "both": time(200),
            "peak": {"forward": 3 << 20, "both": 5 << 20},
        },
        "stn/fast": {"backend": "fast", "errors": {"picture": 1e-6}, "forward": time(150), "both": time(150)},
        "aten": {"backend": None, "errors": {"picture": 2e-6}, "forward": time(90), "both": time(1200)},
        "opencv": {"backend": None, "errors": {"picture": 0.5}, "forward": time(400)},
    }
    case = {"name": "1x1x4x4", "wanted": [1, 4]}
    floor = {"forward": {"bytes": 1, **time(10)}, "both": {"bytes": 2, **time(20)}}
    machine = {"processor": "P", "instructions": "AVX2", "threads": 2, "torch": "2.13", "commit": "0123456789abcdef"}
    return {
        "format": 1,
        "suite": "cpu",
        "against": ["aten", "kornia", "opencv"],
        "quick": False,
        "machine": {**machine, "started": "2026-01-02T03:04:05Z", "rivals": {"kornia": None, "opencv": "5"}},
        "load": {"before": 0.0, "others": 0.0, "drift": 0.0},
        "warnings": ["the machine was busy: a test"],
        "cases": [
            {
                "case": case,
                "promised_error": 1e-7,
                "contenders": contenders,
                "missing": {"kornia": "not installed"},
                "floor": floor,
                "drift": 0.0,
            }
        ],
    }


# The record


def test_a_run_leaves_a_record_a_picture_and_a_table(at_once: None) -> None:
    code, out, err = stn("bench", "--quick", "--against", "aten", "--json", "b.json", "--picture", "b.png")
    assert code == 0, err
    kept = json.loads(Path("b.json").read_text(encoding="utf-8"))
    assert [case["case"]["name"] for case in kept["cases"]] == [TINY.name, PLAIN.name]
    assert kept["quick"]
    assert kept["machine"]["torch"] == torch.__version__
    tiny, plain = (case["contenders"] for case in kept["cases"])
    assert set(tiny) >= {"stn", "aten"}
    assert set(tiny["stn"]["errors"]) == {"picture", "image", "theta"}
    for contender in tiny.values():
        for stage in ("forward", "both"):
            time = contender[stage]
            assert 0 < time["q1"] <= time["median"] <= time["q3"]
    assert tiny["stn"]["peak"] == {"forward": 3 << 20, "both": 5 << 20}
    assert "both" not in plain["stn"]
    assert kept["cases"][0]["floor"]["forward"]["bytes"] == 2 * 16 * 4
    assert kept["cases"][0]["floor"]["both"]["bytes"] == (2 + 3) * 16 * 4
    assert "short of what is wanted: 1x1x4x4 tiny, forward: " in out
    assert err.splitlines()[0] == "parity: 1x1x4x4 tiny"
    with Image.open("b.png") as drawn:
        assert drawn.info[picture.SOURCE] == picture.digest(kept)
    assert sorted(path.name for path in Path().iterdir()) == ["b.json", "b.png"]


def test_nothing_is_timed_or_written_where_one_of_ours_is_wrong(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "allowed", lambda case, what: 0.0 if case == PLAIN else 1.0)
    monkeypatch.setattr(stopwatch, "interleaved", lambda *_: pytest.fail("something was timed"))
    code, out, err = stn("bench", "--quick", "--against", "aten", "--json", "b.json")
    assert (code, out) == (MISTAKE, "")
    assert err.splitlines()[-1].startswith("stn: 1x1x4x4 plain: the picture of stn (")
    assert list(Path().iterdir()) == []


def test_bytes_that_must_move() -> None:
    from torch_stn.lab.bench.inputs import make

    only_theta = make(replace(TINY, gradients=("theta",)))
    assert measure.bytes_moved(only_theta, "both") == (2 + 2) * 16 * 4
    points = make(replace(TINY, family="points"))
    assert measure.bytes_moved(points, "forward") == (2 + 2) * 16 * 4
    assert measure.bytes_moved(points, "both") == (2 + 2) * 16 * 4 + (3 + 4) * 16 * 4


def test_a_busy_machine_is_told() -> None:
    calm = {"before": 0.1, "others": 0.01, "drift": 0.02}
    assert measure.warnings_of(calm) == []
    assert measure.warnings_of({"before": None, "others": None, "drift": 0.0}) == []
    for key, text in {"before": "load average 3.0", "others": "300%", "drift": "up to 300%"}.items():
        (line,) = measure.warnings_of({**calm, key: 3.0})
        assert text in line


def test_peak_memory_is_that_of_the_call() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc/self/clear_refs here: peaks are not measured")
    big = Case("1x1x1024x1024", (1, 1, 1024, 1024), (1024, 1024))
    found = memory.peaks([big, replace(big, gradients=())], ("stn", "aten", "opencv"))
    assert found is not None
    mib = 1 << 20
    for case in found:
        assert set(case) == {"stn", "aten"}
        # Eager's grid and picture: 8 and 4 MiB; backward two gradients more, of 8 and 4.
        assert 11 * mib < case["aten"]["forward"] < 24 * mib
    assert 18 * mib < found[0]["aten"]["both"] < 44 * mib
    assert "both" not in found[1]["stn"]


# The clock


def test_contenders_take_turns_and_the_first_changes() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    found = stopwatch.interleaved(calls, stopwatch.Effort(rounds=3, seconds=0))
    assert {name: len(times) for name, times in found.items()} == {"a": 3, "b": 3, "c": 3}
    turns = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert "".join(turns[-9:]).endswith("bcacab") or "".join(turns).endswith("abcbcacab")


def test_summary_and_drift() -> None:
    assert stopwatch.summary([1e-6, 2e-6, 3e-6, 4e-6, 5e-6]) == pytest.approx(
        {"median": 3, "q1": 2, "q3": 4, "rounds": 5}
    )
    assert stopwatch.drift({"a": [1.0, 1, 1, 2, 2, 2], "b": [1.0, 1, 1, 4, 4, 4]}) == pytest.approx(2)
    assert stopwatch.drift({"a": [1.0]}) == 0


# What is said of a record


def test_rows_count_times_of_others_over_ours() -> None:
    (forward,), (both,) = rows.rows(record(), "forward"), rows.rows(record(), "both")
    assert {name: other.ratio for name, other in forward.against.items()} == {"stn/fast": 1.5, "aten": 0.9, "opencv": 4}
    assert both.against["aten"].ratio == 6
    assert forward.floor == both.floor == 0.1
    assert forward.spread == pytest.approx(0.1)
    assert (forward.missed, both.missed) == (True, False)
    assert forward.against["opencv"].other_picture
    assert rows.losses(record()) == [
        "1x1x4x4, forward: eager takes 0.90 of our time",
        "1x1x4x4, forward and backward: stn/fast takes 0.75 of our time",
    ]
    assert rows.missed(record()) == [
        "1x1x4x4, forward: 0.90 times eager, wanted 1",
        "1x1x4x4: relative error 1.0e-06, wanted 1.0e-07",
    ]
    assert rows.absent(record()) == ["kornia: not installed (1 case)"]


def test_numbers_for_a_reader() -> None:
    assert [rows.time_text(t) for t in (1.234, 123.4, 1234, 1234567)] == ["1.23 µs", "123 µs", "1.23 ms", "1235 ms"]
    assert [rows.memory_text(m) for m in (None, 0, 3 << 20, 300 << 20)] == ["", "0.0", "3.0", "300"]


def test_the_screen_and_the_page_hide_no_loss() -> None:
    file = io.StringIO()
    screen.show(Console(file=file, width=40), record())
    shown = file.getvalue()
    for text in (
        "0.90",
        "4.00 ≠",
        "slower than: 1x1x4x4, forward: eager takes",
        "warning: the machine was busy: a test",
    ):
        assert text in shown
    text = page({"benchmarks-cpu": record()}, "images")
    assert "| 1x1x4x4 | cpu | 100 µs | 10% | **0.90** |  | 4.00 ≠ | 1.50 | 1 | 10% | 3.0 |  | 1e-06 |" in text
    assert "images/benchmarks-cpu.png" in text
    assert "**Doubtful: the machine was busy: a test.**" in text
    assert "* 1x1x4x4, forward: eager takes 0.90 of our time" in text
    assert "Nothing has been measured yet." in page({}, "images")


def test_the_picture_is_drawn_and_knows_its_record() -> None:
    drawn = Image.open(io.BytesIO(picture.draw(record())))
    assert drawn.info[picture.SOURCE] == picture.digest(record())
    assert drawn.width > 800
    colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 24) or []}
    assert (0x00, 0x72, 0xB2) in colours  # eager's bar
    assert (0xD5, 0x5E, 0x00) in colours  # the hatching of a loss


# Mistakes


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--suite", "tpu"), "--suite: wanted one of cpu, gpu, got 'tpu'"),
        (("--against", "aten,kornja"), "--against: wanted some of aten,compile,kornia,opencv, got 'kornja'"),
        (("--cases", "17x17"), "--cases: no case is like '17x17'; there are 1x1x4x4 tiny"),
        (("--json", "."), "--json: wanted the name of a file, . is a folder"),
        (("--json", "nowhere/b.json"), "--json: wanted a file in a folder that exists, there is no nowhere"),
        (("--picture", "/dev/null"), "--picture: /dev/null cannot be written"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(at_once: None, words: tuple[str, ...], text: str) -> None:
    assert complaint("bench", *words).startswith(text)
    assert list(Path().iterdir()) == []


def test_the_gpu_suite_needs_a_gpu(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert complaint("bench", "--suite", "gpu") == "--suite: gpu needs a GPU that torch can use, there is none here"


def test_a_disk_that_fills_leaves_no_half_record(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = stn("bench", "--quick", "--against", "aten", "--json", "b.json")
    assert code in (MISTAKE, FOREIGN)
    assert err.splitlines()[-1] == "stn: b.json: cannot be written (No space left on device)"
    assert list(Path().iterdir()) == []
