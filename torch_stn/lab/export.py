"""`stn export`: a trained run as one file that other programs run, with pre- and post-processing inside."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_stn._version import __version__
from torch_stn.lab import models
from torch_stn.lab.config import Config
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.run_folder import RunFolder

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
OPSET = 20
MOST = 1e-4  # difference of a probability, beyond which a file is not kept
BATCHES = (1, 2, 7)  # that a file is tried with
INSTALL = "pip install 'torch-stn[export]'"


class Served(nn.Module):
    """Bytes in, probabilities out: (N, S, S, C) uint8 as Pillow gives them -> (N, K) float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        return self.model(x).softmax(dim=1)


def export(run: Path, kind: str, out: Path | None = None) -> tuple[Path, float]:
    """Write the last checkpoint of a run; returns the file, and its largest difference from the network's own
    probabilities over noise, smooth pictures and batches of several sizes. A file that differs by more than 1e-4 is
    not kept.

    Args: kind, "onnx" (opset 20, any batch size; class names and size in its metadata) or "torch" (torch.export).
    Raises: UserError for an unknown kind, a run on digits, a package that is missing, a difference.
    """
    if kind not in FORMATS:
        raise UserError(f"--format: wanted one of {', '.join(FORMATS)}, got {kind!r}")
    folder = RunFolder.open(run)
    config, facts = folder.config(), folder.facts()
    if not config.photos:
        raise UserError(f"{run}: a run on distorted digits, wanted one of stn train folder")
    model = models.build(config, facts).eval()
    folder.load_into(model)
    served = Served(model).eval()
    out = out if out is not None else folder.path / f"model{FORMATS[kind]}"
    if out.suffix != FORMATS[kind]:
        raise UserError(f"--out: wanted a name that ends in {FORMATS[kind]}, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that the rename is one step; the ending stays, since loaders look at it.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        temporary = Path(place) / out.name
        write, read = (_write_onnx, _run_onnx) if kind == "onnx" else (_write_torch, _run_torch)
        try:
            write(served, config, facts, temporary)
            difference = _difference(served, read(temporary), facts)
        except ImportError as error:
            raise UserError(f"--format {kind}: the package {error.name} is not installed: {INSTALL}") from None
        if not difference <= MOST:
            raise UserError(f"{out}: not kept, it differs from the network by {difference:.1e}, wanted at most {MOST}")
        os.replace(temporary, out)
    return out, difference


def _write_onnx(served: Served, config: Config, facts: Facts, path: Path) -> None:
    """Weights inside the one file; metadata says what a server must know."""
    import onnx

    with _quietly():
        program = torch.onnx.export(
            served,
            (_noise(facts, 2),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None  # only with dynamo=False it is
    proto = program.model_proto
    notes = {
        "classes": json.dumps(facts.classes),  # \uXXXX for what is not ASCII
        "size": str(facts.height),
        "channels": str(facts.channels),
        "input": "uint8 (batch, size, size, channels), aspect ratio not kept",
        "network": models.label(config),
        "torch_stn": __version__,
    }
    for key, value in notes.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _write_torch(served: Served, config: Config, facts: Facts, path: Path) -> None:
    with _quietly():
        program = torch.export.export(served, (_noise(facts, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, path, extra_files={"classes.json": json.dumps(facts.classes)})


def _run_onnx(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _run_torch(path: Path) -> Any:
    return torch.export.load(path).module()


def _difference(served: Served, other: Any, facts: Facts) -> float:
    """The largest difference of a probability; NaN where one is NaN."""
    worst = 0.0
    with torch.no_grad():
        for count in BATCHES:
            for images in (_noise(facts, count), _smooth(facts, count)):
                gap = float((served(images) - other(images)).abs().max())
                worst = gap if not gap <= worst else worst
    return worst


def _noise(facts: Facts, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = (count, facts.height, facts.width, facts.channels)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _smooth(facts: Facts, count: int) -> Tensor:
    """A few coarse squares, drawn out: more like a photograph than noise is."""
    generator = torch.Generator().manual_seed(1000 + count)
    coarse = torch.rand(count, facts.channels, 4, 4, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(facts.height, facts.width), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().byte().permute(0, 2, 3, 1).contiguous()


class _quietly(warnings.catch_warnings):  # type: ignore[type-arg]
    """Exporters warn of their own deprecations, which are no affair of the user."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self.level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(self.level)
        super().__exit__(*error)  # type: ignore[arg-type]
