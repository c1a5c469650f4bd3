"""Why does a transformer not align? Each way to go wrong beside the same run without it.

    python examples/failure_modes.py ["name" ...] [seed=0 ...]

Small networks, 1,000 steps on the 5,000 digits of the `lab` extra, distorted as RTS (turned, scaled, shifted on
42 x 42) or R (turned) in the paper. docs/why-does-my-stn-not-align.md tells what came out.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn import Affine, LocalizationFC, SpatialTransformer
from torch_stn.lab.data.digits import load_digits
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.pose import digit_pose, residual
from torch_stn.nn import Monitor, parameter_groups

STEPS, BATCH, DRAWS = 1000, 100, 5
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST
BLACK = -MEAN / DEVIATION


def transformer(side: int, size: int, channels: int = 1, **how: object) -> SpatialTransformer:
    """An affine one on pictures or feature maps of ``side`` x ``side``."""
    features = LocalizationFC((channels, side, side), (64, 64, 64))
    return SpatialTransformer(features, Affine(), (size, size), **how)  # type: ignore[arg-type]


def classifier(inputs: int) -> nn.Module:
    """Fully connected."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def pooled(**how: object) -> nn.Module:
    """Align at 42 x 42, average to 21 x 21, classify."""
    return nn.Sequential(transformer(42, 42, **how), nn.AvgPool2d(2), classifier(441))


def direct() -> nn.Module:
    """The transformer itself writes 21 x 21: bilinear reading takes every second pixel."""
    return nn.Sequential(transformer(42, 21), classifier(441))


def small(averaged: bool) -> nn.Module:
    """A third of the side, by averaging what was aligned at 42 x 42, or straight from the transformer."""
    size, last = (42, nn.AvgPool2d(3)) if averaged else (14, nn.Identity())
    return nn.Sequential(transformer(42, size), last, classifier(196))


def random_head() -> nn.Module:
    """A head with Kaiming's weights instead of zeros."""
    model = pooled()
    nn.init.kaiming_normal_(model[0].head.weight)
    return model


def convolution() -> nn.Module:
    """One layer that keeps the size."""
    return nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU())


def on_pictures() -> nn.Module:
    """Align the picture, then convolve."""
    return nn.Sequential(transformer(28, 28), convolution(), nn.MaxPool2d(2), classifier(8 * 196))


def on_feature_maps() -> nn.Module:
    """Convolve, then align the feature maps; the localisation net sees them too."""
    return nn.Sequential(convolution(), transformer(28, 28, channels=8), nn.MaxPool2d(2), classifier(8 * 196))


# name: set, network, localisation rate, whether pictures are normalised
RUNS: dict[str, tuple[str, Callable[[], nn.Module], float, bool]] = {
    "as it should be": ("rts", pooled, 1.0, False),
    "localisation frozen": ("rts", pooled, 0.0, False),
    "normalised, padded with 0": ("rts", pooled, 1.0, True),
    "normalised, padded with black": ("rts", lambda: pooled(fill=BLACK), 1.0, True),
    "Kaiming head": ("rts", random_head, 1.0, False),
    "written at 21 x 21": ("rts", direct, 1.0, False),
    "averaged to 14 x 14": ("rts", lambda: small(True), 1.0, False),
    "written at 14 x 14": ("rts", lambda: small(False), 1.0, False),
    "pictures": ("r", on_pictures, 1.0, False),
    "feature maps": ("r", on_feature_maps, 1.0, False),
    "localisation at 1/100": ("rts", pooled, 0.01, False),
    "localisation at x 10": ("rts", pooled, 10.0, False),
}


def run(name: str, seed: int = 0) -> dict[str, object]:
    """Train one, and measure error and residual pose on ``DRAWS`` distortions of the test digits."""
    kind, build, rate, normalised = RUNS[name]
    torch.manual_seed(seed)
    model, data, told = build(), DigitSet(load_digits("embedded"), kind, seed), []
    prepared: Callable[[Tensor], Tensor] = (lambda x: (x - MEAN) / DEVIATION) if normalised else (lambda x: x)
    stn = next(module for module in model.modules() if isinstance(module, SpatialTransformer))
    monitor = Monitor(model, every=5, tell=told.append)
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=2e-3, localization_rate=rate))
    shape = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1, (k + 1) / 30) * 0.5 * (1 + math.cos(math.pi * k / STEPS))
    )
    began = time.process_time()
    for step in range(STEPS):
        batch = data.training_batch(step, BATCH)
        loss = F.cross_entropy(model(prepared(batch.images)), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shape.step()
    numbers = monitor.metrics()
    monitor.close()
    wrong, before, after, labels, thetas = 0, [], [], [], []
    hook = stn.head.register_forward_hook(lambda head, inputs, theta: thetas.append(theta))
    model.eval()
    with torch.no_grad():
        for draw in range(DRAWS):
            for batch in data.test_batches(draw):
                wrong += int((model(prepared(batch.images)).argmax(dim=1) != batch.labels).sum())
                size = (batch.images.shape[2], batch.images.shape[3])
                before.append(digit_pose(batch.map, size))
                after.append(digit_pose(batch.map.then(stn.maps(thetas[-1])[0]), size))
                labels.append(batch.labels)
    hook.remove()
    was, left = residual(torch.cat(before), torch.cat(labels)), residual(torch.cat(after), torch.cat(labels))
    return {
        "run": name,
        "set": kind,
        "seed": seed,
        "steps": STEPS,
        "error": 100 * wrong / len(torch.cat(labels)),
        "pose": {key: [round(was[key], 3), round(left[key], 3)] for key in was},
        "scale": round(numbers["scale"], 3),
        "outside": round(numbers["outside"], 3),
        "told": told,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Run those named, or all; results/examples/failure_modes.json keeps the last run of each name and seed."""
    torch.set_num_threads(1)
    path = Path(__file__).resolve().parents[1] / "results" / "examples" / "failure_modes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {(row["run"], row["seed"]): row for row in json.loads(path.read_text())["runs"]} if path.exists() else {}
    names = [word for word in sys.argv[1:] if word in RUNS] or list(RUNS)
    seeds = [int(word.removeprefix("seed=")) for word in sys.argv[1:] if word not in RUNS] or [0]
    for seed in seeds:
        for name in names:
            rows[name, seed] = run(name, seed)
            print(rows[name, seed], flush=True)
            record = {"command": "python examples/failure_modes.py", "torch": torch.__version__}
            path.write_text(json.dumps(record | {"runs": list(rows.values())}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
