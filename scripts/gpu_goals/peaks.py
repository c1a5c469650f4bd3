"""Goal 7: the memory that a call adds at its worst moment, beside eager's."""

from __future__ import annotations

from functools import partial

from gpu_goals.device import Device, against, mine, picture_bytes, shape_of
from gpu_goals.lines import Got, Line, NotRunError, Task, Wanted
from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.memory import cuda_peaks

# One kind of map without a grid, one that eager needs the largest tables for; each dtype.
CASES = (
    Case("affine", (64, 3, 512, 512), (512, 512)),
    Case("affine", (64, 3, 512, 512), (512, 512), dtype="bfloat16"),
    Case("TPS", (64, 3, 512, 512), (512, 512), family="tps"),
    Case("TPS", (64, 3, 512, 512), (512, 512), family="tps", dtype="bfloat16"),
)
PICTURE = Wanted(1.01, "picture", most=True)


def tasks(device: Device) -> list[Task]:
    """Forward is judged: the picture, no grid, no float32 copy of a half image; with the backward pass it is told."""
    found = []
    for case in device.some(CASES):
        name, case = case.name, device.fitted(case)
        lines = [
            Line(f"memory added forward, {name}, {shape_of(case)}", PICTURE),
            Line(f"memory added forward + backward, {name}, {shape_of(case)}", "picture"),
        ]
        found.append(Task(lines, partial(_peaks, device, case)))
    return found


def _peaks(device: Device, case: Case) -> list[Got]:
    inputs = device.ready(case)[0]
    contenders = [mine(inputs), *against("aten", [inputs])]
    if device.tiny:
        raise NotRunError("torch keeps no mark of the memory that was used on a CPU")
    picture = picture_bytes(inputs)
    found = cuda_peaks(contenders)
    ours, eager = (found[contender.name] for contender in contenders)
    return [
        Got(
            ours[stage] / picture,
            f"{ours[stage] >> 20} MiB, eager {eager[stage] >> 20} MiB",
            {"bytes": float(ours[stage]), "eager": float(eager[stage]), "picture": float(picture)},
        )
        for stage in ("forward", "both")
    ]
