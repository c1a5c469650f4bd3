"""Digits perturbed as in Lin and Lucey 2017, and one training loop: what the examples of this folder share.

The four corners of the picture move by N(0, 1) * amount along each axis, and all of it by another N(0, 1) * amount;
every number is a function of (seed, sample), so a run is repeated exactly. The 5,000 digits of the `lab` extra serve.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn import Affine, Map, warp
from torch_stn.lab.data.augment import CORNER_STREAM, CORNERS, perturbation
from torch_stn.lab.data.digits import load_digits
from torch_stn.lab.data.draws import batch_indices, normal
from torch_stn.nn import parameter_groups

BATCH, TEST_SEED, TEST_DRAWS = 100, 2015, 10
AMOUNT = 0.25


def homography(seed: int, samples: Tensor, amount: float = AMOUNT) -> Map:
    """Four corners and a common shift."""
    return perturbation(samples, seed, amount)


def affine(seed: int, samples: Tensor, amount: float = AMOUNT) -> Map:
    """The same with three corners, which an affine map follows."""
    moved = normal(seed, samples, CORNER_STREAM, 8, 0.0, amount)
    three = torch.tensor(CORNERS[:3])
    corners = three + moved[:, :6].unflatten(1, (3, 2)) + moved[:, None, 6:]
    homogeneous = torch.cat([three, torch.ones(3, 1)], dim=1)
    return Affine()(torch.linalg.solve(homogeneous.expand(len(samples), 3, 3), corners).mT)


def classifier(width: int = 128) -> nn.Module:
    """A small fully connected one, which cannot shift anything by itself."""
    layers = [nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
    return nn.Sequential(*layers)


def train(model: nn.Module, perturb: Callable[[int, Tensor], Map], *, seed: int, steps: int, lr: float = 2e-3) -> float:
    """Train on freshly perturbed digits and return the error in percent on ten perturbations of the test digits."""
    digits = load_digits("embedded")
    images, labels = torch.from_numpy(digits.train_images)[:, None] / 255, torch.from_numpy(digits.train_labels)
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=lr))
    warmup = 0.03 * steps
    shape = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1, (k + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * k / steps))
    )
    for step in range(steps):
        chosen = batch_indices(seed, step * BATCH, BATCH, len(images))
        samples = torch.arange(step * BATCH, (step + 1) * BATCH)
        loss = F.cross_entropy(model(warp(images[chosen], perturb(seed, samples))), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shape.step()
    test, truth = torch.from_numpy(digits.test_images)[:, None] / 255, torch.from_numpy(digits.test_labels)
    model.eval()
    with torch.no_grad():
        wrong = 0
        for draw in range(TEST_DRAWS):
            samples = torch.arange(len(test)) + draw * len(test)
            wrong += int((model(warp(test, perturb(TEST_SEED, samples))).argmax(dim=1) != truth).sum())
    return 100 * wrong / (TEST_DRAWS * len(test))


def compare(
    name: str,
    models: dict[str, tuple[Callable[[], nn.Module], int]],  # label: network, steps
    perturb: Callable[[int, Tensor], Map],
    *,
    seeds: int = 3,
) -> None:
    """Train each model with each seed, print a line a run, and write results/examples/<name>.json."""
    torch.set_num_threads(1)
    rows = []
    for seed in range(seeds):
        for label, (build, steps) in models.items():
            torch.manual_seed(seed)
            began, model = time.process_time(), build()
            parameters = sum(p.numel() for p in model.parameters())
            error = train(model, perturb, seed=seed, steps=steps)
            row = {"network": label, "seed": seed, "error": error, "parameters": parameters, "steps": steps}
            rows.append(row | {"cpu_seconds": round(time.process_time() - began, 1)})
            print(rows[-1], flush=True)
    for label in models:
        errors = torch.tensor([row["error"] for row in rows if row["network"] == label])
        print(f"{label}: {errors.mean():.2f} +- {errors.std():.2f} %")
    record = {"command": f"python examples/{name}.py", "torch": torch.__version__, "batch": BATCH, "runs": rows}
    path = Path(__file__).resolve().parents[1] / "results" / "examples" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
