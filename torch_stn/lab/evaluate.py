"""Measure a run: error over fixed distortions of the test set, residual pose where it is known, within-class variance,
and what the report shows.
"""

from typing import Any

import torch
from torch import Tensor, nn

from torch_stn.lab import models
from torch_stn.lab.class_sums import ClassSums, pictures, projected
from torch_stn.lab.config import Config
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.load import DataSet, Source, data_set, load
from torch_stn.lab.data.photo_set import PhotoSet
from torch_stn.lab.data.photos import Photos
from torch_stn.lab.data.sets import DigitSet, PosedBatch
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.house_numbers import NumberNet
from torch_stn.lab.pose import digit_pose, frame, picture_poses, residual
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.sequences import mistaken, sequence_measures

MISTAKES = 24
POSES = 2000  # test digits whose predicted pose the report plots
QUICK = 1000  # test images of a quick error
MEANS = 64  # classes whose mean images are kept


def quick_error(model: nn.Module, data: DataSet) -> float:
    """Error in percent on evenly spread test images under the first distortion: a point of a curve, not a result."""
    total = len(data.test[0])
    batch = data.test_batch(0, torch.arange(0, total, max(1, total // QUICK)))
    with _evaluating(model):
        return 100.0 * float(mistaken(model(batch.images).argmax(dim=-1), batch.labels).float().mean())


def snapshot(model: Aligned, data: DataSet) -> dict[str, Tensor]:
    """What the transformer makes of the dozen now, and where it looks."""
    batch = data.test_batch(0, data.dozen())
    with _evaluating(model):
        return _look(model, batch, grey(data))


def grey(data: DataSet) -> bool:
    """Whether pictures are kept as one grey plane, channels and transformers side by side; images in colour have axes
    for both.
    """
    return isinstance(data, DigitSet) and data.facts.channels != 3


def evaluate(folder: RunFolder, device: torch.device | str = "cpu", source: Source | None = None) -> dict[str, Any]:
    """Evaluate the last checkpoint of a run; writes evaluation.json and evaluation.safetensors and returns the
    record.
    """
    config = folder.config()
    source = source if source is not None else load(config, run=folder.path)
    folder.refuse_other(source)
    data = data_set(source, config, device)
    model = models.build(config, data.facts).to(device)
    folder.load_into(model)
    with _evaluating(model):
        record, arrays = _measure(model, data, config)
    step = int(folder.checkpoints()[-1].name.removeprefix("step-"))
    seconds = [row["seconds"] for row in folder.metrics() if row.get("step", 0) <= step and "seconds" in row]
    record |= {"digits": source.name, "train_steps": step, "train_seconds": max(seconds, default=0.0)}
    if isinstance(source, Photos):
        worst = arrays.pop("mistake_indices").tolist()
        record |= {"classes": list(source.classes), "mistake_files": [source.test_files[i] for i in worst]}
    folder.write_arrays("evaluation.safetensors", arrays)
    folder.write_json("evaluation.json", record)
    return record


class _Seen:
    """What one pass over the test set adds up."""

    def __init__(self, facts: Facts) -> None:
        classes = len(facts.classes)
        self.single = facts.heads == 1  # an image has one class, of which there is a mean image
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.inputs, self.outputs = ClassSums(classes), ClassSums(classes)
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.wrong: list[int] = []  # the samples: distortion * test images + which image
        self.read: list[tuple[Tensor, Tensor]] = []  # of several heads: what was read, what was there

    def add(self, model: nn.Module, batch: PosedBatch) -> int:
        """Look at a batch; how many of it were wrong."""
        if isinstance(model, Aligned):
            scores, theta = model(batch.images, return_theta=True)
            if self.single and model.transformer.count == 1:  # of several, no two look at the same
                self.outputs.add(model.transformer.read(batch.images, theta), batch.labels)
            if batch.map is not None:
                size = (batch.images.shape[2], batch.images.shape[3])
                self.before.append(digit_pose(batch.map, size).cpu())
                self.after.append(digit_pose(batch.map.then(model.transformer.maps(theta)[0]), size).cpu())
                self.labels.append(batch.labels.cpu())
        else:
            scores = model(batch.images)
        if self.single:
            self.inputs.add(batch.images, batch.labels)
        predicted = scores.argmax(dim=-1)
        if not self.single:
            self.read.append((predicted.cpu(), batch.labels.cpu()))
        classes = len(self.confusion)
        flat = (batch.labels * classes + predicted).flatten().cpu()
        self.confusion += torch.bincount(flat, minlength=classes * classes).reshape(classes, classes)
        wrong = mistaken(predicted, batch.labels)
        self.wrong += batch.samples[wrong].tolist()
        return int(wrong.sum())


def _measure(model: nn.Module, data: DataSet, config: Config) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the arrays of an evaluation (the run-folder page of the docs lists them)."""
    posed = isinstance(data, DigitSet) and data.posed and config.data != "plain"
    distortions = config.test_distortions if data.distorted else 1
    seen, errors = _Seen(data.facts), []
    for distortion in range(distortions):
        wrong = sum(seen.add(model, batch) for batch in data.test_batches(distortion))
        errors.append(100.0 * wrong / len(data.test[0]))

    spread = torch.tensor(errors, dtype=torch.float64)
    record: dict[str, Any] = {
        "label": models.label(config),
        "set": data.name,
        "error": float(spread.mean()),
        "error_sd": float(spread.std()) if distortions > 1 else 0.0,
        "balanced_error": _balanced_error(seen.confusion),
        "distortions": distortions,
        "test_images": distortions * len(data.test[0]),
        "parameters": models.count_parameters(model),
        "pose": None,
        "variance": None,
        "variance_share": None,
    }
    if seen.read:
        predicted, labels = (torch.cat(parts) for parts in zip(*seen.read, strict=True))
        none = len(data.facts.classes) - 1
        record["measures"] = sequence_measures(predicted, labels, none)
    if isinstance(data, PhotoSet):
        record["wrong"] = seen.wrong  # so that two networks can be compared image by image
    arrays = {"confusion": seen.confusion, **_dozen(model, data), **_mistakes(model, data)}
    if isinstance(data, DigitSet):
        del arrays["mistake_indices"]
    if seen.single and len(data.facts.classes) <= MEANS:
        arrays["mean_inputs"] = seen.inputs.means()
    if isinstance(model, Aligned) and seen.outputs.sum is not None:
        (before_raw, before_share), (after_raw, after_share) = seen.inputs.variance(), seen.outputs.variance()
        record["variance"] = {"before": before_raw, "after": after_raw}
        record["variance_share"] = {"before": before_share, "after": after_share}
        if "mean_inputs" in arrays:
            arrays["mean_outputs"] = seen.outputs.means()
        if posed and isinstance(data, DigitSet):
            labels = torch.cat(seen.labels)
            was, left = (residual(torch.cat(poses), labels) for poses in (seen.before, seen.after))
            record["pose"] = {key: {"before": was[key], "after": left[key]} for key in was}
            arrays |= _poses(model, data)
    return record, arrays


def _balanced_error(confusion: Tensor) -> float:
    """The mean over classes of each class's own error, in percent; classes without a test image do not count."""
    counts = confusion.sum(dim=1)
    right = confusion.diagonal()[counts > 0] / counts[counts > 0]
    return 100.0 * (1.0 - float(right.double().mean()))


def _dozen(model: nn.Module, data: DataSet) -> dict[str, Tensor]:
    batch = data.test_batch(0, data.dozen())
    arrays = {
        "inputs": pictures(projected(batch.images)),
        "labels": batch.labels,
        "predictions": model(batch.images).argmax(dim=-1),
    }
    if isinstance(model, NumberNet) and model.transformers:
        size = (batch.images.shape[2], batch.images.shape[3])
        frames = [frame(each, size) for each in model.frames(batch.images)]
        return arrays | {"lines": torch.stack(frames, dim=1).float()}
    return arrays | _look(model, batch, grey(data)) if isinstance(model, Aligned) else arrays


def _look(model: Aligned, batch: PosedBatch, grey: bool) -> dict[str, Tensor]:
    """Outputs (n, h, w) and lines (n, L, P, 2), where several transformers or channels stand side by side
    (n, frames, L, P, 2); of images in colour always with an axis for the transformers, and the channels last.
    """
    theta = model.theta(batch.images)
    size = (batch.images.shape[2], batch.images.shape[3])
    lines = torch.stack([frame(each, size) for each in model.transformer.maps(theta)], dim=1).float()
    outputs = _crops(model, batch.images, theta)
    if not grey:
        return {"outputs": outputs.movedim(2, -1), "lines": lines}
    aside = lines.new_tensor([size[1], 0])
    lines = torch.cat([lines + channel * aside for channel in range(batch.images.shape[1])], dim=1)
    return {"outputs": pictures(outputs.flatten(1, 2)), "lines": lines[:, 0] if lines.shape[1] == 1 else lines}


def _crops(model: Aligned, images: Tensor, theta: Tensor) -> Tensor:
    """What each transformer wrote: (N, count, C, h, w)."""
    read = model.transformer.read(images, theta)
    return read if model.transformer.count > 1 else read[:, None]


def _mistakes(model: nn.Module, data: DataSet) -> dict[str, Tensor]:
    """The most confident mistakes under the first distortion."""
    kept = []
    first = 0
    for batch in data.test_batches(0):
        confidence, predicted = model(batch.images).softmax(dim=-1).max(dim=-1)
        if confidence.dim() > 1:  # of a number: that all its places are right
            confidence = confidence.prod(dim=1)
        wrong = mistaken(predicted, batch.labels)
        at = first + torch.nonzero(wrong).flatten()
        kept.append((projected(batch.images[wrong]), batch.labels[wrong], predicted[wrong], confidence[wrong], at))
        first += len(wrong)
    images, labels, predicted, confidence, places = (torch.cat(parts) for parts in zip(*kept, strict=True))
    worst = confidence.argsort(descending=True, stable=True)[:MISTAKES]
    arrays = {
        "mistakes": pictures(images[worst]),
        "mistake_labels": labels[worst],
        "mistake_predictions": predicted[worst],
        "mistake_confidence": confidence[worst].float(),
        "mistake_indices": places[worst],
    }
    if isinstance(model, Aligned) and len(worst):
        crops = _crops(model, images[worst], model.theta(images[worst]))
        arrays["mistake_outputs"] = pictures(crops.flatten(1, 2)) if grey(data) else crops.movedim(2, -1)
    return arrays


def _poses(model: Aligned, data: DigitSet) -> dict[str, Tensor]:
    """True and predicted pose of evenly spread test digits."""
    total = len(data.test[0])
    batch = data.test_batch(0, torch.arange(0, total, max(1, -(-total // POSES))))
    assert batch.map is not None  # digits
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
