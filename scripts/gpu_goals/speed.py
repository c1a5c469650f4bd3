"""Goals 1, 2 and 4: forward and backward beside a copy of the bytes that must move, and what a call costs the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from gpu_goals.device import Call, Device, against, mine, shape_of
from gpu_goals.lines import Got, Line, NotRunError, Task, Wanted
from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.contenders import Contender
from torch_stn.lab.bench.inputs import Inputs, transform_of
from torch_stn.lab.bench.measure import bytes_moved
from torch_stn.warping import warp

EAGER = "aten"
SIZES = {
    "L": ((64, 3, 512, 512), (512, 512)),
    "M": ((256, 64, 56, 56), (56, 56)),
    "X": ((8, 3, 2160, 3840), (2160, 3840)),
    "D": ((32, 3, 512, 512), (224, 224)),
}
BOTH, IMAGE = ("image", "theta"), ("image",)
# Family, dtype, sizes, what is differentiated, the share of the floor's speed that is wanted: forward and backward,
# None: told. The picture of D has 18 MB, the goals speak of 64 and more. A given grid's backward pass: goal 6.
ROWS: tuple[tuple[str, str, str, tuple[str, ...], float | None, float | None], ...] = (
    ("affine", "float32", "LMX", BOTH, 0.82, 0.60),
    ("affine", "bfloat16", "LMX", BOTH, 0.65, 0.45),
    ("projective", "float32", "LMX", BOTH, 0.82, 0.50),
    ("points", "float32", "LMX", BOTH, 0.82, None),
    ("tps", "float32", "LM", BOTH, 0.50, 0.25),
    ("projective", "bfloat16", "LM", BOTH, 0.65, 0.45),
    ("points", "bfloat16", "LM", BOTH, 0.65, None),
    ("affine", "float32", "D", BOTH, None, None),
)
IMAGE_ALONE = (("projective", "float32", "LMX", IMAGE, None, 0.50),)
VOLUMES = ((2, 1, 256, 256, 256), (1, 16, 128, 128, 128))
VOLUME_WANTED = (0.55, 0.25)
SMALLEST = Case("1x1x4x4", (1, 1, 4, 4), (4, 4))
HOST = Wanted(40e-6, "us", most=True)


def forward(device: Device) -> list[Task]:
    """Goal 1."""
    lines = [
        Line("host cost of warp(image, affine(theta)), 1x1x4x4", HOST),
        Line("host cost of warp(image, map) alone, 1x1x4x4", "us"),
    ]
    return [Task(lines, partial(_host, device)), *_tasks(device, ROWS, _forward, "forward", 0)]


def backward(device: Device) -> list[Task]:
    """Goal 2."""
    return _tasks(device, (*ROWS, *IMAGE_ALONE), _backward, "backward", 1)


def volumes(device: Device) -> list[Task]:
    """Goal 4."""
    tasks = []
    for image in VOLUMES:
        case = device.fitted(Case("volume", image, image[2:]))
        for measure, name, share in zip((_forward, _backward), ("forward", "backward"), VOLUME_WANTED, strict=True):
            lines = [Line(f"{name}, 3-D affine, {shape_of(case)}", Wanted(share, "floor"))]
            # Eager takes half a second for a volume: no line wants it beside ours here.
            tasks.append(Task(lines, partial(measure, device, case, beside_eager=False)))
    return tasks


def _tasks(
    device: Device,
    rows: Sequence[tuple[str, str, str, tuple[str, ...], float | None, float | None]],
    measure: Callable[[Device, Case], list[Got]],
    stage: str,
    column: int,
) -> list[Task]:
    tasks = []
    for family, dtype, sizes, gradients, *wanted in rows:
        share = wanted[column]
        for name in device.some(sizes):
            image, out = SIZES[name]
            case = device.fitted(Case(name, image, out, family=family, dtype=dtype, gradients=gradients))
            to = "" if column == 0 or gradients == BOTH else " to the image alone"
            line = Line(
                f"{stage}{to}, {_titled(family)}, {shape_of(case)}",
                "floor" if share is None else Wanted(share, "floor"),
            )
            tasks.append(Task([line], partial(measure, device, case)))
    return tasks


def _titled(family: str) -> str:
    return {"points": "grid given", "tps": "TPS of 16 points"}.get(family, family)


def _forward(device: Device, case: Case, *, beside_eager: bool = True) -> list[Got]:
    sets = device.ready(case)
    return [_share(device, sets, lambda one: one.forward, bytes_moved(sets[0], "forward"), beside_eager)]


def _backward(device: Device, case: Case, *, beside_eager: bool = True) -> list[Got]:
    """Image and output gradient in, image gradient out; given points are read, and their gradient written."""
    sets = device.ready(case)
    moved = bytes_moved(sets[0], "both") - bytes_moved(sets[0], "forward")
    return [_share(device, sets, lambda one: one.pull(), moved, beside_eager)]


def _share(
    device: Device, sets: list[Inputs], call: Callable[[Contender], Call], moved: int, beside_eager: bool
) -> Got:
    """The floor's time over ours."""
    calls = {"ours": [call(mine(inputs)) for inputs in sets]}
    notes = []
    if beside_eager:
        try:
            calls["eager"] = [call(one) for one in against(EAGER, sets)]
        except NotRunError as reason:
            notes.append(str(reason))
    times = device.times(calls)
    ours = times.seconds["ours"]
    if "eager" in calls:
        notes.append(f"{ours * 1e6:.4g} µs, eager {times.seconds['eager'] / ours:.3g} x as long")
    if times.note:
        notes.append(times.note)
    numbers = {"bytes": float(moved), "bandwidth": times.bandwidth, **times.seconds}
    return Got(times.floor(moved) / ours, "; ".join(notes), numbers)


def _host(device: Device) -> list[Got]:
    """Of calls that are queued, forward without a graph."""
    inputs = device.ready(SMALLEST)[0]
    whole, map = mine(inputs).forward, transform_of(SMALLEST).to(device.name)(inputs.theta)

    def alone() -> None:
        with torch.no_grad():
            warp(inputs.image, map, SMALLEST.size, backend="triton")

    return [Got(device.host_seconds(call)) for call in (whole, alone)]
