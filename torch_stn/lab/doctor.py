"""`stn doctor`: what is here, what serves what, and why not."""

import importlib.metadata
import platform

import torch
from rich.table import Column, Table

from torch_stn._version import __version__
from torch_stn.lab.console import out
from torch_stn.lab.data.digits import find_digits
from torch_stn.sampling.choose import BACKENDS, reasons
from torch_stn.sampling.interpolation import INTERPOLATIONS
from torch_stn.sampling.problem import Problem

PACKAGES = ("numpy", "lightning-fabric", "safetensors", "tensorboard", "matplotlib", "mlxtend", "pooch")


def examine() -> None:
    """Print it."""
    out.print(_versions(), _backends(), _data())


def _versions() -> Table:
    table = Table(title="Versions and devices", show_header=False)
    table.add_row("torch-stn", __version__)
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    table.add_row("torch", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")
    for name in PACKAGES:
        try:
            table.add_row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(name, "not installed")
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    lost = reasons(_problem("cpu", 2, "bilinear"))["cpu"]
    cost = "; F.grid_sample serves in their place, which takes several times as long"
    table.add_row("CPU kernels", "built and loaded" if lost is None else lost + cost)
    table.add_row("GPU", ", ".join(gpus) or "none that torch can use")
    return table


def _backends() -> Table:
    """Which backend serves a warp by default, and why the others do not; modes with the same answers share a row."""
    table = Table(title="Backends: who serves a warp with gradients, and why not")
    for name in ("images", "modes", *BACKENDS):
        table.add_column(name, overflow="fold")
    alike: dict[tuple[str, ...], list[str]] = {}
    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        for dims in (2, 3):
            for mode in (*INTERPOLATIONS, "custom"):
                answers = reasons(_problem(device, dims, mode))
                first = next(name for name, reason in answers.items() if reason is None)
                cells = [reason or ("serves" if name == first else "could") for name, reason in answers.items()]
                alike.setdefault((f"{device} {dims}-D", *cells), []).append(mode)
    for (images, *cells), modes in alike.items():
        table.add_row(images, ", ".join(modes), *cells)
    return table


def _problem(device: str, dims: int, mode: str) -> Problem:
    return Problem(
        dims=dims,
        interpolation=mode,
        padding=("zeros",) * dims,
        fill=0.0,
        align_corners=False,
        units="pixel",
        in_size=(64,) * dims,
        dtype=torch.float32,
        device=device,
        image_grad=True,
        deterministic=True,
    )


def _data() -> Table:
    table = Table("set", Column(overflow="fold"), title="Data sets", show_header=False)
    for name, where in find_digits():
        table.add_row(name, where)
    return table
