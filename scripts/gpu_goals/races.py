"""Goal 3: how many times as fast as eager PyTorch, torch.compile and kornia, forward and with the backward pass."""

from __future__ import annotations

from functools import partial

from gpu_goals.device import Device, against, mine, shape_of
from gpu_goals.lines import Got, Line, Task, Wanted
from torch_stn.lab.bench.cases import GPU, Case

CASES = tuple(case for case in GPU if case.wanted != (None, None))  # the ratios stand in the suite of `stn bench`
RIVALS = {"aten": "eager", "compile": "compile", "kornia": "kornia"}  # and the unit in which each is beaten
STAGES = {"forward": "forward", "both": "forward + backward"}


def tasks(device: Device) -> list[Task]:
    """All cases against eager first, which alone is judged; compilers take longest."""
    found = []
    for rival, unit in RIVALS.items():
        for case in device.some(CASES):
            fitted = device.fitted(case)
            lines = []
            for name, wanted in zip(STAGES.values(), case.wanted, strict=True):
                bound = Wanted(wanted, unit) if rival == "aten" and wanted is not None else unit
                lines.append(Line(f"{name}, {shape_of(fitted)}, against {unit}", bound))
            found.append(Task(lines, partial(_race, device, fitted, rival)))
    return found


def _race(device: Device, case: Case, rival: str) -> list[Got]:
    sets = device.ready(case)
    others = against(rival, sets)
    found = []
    for stage in STAGES:
        calls = {
            "ours": [getattr(mine(inputs), stage) for inputs in sets],
            rival: [getattr(other, stage) for other in others],
        }
        times = device.times(calls)
        ours = times.seconds["ours"]
        note = "; ".join([f"{ours * 1e6:.4g} µs", *filter(None, [times.note])])
        found.append(Got(times.seconds[rival] / ours, note, dict(times.seconds)))
    return found
