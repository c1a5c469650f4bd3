"""What `stn reproduce numbers` does not tell: how long a step takes, and where each transformer reads.

    python scripts/house_numbers.py time 0.25 16 results/steps/numbers-cpu.json       # scale, batch, file
    python scripts/house_numbers.py time 1 128 results/steps/numbers-cuda.json cuda
    python scripts/house_numbers.py frames docs/images/house-numbers.png RUN...

A step is forward and backward of the nets by turns on the same 128 x 128 images, without the optimiser; the loss is the
training's. On a CPU the times want a core to themselves.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from torch_stn.lab import models
from torch_stn.lab.bench.machine import describe
from torch_stn.lab.bench.stopwatch import Effort, drift, interleaved, summary
from torch_stn.lab.config import Config
from torch_stn.lab.data.digits import load_digits
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.report.frame_sheet import render_frame_sheet
from torch_stn.lab.train import classification_loss

SET = "strings-128"
NETS = {
    "CNN": ("number-cnn", 0),
    "ST-CNN Single": ("st-number-cnn", 0),
    "ST-CNN Multi": ("st-number-cnn-multi", 0),
    "ST-CNN Single 128 to 64 px": ("st-number-cnn", 64),
    "ST-CNN Multi 128 to 64 px": ("st-number-cnn-multi", 64),
}
EFFORT = Effort(rounds=9, seconds=30.0)


def measure(scale: float, batch_size: int, device: str) -> dict[str, object]:
    """Milliseconds a step of each net, and as a share of CNN's."""
    batch = DigitSet(load_digits(), SET, seed=0, device=device).training_batch(0, batch_size)
    calls = {}
    for name, (model, crop) in NETS.items():
        config = Config(model=model, data=SET, scale=scale, crop=crop)
        calls[name] = _step(models.build(config).to(device).train(), batch.images, batch.labels)
    readings = interleaved(calls, EFFORT, device)
    rows = {}
    for name, seconds in readings.items():
        row = summary(seconds)
        ms = {key: round(row[key] / 1000, 2) for key in ("median", "q1", "q3")}
        rows[name] = {**ms, "share_of_cnn": round(row["median"] / summary(readings["CNN"])["median"], 3)}
    return {
        "what": f"forward + backward, ms a step of {batch_size} images of {SET}",
        "scale": scale,
        "batch_size": batch_size,
        "rounds": len(readings["CNN"]),
        "drift": round(drift(readings), 3),
        "nets": rows,
        "environment": describe(device),
    }


def _step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(classification_loss(model(images), labels, 0.0))

    return step


def main(words: list[str]) -> None:
    """See the top of the file."""
    if words[:1] == ["time"] and len(words) in (4, 5):
        record = measure(float(words[1]), int(words[2]), words[4] if len(words) == 5 else "cpu")
        text = json.dumps(record, indent=1) + "\n"
        write_whole(Path(words[3]), text.encode())
        print(text, end="")
    elif words[:1] == ["frames"] and len(words) > 2:
        print(render_frame_sheet([Path(each) for each in words[2:]], Path(words[1])))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
