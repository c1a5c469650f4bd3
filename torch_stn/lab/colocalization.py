"""Co-localisation (A.2): from 100 pictures of one unknown class alone, find what they share.

Every picture's crop shall be closer, in the encoder's codes, to the crops of the others than to random crops of its own
picture. No label, no box: the boxes only measure.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_stn.lab import models
from torch_stn.lab.config import Config
from torch_stn.lab.console import say
from torch_stn.lab.data.colocalization import SCENE, SCENE_PATCHES, Scenes, draw_scenes
from torch_stn.lab.data.digits import Digits
from torch_stn.lab.data.distortions import SIDE
from torch_stn.lab.data.draws import batch_indices, integers, normal
from torch_stn.lab.data.load import load
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.classifiers import CNN
from torch_stn.lab.models.colocalizer import FRAME, Encoder, colocalizer
from torch_stn.lab.processes import launch
from torch_stn.lab.run_folder import RunFolder, environment
from torch_stn.lab.session import start, train_and_evaluate
from torch_stn.lab.train import Interrupted

# One for all classes, sets and seeds; what it never sees are the test digits, of which the scenes are made.
ENCODER = Config(
    experiment="colocalization-encoder", data="nudged", model="cnn", width=32, steps=3000, batch_size=128,
    learning_rate=2e-3, label_smoothing=0.0, seed=2015, test_distortions=1, evaluations=2,
    tensorboard=False,
)  # fmt: skip
ALPHA = 1.0  # the paper's margin
TYPICAL = 1000  # digits whose mean activations the encoder takes away
RANDOM = 32  # random crops of each picture, encoded once
COMPARED = 4  # of them at a step
AGREE = (0.5, 0.65)  # share of the run over which agreement with the others comes in
NOISE, LEAST_NOISE, SCALE_NOISE = 0.35, 0.05, 0.3  # of theta: at the start, when agreement comes in; scale's share
QUIET = 0.8  # share of the run after which there is none
WIDE_RATE = 0.1  # learning rate of the layer with 11,552 inputs, in units of the others': its sums move by all of them
LATE_RATE = 1 / 3  # learning rate once agreement counts, in units of the first
# A loss of ALPHA is that of crops which are like random ones: what ends near it has found nothing. Chosen by the loss
# alone, never by the frames.
LOST, ATTEMPTS, ATTEMPT_SEEDS = 0.6, 4, 1 << 20
CROP_STREAM, CHOICE_STREAM, NOISE_STREAM = 60, 61, 62
SHOWN, POINTS = 8, 40  # scenes kept for pictures; points of a loss curve


def run(config: Config, path: Path, deadline: float = math.inf) -> RunFolder:
    """Ten optimisations, one a class, then the evaluation; each finished class is kept, so the next call goes on.

    Raises: Interrupted where the ``deadline`` of time.monotonic() has passed.
    """
    _refuse(config)
    fabric = launch(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    if (path / "config.json").exists():
        folder = RunFolder.open(path)
    else:
        folder = RunFolder.create(path, config, environment(str(fabric.device)))
    digits = load(config)
    assert isinstance(digits, Digits)
    encoder = _encoder(config, path.parent / "encoder", digits, deadline).to(fabric.device)
    images, labels = (torch.from_numpy(each).to(fabric.device) for each in (digits.test_images, digits.test_labels))
    for digit in range(10):
        if (path / f"class-{digit}.json").exists():
            continue
        if time.monotonic() >= deadline:
            raise Interrupted(digit)
        scenes = draw_scenes(images, labels, digit, SCENE_PATCHES[config.data], config.seed)
        found = _best(scenes, encoder, config, digit)
        folder.write_arrays(f"class-{digit}.safetensors", _pictures(scenes, found))
        folder.write_json(f"class-{digit}.json", found.record())
        say(f"{path.name}: digit {digit}: {found.record()['localised']:.0f} % found, loss {found.losses[-1]:.3f}")
    folder.write_json("evaluation.json", _evaluation(folder, digits.name))
    return folder


@dataclass
class Found:
    """What one optimisation came to."""

    boxes: Tensor  # (N, 4) x_min, y_min, x_max, y_max in pixels of the scene
    overlaps: Tensor  # (N,) with the true frames
    losses: list[float]  # thinned
    seconds: float

    def record(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "localised": 100 * float((self.overlaps > 0.5).double().mean()),
            "mean_overlap": float(self.overlaps.double().mean()),
            "losses": [round(loss, 4) for loss in self.losses],
            "seconds": round(self.seconds, 2),
        }


def _best(scenes: Scenes, encoder: Callable[[Tensor], Tensor], config: Config, digit: int) -> Found:
    """The optimisation with the least loss at its end; another is begun, elsewhere, while that is above LOST."""
    best = colocalize(scenes, encoder, config, digit)
    seconds = best.seconds
    for attempt in range(1, ATTEMPTS):
        if best.losses[-1] <= LOST:
            break
        again = colocalize(scenes, encoder, config, digit, attempt)
        seconds += again.seconds
        best = min(best, again, key=lambda found: found.losses[-1])
    return replace(best, seconds=seconds)


def colocalize(
    scenes: Scenes, encoder: Callable[[Tensor], Tensor], config: Config, digit: int, attempt: int = 0
) -> Found:
    """Optimise one transformer on the scenes of one class, by all pairs of a batch at every step.

    Two means against the ways out that the loss leaves: theta is noisy at first, so that what lies beyond a crop pulls
    too; and agreement with the others comes in only when crops differ from random ones, else all would agree on black.
    From then on the loss is the paper's.
    """
    began, images = time.perf_counter(), scenes.images
    count, device = len(images), images.device
    transformer = colocalizer(10 * (config.seed + ATTEMPT_SEEDS * attempt) + digit).to(device)
    optimizer = torch.optim.Adam(_groups(transformer), lr=config.learning_rate)
    crops = _random_crops(images, encoder, config.seed)
    size = min(config.batch_size, count)
    others = ~torch.eye(size, dtype=torch.bool, device=device)
    wide = torch.tensor([SCALE_NOISE, 1.0, 1.0], device=device)
    losses = []
    for step in range(config.steps):
        done = step / config.steps
        agreement = min(1.0, max(0.0, (done - AGREE[0]) / (AGREE[1] - AGREE[0])))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * group["scale"] * _rate(done, agreement, config.warmup)
        samples = torch.arange(step * size, (step + 1) * size, device=device)
        chosen = batch_indices(config.seed, step * size, size, count, device)
        theta = transformer.theta(images[chosen])
        if (spread := _noise(done)) > 0:
            theta = theta + spread * wide * normal(config.seed, samples, NOISE_STREAM, 3)
        codes = encoder(transformer.read(images[chosen], theta))
        compared = crops[chosen[:, None], integers(config.seed, samples, CHOICE_STREAM, COMPARED, RANDOM)]
        loss = contrast(codes, compared, agreement)[others].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        boxes = transformer.boxes(transformer.theta(images), (SCENE, SCENE))
    curve = torch.stack(losses)
    if not bool(torch.isfinite(curve).all()):
        raise UserError(f"digit {digit}: the loss is not finite; a lower learning_rate may help")
    thinned = [float(part.mean()) for part in curve.tensor_split(min(POINTS, len(curve)))]
    return Found(boxes, overlap(boxes, scenes.frames), thinned, time.perf_counter() - began)


def contrast(codes: Tensor, compared: Tensor, agreement: float = 1.0) -> Tensor:
    """max(0, a |e(I_n) - e(I_m)|^2 - |e(I_n) - e(I_n^random)|^2 + alpha), (N, N, K); the paper's loss with a = 1.

    Args: codes (N, F) of the transformer's crops; compared (N, K, F), of K random crops of each picture.
    """
    square = codes.square().sum(dim=1)
    apart = square[:, None] + square - 2 * codes @ codes.T
    random = (codes[:, None] - compared).square().sum(dim=2)
    return F.relu(agreement * apart[:, :, None] - random[:, None] + ALPHA)


def overlap(boxes: Tensor, frames: Tensor) -> Tensor:
    """Intersection over union of boxes (N, 4), corners x_min, y_min, x_max, y_max: (N,)."""
    low, high = torch.maximum(boxes[:, :2], frames[:, :2]), torch.minimum(boxes[:, 2:], frames[:, 2:])
    both = (high - low).clamp(min=0).prod(dim=1)
    return both / (sum((each[:, 2:] - each[:, :2]).prod(dim=1) for each in (boxes, frames)) - both)


def _groups(transformer: nn.Module) -> list[dict[str, Any]]:
    """Parameters, those of the wide layer apart, with the share of the learning rate that they take."""
    wide = {name: each for name, each in transformer.named_parameters() if name.startswith("features.fc1.")}
    rest = [each for name, each in transformer.named_parameters() if name not in wide]
    return [{"params": rest, "scale": 1.0}, {"params": list(wide.values()), "scale": WIDE_RATE}]


def _rate(done: float, agreement: float, warmup: float) -> float:
    """The learning rate as a share of its peak."""
    peak = 1 + (LATE_RATE - 1) * agreement
    if done < AGREE[1]:
        return peak * min(1.0, done / warmup if warmup else 1.0)
    return peak * 0.5 * (1 + math.cos(math.pi * (done - AGREE[1]) / (1 - AGREE[1])))


def _noise(done: float) -> float:
    return 0.0 if done >= QUIET else LEAST_NOISE + (NOISE - LEAST_NOISE) * max(0.0, 1 - done / AGREE[0])


@torch.no_grad()
def _random_crops(images: Tensor, encoder: Callable[[Tensor], Tensor], seed: int) -> Tensor:
    """Codes of random 28 x 28 crops of each picture, in whole pixels: (N, RANDOM, F)."""
    samples = torch.arange(len(images), device=images.device)
    corners = integers(seed, samples, CROP_STREAM, 2 * RANDOM, SCENE - SIDE + 1).unflatten(1, (RANDOM, 2))
    steps = torch.arange(SIDE, device=images.device)
    rows, columns = (corners[..., axis, None] + steps for axis in (1, 0))
    crops = images[samples[:, None, None, None], 0, rows[..., None], columns[:, :, None]]
    return torch.stack([encoder(crop[:, None]) for crop in crops.unbind(1)], dim=1)


def _encoder(config: Config, path: Path, digits: Digits, deadline: float) -> Encoder:
    """The encoder of all classes, trained once in a run folder of its own."""
    wanted = replace(ENCODER, digits=config.digits, accelerator=config.accelerator, threads=config.threads)
    folder = RunFolder.open(path) if (path / "config.json").exists() else start(wanted, path, source=digits)
    if not (path / "evaluation.json").exists():
        train_and_evaluate(folder, digits, deadline=deadline)
    net = models.build(folder.config())
    folder.load_into(net)
    assert isinstance(net, CNN)
    return Encoder(net, torch.from_numpy(digits.train_images[:TYPICAL, None]).float() / 255)


def _refuse(config: Config) -> None:
    """What these optimisations do not take."""
    if config.data not in SCENE_PATCHES:
        raise UserError(f"data: wanted one of {', '.join(SCENE_PATCHES)}, got {config.data!r}")
    if config.optimizer != "adamw" or not config.steps:
        raise UserError("recipe: co-localisation is optimised by Adam for a number of steps, wanted the recipe ours")


def _pictures(scenes: Scenes, found: Found) -> dict[str, Tensor]:
    """What a picture of the first scenes needs: before, all boxes were the frame in the middle."""
    middle = (SCENE - 1) / 2
    half = FRAME * SCENE / 2
    before = torch.tensor([[middle - half] * 2 + [middle + half] * 2]).expand(SHOWN, -1)
    return {
        "images": scenes.images[:SHOWN, 0],
        "frames": scenes.frames[:SHOWN],
        "before": before,
        "boxes": found.boxes[:SHOWN],
    }


def _evaluation(folder: RunFolder, digits: str) -> dict[str, Any]:
    """The means over the classes, and each class."""
    config = folder.config()
    classes = [folder.read_json(f"class-{digit}.json", missing=f"has no digit {digit}") for digit in range(10)]
    localised = sum(each["localised"] for each in classes) / 10
    measures = {"localised": localised} | {f"digit {digit}": each["localised"] for digit, each in enumerate(classes)}
    return {
        "label": "ST attention",
        "set": config.data.removesuffix("84").upper(),
        "digits": digits,
        "error": 100 - localised,
        "measures": measures,
        "mean_overlap": sum(each["mean_overlap"] for each in classes) / 10,
        "losses": [each["losses"] for each in classes],
        "parameters": models.count_parameters(colocalizer(0)),
        "train_steps": config.steps,
        "train_seconds": sum(each["seconds"] for each in classes),
    }
