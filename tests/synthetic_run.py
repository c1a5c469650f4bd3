"""Run folders with made-up contents, in the format that training writes: the report is tested without training."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import save_file

LINES, POINTS = 10, 21
DIGITS = np.array([7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6])  # the dozen
MODELS = {"fcn": 269_000, "cnn": 209_000, "st-fcn": 271_000, "st-cnn": 226_000, "tutorial": 21_840}
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSans-Bold", "DejaVuSansMono")  # they come with matplotlib


def write_run(
    folder: Path,
    *,
    model: str = "st-fcn",
    transform: str = "affine",
    data: str = "rts",
    seed: int = 0,
    label: str | None = None,
    error: float = 2.9,
    evaluated: bool = True,
    snapshots: int = 18,
    seconds: float = 60.0,
    steps: int = 4000,
) -> Path:
    """Write a whole run folder; returns it. The transform affine, tps or projective shapes the frames."""
    generator = np.random.default_rng(seed + 1)
    folder.mkdir(parents=True)
    transformer = model.startswith("st-") or model == "tutorial"
    config = {"format": 1, "experiment": "table1", "model": model, "data": data, "digits": "embedded", "seed": seed}
    config |= {"steps": None, "seconds": seconds, "batch_size": 256, "learning_rate": 1e-3, "recipe": "ours"}
    _write(folder / "config.json", config | ({"transform": transform} if transformer else {}))
    environment = {"torch_stn": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "platform": "Linux x86_64"}
    known = {"device": "cpu", "threads": 2, "commit": None, "started": "2026-01-01T12:00:00Z"}
    _write(folder / "environment.json", environment | known)
    _metrics(folder / "metrics.jsonl", generator, error, steps, seconds)
    world = World(generator, transform, scaled=data == "rts")
    if transformer:
        (folder / "snapshots").mkdir()
        for step in np.unique(np.round(np.linspace(0, 1, snapshots) ** 2 * steps).astype(int)):
            outputs, lines = world.moment(min(1.0, (step / steps) ** 0.5 * 1.15))
            metadata = {"step": str(step), "seconds": str(seconds * step / steps)}
            path = folder / "snapshots" / f"step-{step:08d}.safetensors"
            save_file({"outputs": outputs, "lines": lines}, path, metadata)
    if evaluated:
        shown = "TPS" if transform == "tps" else transform
        label = label or (f"{model.upper()} {shown}" if transformer else model.upper())
        record = {"error": error, "error_sd": error / 25, "distortions": 10, "test_images": 10_000, "label": label}
        record |= {"set": data.upper(), "digits": "embedded (5,000)", "parameters": MODELS[model]}
        record |= {"train_seconds": seconds + 0.4, "train_steps": steps, "pose": None, "variance": None}
        if transformer:
            record |= {"pose": _residual(data), "variance": {"before": 0.0712, "after": 0.0418}}
            record["variance_share"] = {"before": 0.81, "after": 0.46}
        _write(folder / "evaluation.json", record)
        arrays = world.evaluation(generator, error, transformer=transformer)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(arrays, folder / "evaluation.safetensors")
    return folder


class World:
    """A dozen digits in known poses, and frames that come ever nearer to them."""

    def __init__(self, generator: np.random.Generator, transform: str, *, scaled: bool) -> None:
        self.transform, self.scaled, self.size = transform, scaled, 42 if scaled else 28
        self.angle, self.scale, self.shift = poses(generator, len(DIGITS), scaled=scaled)
        clean = [glyph(digit, FONTS[index % 4]) for index, digit in enumerate(DIGITS)]
        pairs = zip(clean, self.angle, self.scale, self.shift, strict=True)
        self.inputs = np.stack([distorted(*pair, self.size) for pair in pairs])
        self.rest = generator.normal(0, [6, 0.05, 0.4, 0.4], (len(DIGITS), 4))  # what is left to undo at the end
        self.bend = generator.normal(0, 1, (len(DIGITS), 2))

    def sources(self, xy: np.ndarray, index: int, progress: float) -> np.ndarray:
        """Where the points xy in [-1, 1] of the output lie in the input, in pixels."""
        rest = self.rest[index]
        angle = np.deg2rad(progress * (self.angle[index] + rest[0]))
        scale = (1 - progress) * self.size / 28 + progress * (self.scale[index] + rest[1])
        x, y = xy[..., 0], xy[..., 1]
        bend = 0.12 * progress * self.bend[index]
        if self.transform == "tps":
            x, y = x + bend[0] * np.sin(2.5 * y), y + bend[1] * np.cos(2.1 * x)
        elif self.transform == "projective":
            depth = 1 + bend[0] * x + bend[1] * y
            x, y = x / depth, y / depth
        turned = np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], -1)
        return 14 * scale * turned + progress * (self.shift[index] + rest[2:]) + (self.size - 1) / 2

    def moment(self, progress: float) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (12, h, w) and frame lines (12, 10, P, 2) when this much has been learned."""
        along, across = np.linspace(-1, 1, POINTS), np.linspace(-1, 1, LINES // 2)
        horizontal = np.stack(np.broadcast_arrays(along[None, :], across[:, None]), -1)
        lines = np.concatenate([horizontal, horizontal[..., ::-1]])
        grid = (np.arange(self.size) * 2 + 1) / self.size - 1
        points = np.stack(np.meshgrid(grid, grid), -1)
        outputs = [read(self.inputs[i], self.sources(points, i, progress)) for i in range(len(DIGITS))]
        moved = [self.sources(lines, i, progress) for i in range(len(DIGITS))]
        return np.stack(outputs).astype(np.float32), np.stack(moved).astype(np.float32)

    def evaluation(self, generator: np.random.Generator, error: float, *, transformer: bool) -> dict[str, np.ndarray]:
        """The arrays of evaluation.safetensors."""
        confusion = np.rint(1000 * error / 900 * generator.gamma(0.6, 1 / 0.6, (10, 10))).astype(np.int64)
        np.fill_diagonal(confusion, 0)
        confusion += np.diag(1000 - confusion.sum(1))
        labels = generator.integers(0, 10, 18)
        pairs = zip(labels, *poses(generator, 18, scaled=self.scaled), strict=True)
        mistakes = np.stack([distorted(glyph(k, FONTS[k % 4]), a, s, t, self.size) for k, a, s, t in pairs])
        predictions = DIGITS.copy()
        predictions[8] = 6
        arrays = {
            "confusion": confusion,
            "inputs": self.inputs,
            "labels": DIGITS,
            "predictions": predictions,
            "mistakes": mistakes,
            "mistake_labels": labels,
            "mistake_predictions": (labels + generator.integers(1, 10, 18)) % 10,
            "mistake_confidence": generator.uniform(0.6, 1, 18).astype(np.float32),
        }
        if transformer:
            arrays["outputs"], arrays["lines"] = self.moment(1.0)
            arrays["mistake_outputs"] = mistakes[:, ::-1]
            arrays["mean_inputs"] = self.means(generator, calm=1)
            arrays["mean_outputs"] = self.means(generator, calm=6)
            arrays |= _poses(generator, scaled=self.scaled)
        return arrays

    def means(self, generator: np.random.Generator, *, calm: float) -> np.ndarray:
        """The mean picture of each class; `calm` divides the poses."""
        means = []
        for k in range(10):
            pairs = zip(*poses(generator, 40, scaled=self.scaled), strict=True)
            large = self.size / 28
            drawn = [distorted(glyph(k), a / calm, s if calm == 1 else large, t / calm, self.size) for a, s, t in pairs]
            means.append(np.mean(drawn, axis=0))
        return np.stack(means).astype(np.float32)


def _residual(data: str) -> dict[str, dict[str, float] | None] | None:
    """The residual pose of evaluation.json."""
    if data == "plain":
        return None
    if data == "r":
        return {"rotation_deg": {"before": 54.3, "after": 16.2}, "shift_px": None, "log_scale": None}
    shift, scale = {"before": 4.5, "after": 1.13}, {"before": 0.155, "after": 0.062}
    return {"rotation_deg": {"before": 26.0, "after": 9.1}, "shift_px": shift, "log_scale": scale}


def _poses(generator: np.random.Generator, *, scaled: bool) -> dict[str, np.ndarray]:
    """True and predicted poses of 2,000 digits: the predicted one undoes the true one, but for its class and noise."""
    angle, scale, shift = poses(generator, 2000, scaled=scaled)
    true = np.column_stack([angle, shift, np.log(scale)])
    labels = generator.integers(0, 10, 2000)
    constant = generator.normal(0, [9, 1, 1, 0.08], (10, 4))
    predicted = constant[labels] - true + generator.normal(0, [9, 0.8, 0.8, 0.06], true.shape)
    return {"true_pose": true.astype(np.float32), "predicted_pose": predicted.astype(np.float32), "pose_labels": labels}


def _metrics(path: Path, generator: np.random.Generator, error: float, steps: int, seconds: float) -> None:
    """A loss every 50 steps, a test error every 500."""
    rows: list[dict[str, float]] = []
    for step in range(50, steps + 1, 50):
        loss = (2.3 * np.exp(-step / 300) + error / 60) * np.exp(generator.normal(0, 0.18))
        here: dict[str, float] = {"step": step, "seconds": round(seconds * step / steps, 2)}
        rows.append(here | {"loss": float(loss), "learning_rate": 1e-3, "images_per_second": 9000.0})
        if step % 500 == 0:
            rows.append(here | {"test_error": float(error * (1 + 8 * np.exp(-step / 700)))})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def poses(generator: np.random.Generator, count: int, *, scaled: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation in degrees, scale, and shift in pixels (count, 2)."""
    reach = 45 if scaled else 90
    scale = generator.uniform(0.7, 1.2, count) if scaled else np.ones(count)
    room = np.maximum(0, 21 - 14 * scale)[:, None] if scaled else 0
    return generator.uniform(-reach, reach, count), scale, generator.uniform(-1, 1, (count, 2)) * room


@functools.cache
def glyph(digit: int, font: str = "DejaVuSans") -> np.ndarray:
    """A 28x28 picture of a digit."""
    large = Image.new("L", (112, 112))
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    ImageDraw.Draw(large).text((56, 56), str(digit), 255, ImageFont.truetype(path, 92), anchor="mm")
    return np.asarray(large.resize((28, 28), Image.Resampling.BOX), np.float32) / 255


def distorted(image: np.ndarray, angle: float, scale: float, shift: np.ndarray, size: int) -> np.ndarray:
    """The picture turned, scaled and shifted on a black canvas of size x size."""
    at = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) - (size - 1) / 2 - shift
    cos, sin = np.cos(np.deg2rad(angle)) / scale, np.sin(np.deg2rad(angle)) / scale
    back = np.stack([cos * at[..., 0] + sin * at[..., 1], cos * at[..., 1] - sin * at[..., 0]], -1)
    return read(image, back + 13.5).astype(np.float32)


def read(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Bilinear, zero outside."""
    padded = np.pad(image, 2)
    x, y = (np.clip(xy[..., axis] + 2, 0, padded.shape[1 - axis] - 1.001) for axis in (0, 1))
    i, j = x.astype(int), y.astype(int)
    u, v = x - i, y - j
    above = padded[j, i] * (1 - u) + padded[j, i + 1] * u
    below = padded[j + 1, i] * (1 - u) + padded[j + 1, i + 1] * u
    return above * (1 - v) + below * v


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1))
