"""Goal 8: the sampler's share of a training step of the paper's ST-CNN, and the localisation net's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_goals.device import Device, shape_of
from gpu_goals.lines import Got, Line, Task, Wanted
from torch_stn.lab.bench.cases import Case
from torch_stn.lab.config import Config
from torch_stn.lab.models import build
from torch_stn.lab.models.aligned import Aligned

CONFIG = Config(model="st-cnn", transform="affine", data="r", batch_size=256)
SIDE, CLASSES = 28, 10
SHARE = Wanted(0.04, "step", most=True)


class Unmoved(torch.autograd.Function):
    """In the sampler's place, for nothing: the picture is the image, its gradient the image's, and the first numbers
    of that gradient, a view, stand for theta's: so the localisation net and the first convolution go backward too.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, theta: Tensor) -> Tensor:
        """(N, C, H, W), (N, P) -> (N, C, H, W)."""
        ctx.numbers = theta.shape[1]
        return image.view_as(image)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients to image and theta, neither of them new memory."""
        return grad, grad.flatten(1)[:, : ctx.numbers]


def tasks(device: Device) -> list[Task]:
    """One task: the four steps take turns."""
    batch = 4 if device.tiny else CONFIG.batch_size
    case = Case("step", (batch, 1, SIDE, SIDE), (SIDE, SIDE), gradients=("theta",))
    lines = [
        Line(f"the sampler in a step of ST-CNN affine, {shape_of(case)}", SHARE),
        Line("its localisation net, and the picture's gradient that it asks of the classifier", "step"),
        Line("eager's sampler in the same step", "step"),
    ]
    return [Task(lines, partial(_shares, device, case))]


def _shares(device: Device, case: Case) -> list[Got]:
    device.ready(case)  # raises where ours is wrong
    tuned = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # the step that all is divided by is as fast as torch makes it
    try:
        images = torch.rand(case.image, device=device.name)
        labels = torch.randint(CLASSES, case.image[:1], device=device.name)
        still = _with("triton")
        still.transformer.read = Unmoved.apply  # type: ignore[method-assign]
        nets: dict[str, nn.Module] = {
            "without": build(replace(CONFIG, model="cnn")),
            "still": still,
            "ours": _with("triton"),
            "eager": _with("aten"),
        }
        times = device.times({name: [_step(net.to(device.name), images, labels)] for name, net in nets.items()})
    finally:
        torch.backends.cudnn.benchmark = tuned
    for name, net in nets.items():
        if not all(bool(p.isfinite().all()) for p in net.parameters()):
            raise RuntimeError(f"the weights of the step called {name!r} became infinite")
    without, unmoved, ours, eager = (times.seconds[name] for name in nets)
    note = "; ".join([f"step without transformer {without * 1e6:.4g} µs", *filter(None, [times.note])])
    numbers = dict(times.seconds)
    return [
        Got((ours - unmoved) / without, note, numbers),
        Got(
            (unmoved - without) / without,
            "in the sampler's place the image as it came, theta's gradient a view of the picture's",
        ),
        Got((eager - unmoved) / without),
    ]


def _with(backend: str) -> Aligned:
    """The network with a transformer, whose maps are no longer the identity: that one reads without weighing."""
    net = build(CONFIG)
    assert isinstance(net, Aligned)
    net.transformer.backend = backend
    with torch.no_grad():
        net.transformer.head.weight.normal_(std=0.01)
        net.transformer.head.bias.add_(0.05 * torch.randn_like(net.transformer.head.bias))
    return net


def _step(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    kind = {"foreach": True} if images.device.type == "cpu" else {"fused": True}
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, **kind)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step
