"""Measure a run: error over fixed distortions of the test set, residual pose, within-class variance, and what the
report shows.
"""

from typing import Any

import torch
from torch import Tensor, nn

from torch_stn.lab import models
from torch_stn.lab.config import Config
from torch_stn.lab.data.digits import Digits, load_digits
from torch_stn.lab.data.sets import DigitSet, PosedBatch
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.pose import digit_pose, frame, picture_poses, residual
from torch_stn.lab.run_folder import RunFolder

MISTAKES = 24
POSES = 2000  # test digits whose predicted pose the report plots
CLASSES = 10
QUICK = 1000  # test digits of a quick error


class ClassSums:
    """Sums over images by class, for their means and their variance within a class."""

    def __init__(self) -> None:
        self.count = torch.zeros(CLASSES, dtype=torch.float64)
        self.sum: Tensor | None = None
        self.square: Tensor | None = None

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Add images (B, 1, H, W)."""
        pixels = images[:, 0].double().cpu()
        one_hot = torch.nn.functional.one_hot(labels.cpu(), CLASSES).double()
        total = torch.einsum("bc,bhw->chw", one_hot, pixels)
        square = torch.einsum("bc,bhw->chw", one_hot, pixels.square())
        self.count += one_hot.sum(dim=0)
        self.sum = total if self.sum is None else self.sum + total
        self.square = square if self.square is None else self.square + square

    def means(self) -> Tensor:
        """The mean image of each class, (10, H, W) float32."""
        assert self.sum is not None
        return (self.sum / self.count.clamp(min=1)[:, None, None]).float()

    def variance(self) -> tuple[float, float]:
        """Variance of a pixel within its class, averaged over pixels and classes; and as a share of the mean square.

        The share is what tells of alignment: a transformer that zooms in fills the frame, and raises the first number.
        """
        assert self.sum is not None
        assert self.square is not None
        present = self.count > 0
        count = self.count[present][:, None, None]
        energy = self.square[present] / count
        within = float((energy - (self.sum[present] / count).square()).mean())
        return within, within / max(float(energy.mean()), 1e-12)


def quick_error(model: nn.Module, data: DigitSet) -> float:
    """Error in percent on evenly spread test digits under the first distortion: a point of a curve, not a result."""
    total = len(data.test[0])
    batch = data.test_batch(0, torch.arange(0, total, max(1, total // QUICK)))
    with _evaluating(model):
        return 100.0 * float((model(batch.images).argmax(dim=1) != batch.labels).float().mean())


def snapshot(model: Aligned, data: DigitSet) -> dict[str, Tensor]:
    """What the transformer makes of the dozen now, and where it looks."""
    batch = data.test_batch(0, data.dozen())
    with _evaluating(model):
        return _look(model, batch)


def evaluate(folder: RunFolder, device: torch.device | str = "cpu", digits: Digits | None = None) -> dict[str, Any]:
    """Evaluate the last checkpoint of a run; writes evaluation.json and evaluation.safetensors and returns the
    record.
    """
    config = folder.config()
    digits = digits if digits is not None else load_digits(config.digits)
    data = DigitSet(digits, config.data, config.seed, device)
    model = models.build(config).to(device)
    folder.load_into(model)
    with _evaluating(model):
        record, arrays = _measure(model, data, config)
    step = int(folder.checkpoints()[-1].name.removeprefix("step-"))
    seconds = [row["seconds"] for row in folder.metrics() if row.get("step", 0) <= step and "seconds" in row]
    record |= {"digits": digits.name, "train_steps": step, "train_seconds": max(seconds, default=0.0)}
    folder.write_arrays("evaluation.safetensors", arrays)
    folder.write_json("evaluation.json", record)
    return record


def _measure(model: nn.Module, data: DigitSet, config: Config) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the arrays of an evaluation (the run-folder page of the docs lists them)."""
    aligned = model if isinstance(model, Aligned) else None
    distortions = 1 if config.data == "plain" else config.test_distortions
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    inputs, outputs = ClassSums(), ClassSums()
    errors, before, after, labels = [], [], [], []
    for distortion in range(distortions):
        wrong = 0
        for batch in data.test_batches(distortion):
            if aligned is None:
                scores = model(batch.images)
            else:
                theta = aligned.transformer.theta(batch.images)
                warped = aligned.transformer.read(batch.images, theta)
                scores = aligned.classify(warped)
                outputs.add(warped, batch.labels)
                size = (batch.images.shape[2], batch.images.shape[3])
                before.append(digit_pose(batch.map, size).cpu())
                after.append(digit_pose(batch.map.then(aligned.transformer.transform(theta)), size).cpu())
                labels.append(batch.labels.cpu())
            inputs.add(batch.images, batch.labels)
            predicted = scores.argmax(dim=1)
            wrong += int((predicted != batch.labels).sum())
            flat = (batch.labels * CLASSES + predicted).cpu()
            confusion += torch.bincount(flat, minlength=CLASSES * CLASSES).reshape(CLASSES, CLASSES)
        errors.append(100.0 * wrong / len(data.test[0]))

    spread = torch.tensor(errors, dtype=torch.float64)
    record: dict[str, Any] = {
        "label": models.label(config),
        "set": data.name,
        "error": float(spread.mean()),
        "error_sd": float(spread.std()) if distortions > 1 else 0.0,
        "distortions": distortions,
        "test_images": distortions * len(data.test[0]),
        "parameters": models.count_parameters(model),
        "pose": None,
        "variance": None,
        "variance_share": None,
    }
    arrays = {"confusion": confusion, "mean_inputs": inputs.means(), **_dozen(model, data), **_mistakes(model, data)}
    if aligned is not None:
        (before_raw, before_share), (after_raw, after_share) = inputs.variance(), outputs.variance()
        record["variance"] = {"before": before_raw, "after": after_raw}
        record["variance_share"] = {"before": before_share, "after": after_share}
        arrays["mean_outputs"] = outputs.means()
        if config.data != "plain":
            was, left = (residual(torch.cat(poses), torch.cat(labels)) for poses in (before, after))
            record["pose"] = {key: {"before": was[key], "after": left[key]} for key in was}
            arrays |= _poses(aligned, data)
    return record, arrays


def _dozen(model: nn.Module, data: DigitSet) -> dict[str, Tensor]:
    batch = data.test_batch(0, data.dozen())
    arrays = {"inputs": batch.images[:, 0], "labels": batch.labels, "predictions": model(batch.images).argmax(dim=1)}
    return arrays | _look(model, batch) if isinstance(model, Aligned) else arrays


def _look(model: Aligned, batch: PosedBatch) -> dict[str, Tensor]:
    theta = model.transformer.theta(batch.images)
    size = (batch.images.shape[2], batch.images.shape[3])
    lines = frame(model.transformer.transform(theta), size)
    return {"outputs": model.transformer.read(batch.images, theta)[:, 0], "lines": lines.float()}


def _mistakes(model: nn.Module, data: DigitSet) -> dict[str, Tensor]:
    """The most confident mistakes under the first distortion."""
    kept = []
    for batch in data.test_batches(0):
        confidence, predicted = model(batch.images).softmax(dim=1).max(dim=1)
        wrong = predicted != batch.labels
        kept.append((batch.images[wrong], batch.labels[wrong], predicted[wrong], confidence[wrong]))
    images, labels, predicted, confidence = (torch.cat(parts) for parts in zip(*kept, strict=True))
    worst = confidence.argsort(descending=True, stable=True)[:MISTAKES]
    arrays = {
        "mistakes": images[worst, 0],
        "mistake_labels": labels[worst],
        "mistake_predictions": predicted[worst],
        "mistake_confidence": confidence[worst].float(),
    }
    if isinstance(model, Aligned):
        arrays["mistake_outputs"] = model.transformer(images[worst])[:, 0]
    return arrays


def _poses(model: Aligned, data: DigitSet) -> dict[str, Tensor]:
    """True and predicted pose of evenly spread test digits."""
    total = len(data.test[0])
    batch = data.test_batch(0, torch.arange(0, total, max(1, -(-total // POSES))))
    size = (batch.images.shape[2], batch.images.shape[3])
    true, predicted = picture_poses(batch.map, model.map(batch.images), size)
    return {"true_pose": true.float(), "predicted_pose": predicted.float(), "pose_labels": batch.labels}


class _evaluating:
    """Eval mode and no gradients, and back to what was."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self.was_training = self.model.training
        self.model.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        self.model.train(self.was_training)
