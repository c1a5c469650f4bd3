"""Measure every line of the goals on a GPU, print them as a table and keep the record; nine minutes, with compilation.

    PYTHONPATH=. python3 scripts/gpu.py [--json FILE] [--only 1,3]
    PYTHONPATH=. python3 scripts/gpu.py --tiny     # the same on a CPU, small, interpreted: does the command work

It needs torch >= 2.11 and Triton >= 3.6; rivals that are not installed are named as missing. Every case is compared
with float64 before it is timed. Exit code: 0, or 1 where a line was wrong or failed, or there is no GPU; what falls
short of a goal is a finding, no error. The record is written anew after every goal: a run that is ended keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_goals.lines import FAILED, NOT_RUN, WRONG, Goal, Row, counts, measured, unmeasured

from torch_stn.lab.bench.command import plain
from torch_stn.lab.errors import UserError

if TYPE_CHECKING:
    from gpu_goals.device import Device

FORMAT = 1  # of the record
NO_GPU = "no GPU that torch can use is here; --tiny tries the command itself on a CPU"
NO_TRITON = "the package triton is not installed"
LATE = "no time was left for it"


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the record goes")
    parser.add_argument("--only", metavar="1,3", help="some goals, by their numbers")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, in Triton's interpreter; figures mean nothing")
    arguments = parser.parse_args(words)
    if find_spec("triton") is None:
        return _refuse(NO_TRITON)
    os.environ.pop("TRITON_INTERPRET", None)  # it would turn a GPU's figures into the interpreter's
    if arguments.tiny:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is loaded

    import torch

    if not arguments.tiny and not torch.cuda.is_available():
        return _refuse(NO_GPU)
    from gpu_goals import screen
    from gpu_goals.listing import GOALS

    from torch_stn.lab.console import out, say
    from torch_stn.lab.report.files import write_whole

    def keep(record: dict[str, Any]) -> None:
        if arguments.json is not None:
            write_whole(arguments.json, (json.dumps(plain(record), indent=1) + "\n").encode())

    try:
        goals = chosen(GOALS, arguments.only)
        with _stream(arguments.tiny):
            record = measure(goals, arguments.tiny, say, keep)
    except UserError as error:
        return _refuse(str(error), 2)
    except KeyboardInterrupt:
        return _refuse("interrupted", 130)
    screen.show(out, record)
    return int(any(record["counts"][verdict] for verdict in (WRONG, FAILED)))


def chosen(goals: Sequence[Goal], words: str | None) -> list[Goal]:
    """The goals of a comma-separated list of numbers, all for None. Raises: UserError for another word."""
    if words is None:
        return list(goals)
    known = list(dict.fromkeys(str(goal.number) for goal in goals))
    numbers = [word.strip() for word in words.split(",")]
    for number in numbers:
        if number not in known:
            raise UserError(f"--only: wanted some of {','.join(known)}, got {number!r}")
    return [goal for goal in goals if str(goal.number) in numbers]


def measure(
    goals: Sequence[Goal], tiny: bool, say: Callable[[str], None], keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The record of the goals. ``say`` gets a line a row, ``keep`` the record after every goal."""
    from gpu_goals.device import Device

    begun = time.monotonic()
    device = Device(tiny)
    record: dict[str, Any] = {"format": FORMAT, "tiny": tiny, "finished": False, "machine": _machine(device)}
    record |= {"counts": counts([]), "seconds": 0.0, "goals": []}
    keep(record)  # a file that cannot be written is told now, not after minutes
    rows: list[Row] = []
    end = begun
    for goal in goals:
        started = time.monotonic()
        end += goal.seconds  # what a goal leaves over is the next one's
        say(f"{goal.number}. {goal.title}, until {end - begun:.0f} s; it is {started - begun:.0f} s now")
        found = rows_of(goal, device, end, say)
        rows += found
        seconds = time.monotonic() - started
        record["goals"].append(
            {
                "goal": goal.number,
                "title": goal.title,
                "seconds": seconds,
                "rows": [{key: value for key, value in asdict(row).items() if key != "goal"} for row in found],
            }
        )
        record |= {"counts": counts(rows), "seconds": time.monotonic() - begun, "finished": goal is goals[-1]}
        keep(record)
    return record


def rows_of(goal: Goal, device: Device, end: float, say: Callable[[str], None]) -> list[Row]:
    """A goal's rows; from the moment ``end`` on, nothing more is begun."""
    rows: list[Row] = []
    for task in goal.tasks(device):
        late = time.monotonic() > min(end, device.end)
        found = unmeasured(goal.number, task, NOT_RUN, LATE) if late else measured(goal.number, task)
        for row in found:
            say(str(row))
        rows += found
        device.clear()
    return rows


def _machine(device: Device) -> dict[str, Any]:
    """Where, with what, and how fast the copy was before all else."""
    import torch
    import triton

    from torch_stn.lab.bench.machine import describe

    more = {"triton": triton.__version__, "cuda": torch.version.cuda, "cache": device.cache}
    return {**describe(device.name), **more, "bandwidth": device.times({}).bandwidth}


def _stream(tiny: bool) -> AbstractContextManager[Any]:
    """All work on one stream that is not the default one: only such a stream can be recorded as a graph."""
    import torch

    return nullcontext() if tiny else torch.cuda.stream(torch.cuda.Stream())


def _refuse(line: str, code: int = 1) -> int:
    print(f"gpu: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
