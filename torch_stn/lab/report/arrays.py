"""What the arrays of an evaluation must be, so that a foreign file is refused by name, not by a crash in a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from torch_stn.lab.errors import UserError

# What evaluation.safetensors holds, with ranks. Pictures in grey, channels and transformers side by side, are
# (n, H, W); of images in colour outputs and lines have an axis for the transformers, and colours come last. Labels of
# several heads are (n, heads).
RANKS = {
    "confusion": (2,),
    "inputs": (3, 4), "labels": (1, 2), "predictions": (1, 2), "outputs": (3, 5), "lines": (4, 5),
    "mean_inputs": (3, 4), "mean_outputs": (3, 4), "mistakes": (3, 4), "mistake_outputs": (3, 5),
    "mistake_labels": (1, 2), "mistake_predictions": (1, 2), "mistake_confidence": (1,),
    "true_pose": (2,), "predicted_pose": (2,), "pose_labels": (1,),
}  # fmt: skip
ALWAYS = (
    "confusion", "inputs", "labels", "predictions",
    "mistakes", "mistake_labels", "mistake_predictions", "mistake_confidence",
)  # fmt: skip
# Arrays that are read side by side: the first axis must agree.
PAIRS = (
    ("inputs", "labels", "predictions", "outputs", "lines"),
    ("mistakes", "mistake_outputs", "mistake_labels", "mistake_predictions", "mistake_confidence"),
    ("mean_inputs", "mean_outputs"),
    ("true_pose", "predicted_pose", "pose_labels"),
)


def check_arrays(tensors: Path, arrays: dict[str, np.ndarray]) -> None:
    """UserError where an array is missing, has other axes, or another length than those read beside it."""
    for name in ALWAYS:
        if name not in arrays:
            raise UserError(f"{tensors}: {name} is missing; evaluate the run again")
    for name, ranks in RANKS.items():
        if name in arrays and arrays[name].ndim not in ranks:
            wanted = " or ".join(str(each) for each in ranks)
            raise UserError(f"{tensors}: {name} has shape {arrays[name].shape}, {wanted} axes were wanted")
    for group in PAIRS:
        lengths = {name: len(arrays[name]) for name in group if name in arrays}
        if len(set(lengths.values())) > 1:
            raise UserError(f"{tensors}: lengths differ: {', '.join(f'{n} {k}' for n, k in lengths.items())}")
