"""What a network must know of its data: the shape of an image, the classes, how bright pixels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from torch_stn.lab.errors import UserError


@dataclass(frozen=True)
class Facts:
    """Facts of one data set, kept in the run folder where the config does not say them."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # of each channel, pixels in [0, 1]
    deviation: tuple[float, ...]
    depth: int = 0  # of volumes; 0 = pictures
    heads: int = 1  # labels of one image, each one of the classes

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W), of volumes (C, D, H, W)."""
        depth = (self.depth,) if self.depth else ()
        return (self.channels, *depth, self.height, self.width)

    def record(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


def counted_facts(
    histograms: Tensor,  # (C, 256) whole numbers: how many pixels of a channel have each value
    size: int,  # pixels a side
    classes: Sequence[str],
    heads: int = 1,
) -> Facts:
    """The facts of images of 8 bits, mean and deviation from counts of their values: exact, whatever the order.

    >>> counted_facts(torch.tensor([[3] + [0] * 254 + [1]]), 2, ("a", "b")).mean
    (0.25,)
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = histograms.double()
    total = int(histograms[0].sum())
    means = [float((each * values).sum()) / total for each in counts]
    squares = [float((each * values.square()).sum()) / total for each in counts]
    deviations = [max(square - mean * mean, 0.0) ** 0.5 for mean, square in zip(means, squares, strict=True)]
    return Facts(
        len(counts),
        size,
        size,
        tuple(classes),
        tuple(round(mean, 6) for mean in means),
        # An even grey has no deviation, and nothing is divided by nothing.
        tuple(round(max(deviation, 0.01), 6) for deviation in deviations),
        heads=heads,
    )


def read_facts(record: Mapping[str, Any], where: object) -> Facts:
    """The facts of a record; UserError where they do not hold together, since a network is built from them."""
    try:
        facts = Facts(
            int(record["channels"]),
            int(record["height"]),
            int(record["width"]),
            tuple(str(each) for each in record["classes"]),
            tuple(float(each) for each in record["mean"]),
            tuple(float(each) for each in record["deviation"]),
            heads=int(record.get("heads", 1)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: wanted the facts of a data set, {type(error).__name__}: {error}") from None
    sides = facts.channels in (1, 3) and 1 <= min(facts.height, facts.width) <= max(facts.height, facts.width) <= 4096
    pixels = _of(facts.mean, facts.channels) and _of(facts.deviation, facts.channels) and min(facts.deviation) > 0
    if not (sides and pixels and facts.classes and facts.heads >= 1):
        raise UserError(f"{where}: wanted the facts of a data set, its shape, mean and deviation do not hold together")
    return facts


def _of(values: Sequence[float], channels: int) -> bool:
    """One number in [0, 1] for each channel."""
    return len(values) == channels and all(0 <= value <= 1 for value in values)
