"""Goals 5 and 6: errors of bfloat16 images, the same bits every time and what they cost, wild maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_goals.device import Device, against, mine, poisoned, shape_of
from gpu_goals.lines import Got, Line, Task, Wanted
from torch_stn.lab.bench import parity
from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.contenders import Contender, ours

HALF = Case("8x3x512x512", (8, 3, 512, 512), (512, 512), dtype="bfloat16")
ERROR = Wanted(0.003, "error", most=True)
ERRORS = {"picture": "output", "image": "image gradient", "theta": "theta gradient, on a smooth image"}

# Every kind of source that has a gradient of its own.
KINDS = {
    "affine": Case("bits", (8, 3, 512, 512), (512, 512)),
    "projective": Case("bits", (8, 3, 512, 512), (512, 512), family="projective"),
    "TPS": Case("bits", (8, 3, 512, 512), (512, 512), family="tps"),
    "displacement field": Case("bits", (8, 3, 512, 512), (512, 512), family="displacement"),
    "points": Case("bits", (8, 3, 512, 512), (512, 512), family="points"),
    "3-D affine": Case("bits", (2, 2, 96, 96, 96), (96, 96, 96)),
}
GRIDS = (
    ((64, 3, 512, 512), (512, 512)),
    ((256, 64, 56, 56), (56, 56)),
    ((32, 3, 512, 512), (224, 224)),
)
PRICE = Wanted(1.3, "torch", most=True)
WILD_CASE = Case("wild", (16, 3, 512, 512), (512, 512))
# No point of these falls on a pixel, where a rounded coordinate takes the slope of the other side.
WILD = {
    "theta = 0": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    "rank 1": ((0.6, 0.3, 0.01), (0.4, 0.2, 0.02)),
    "100-fold zoom": ((0.01, 0.0, 0.1), (0.0, 0.01, 0.2)),
}
SOON = Wanted(10e-3, "ms", most=True)


def halves(device: Device) -> list[Task]:
    """Goal 5."""
    case = device.fitted(HALF)
    lines = [Line(f"{name}, {shape_of(case)}", ERROR) for name in ERRORS.values()]
    noise = Line(f"theta gradient, on noise, {shape_of(case)}", "error")
    return [Task(lines, partial(_errors, device, case)), Task([noise], partial(_error_on_noise, device, case))]


def repeats(device: Device) -> list[Task]:
    """Goal 6 but for the memory checker's part."""
    tasks = []
    for name, kind in KINDS.items():
        case = device.fitted(kind)
        wanted = Wanted(device.runs, "runs")
        lines = [Line(f"same bits of the {what} gradient, {name}, {shape_of(case)}", wanted) for what in case.gradients]
        tasks.append(Task(lines, partial(_same_bits, device, case)))
    for image, out in device.some(GRIDS):
        case = device.fitted(Case("grid", image, out, family="points", gradients=("image",)))
        what = f"image gradient of a given grid, {shape_of(case)}"
        lines = [Line(f"deterministic {what}", PRICE), Line(f"{what}, deterministic=False", "torch")]
        tasks.append(Task(lines, partial(_price, device, case)))
    for name, theta in WILD.items():
        case = device.fitted(WILD_CASE, 17)  # as many points as on a GPU are too many for the gathering kernel
        lines = [Line(f"forward + backward, {name}, {shape_of(case)}", SOON)]
        tasks.append(Task(lines, partial(_wild, device, case, theta)))
    return tasks


def _errors(device: Device, case: Case) -> list[Got]:
    """Against float64 coordinates on the same bfloat16 numbers; eager with a grid in bfloat16 beside it."""
    inputs = device.fresh(case)
    truth = parity.truth(inputs)
    with poisoned():
        found = parity.errors(mine(inputs), truth)

    def read(image: Tensor, theta: Tensor) -> Tensor:
        grid = F.affine_grid(theta.to(image.dtype), [*image.shape[:2], *case.size], align_corners=False)
        return F.grid_sample(image, grid, align_corners=False)

    eager = parity.errors(Contender("eager", read, inputs), truth)
    return [Got(found[key], f"eager with a bfloat16 grid: {eager[key]:.2%}", {"eager": eager[key]}) for key in ERRORS]


def _error_on_noise(device: Device, case: Case) -> list[Got]:
    """The slope of noise jumps at each pixel: a coordinate that rounding moves across one is off in any float32."""
    inputs = device.fresh(case)
    wanted = ours(inputs.exact(), "reference").both()[1]
    return [Got(parity.relative(mine(inputs).both()[1], wanted), "float32 coordinates alone cost about as much")]


def _same_bits(device: Device, case: Case) -> list[Got]:
    contender = mine(device.ready(case)[0])
    first = contender.both()
    alike = [1] * len(first)
    for _ in range(device.runs - 1):
        for number, (one, other) in enumerate(zip(first, contender.both(), strict=True)):
            alike[number] += torch.equal(one, other)
    return [Got(float(each)) for each in alike]


def _price(device: Device, case: Case) -> list[Got]:
    """Backward alone, beside F.grid_sample's, which adds in any order."""
    sets = device.ready(case)
    device.check(sets[0], deterministic=False)
    calls = {
        "fixed": [mine(inputs).pull() for inputs in sets],
        "loose": [mine(inputs, deterministic=False).pull() for inputs in sets],
        "torch": [one.pull() for one in against("aten", sets)],
    }
    times = device.times(calls)
    torchs = times.seconds["torch"]
    return [Got(times.seconds[name] / torchs, times.note, dict(times.seconds)) for name in ("fixed", "loose")]


def _wild(device: Device, case: Case, theta: tuple[tuple[float, ...], ...]) -> list[Got]:
    inputs = device.fresh(case)
    inputs = replace(inputs, theta=torch.tensor(theta, device=device.name).expand(case.batch, 2, 3).contiguous())
    device.check(inputs)
    call: Callable[[], object] = mine(inputs).both
    times = device.times({"ours": [call]})
    return [Got(times.seconds["ours"], times.note, dict(times.seconds))]
