"""Peak memory of one call, in a process of its own: `python -m torch_stn.lab.bench.memory`, requests on stdin.

What counts is resident memory above what was there before the call: results, gradients, grids, scratch. Linux lets a
process set back its own high-water mark, so one child serves all cases. glibc is told to hand each large block back to
the system at once; from memory it keeps, a call would be served without the mark ever rising.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.contenders import OURS, Contender, ours
from torch_stn.lab.bench.inputs import Inputs, make
from torch_stn.lab.bench.rivals import rivals
from torch_stn.lab.errors import UserError

WHO = (OURS, "aten", "kornia")
BLOCK = 65536  # bytes, from which on a block is the system's own
Peaks = dict[str, dict[str, int]]  # contender -> {"forward": bytes, "both": bytes}


def peaks(cases: Sequence[Case], names: Sequence[str]) -> list[Peaks] | None:
    """The peaks of each case, in bytes; None where the system has no high-water mark to set back (not Linux)."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    request = {"cases": [asdict(case) for case in cases], "names": [n for n in names if n in WHO]}
    package = str(Path(__file__).resolve().parents[3])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "MALLOC_MMAP_THRESHOLD_": str(BLOCK),
        "MALLOC_TRIM_THRESHOLD_": str(BLOCK),
    }
    words = [sys.executable, "-m", __name__]
    done = subprocess.run(words, input=json.dumps(request), capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise UserError(f"the process that measures memory ended with {done.returncode}: {last}")
    found: list[Peaks] = json.loads(done.stdout)
    return found


def cuda_peaks(contenders: Sequence[Contender]) -> Peaks:
    """The same on a GPU, where torch keeps the mark."""

    def peak(call: Callable[[], Any]) -> int:
        call()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before

    return {contender.name: _stages(contender, peak) for contender in contenders}


def _stages(contender: Contender, peak: Callable[[Callable[[], Any]], int]) -> dict[str, int]:
    found = {"forward": peak(contender.forward)}
    if contender.trains and contender.inputs.case.gradients:
        found["both"] = peak(contender.both)
    return found


def _resident_peak(call: Callable[[], Any]) -> int:
    """Bytes that a second call adds at its worst moment (the first makes what is kept: a basis, threads)."""
    call()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    kept = call()
    peak = _status("VmHWM")
    del kept
    return max(0, peak - before)


def _status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def _measure(inputs: Inputs, names: Sequence[str]) -> Peaks:
    able, _ = rivals(tuple(name for name in names if name != OURS), inputs)
    return {contender.name: _stages(contender, _resident_peak) for contender in (ours(inputs), *able)}


def _case(record: dict[str, Any]) -> Case:
    """A Case from what JSON made of it."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Case(**fields)


def main() -> None:
    """Requests from stdin, peaks to stdout."""
    request = json.load(sys.stdin)
    print(json.dumps([_measure(make(_case(record)), request["names"]) for record in request["cases"]]))


if __name__ == "__main__":
    main()
