"""What is told of numbers read as a whole beside how many are wrong: their single digits, and each length apart."""

import torch
from torch import Tensor


def mistaken(predicted: Tensor, labels: Tensor) -> Tensor:
    """Which images are wrong (N,): with several heads, (N, heads) each, those with any head wrong."""
    return (predicted != labels).any(dim=1) if labels.dim() > 1 else predicted != labels


def sequence_measures(predicted: Tensor, labels: Tensor, none: int) -> dict[str, float]:
    """Errors in percent: "digit error", of the digits that are there; "error of length k", of whole numbers.

    Args: predicted and labels, (N, heads) int64; none, the class of a place without a digit.
    A length that no number has is left out.
    """
    there = labels != none
    wrong, lengths = mistaken(predicted, labels), there.sum(dim=1)
    measures = {"digit error": _percent(predicted != labels, there)}
    for length in torch.unique(lengths).tolist():
        measures[f"error of length {length}"] = _percent(wrong, lengths == length)
    return measures


def _percent(wrong: Tensor, among: Tensor) -> float:
    return 100.0 * float(wrong[among].double().mean())
