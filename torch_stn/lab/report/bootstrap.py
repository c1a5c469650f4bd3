"""How sure a difference between two networks is that were judged by the same images: the paired bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 10_000
SURE = 0.95


class Difference(NamedTuple):
    """Error of one network less that of the other, in points of percent, and where 95 % of the resamples lie."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def paired_difference(
    ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], images: int, distortions: int = 1
) -> Difference:
    """The difference in error, test images drawn again with replacement; the same draw serves both networks.

    Args: ours, theirs, for each run of a network the samples that it got wrong, where sample % images is the image:
    several runs and several distortions of an image count as one image's mean, since they are not independent; images,
    distortions, how many there are.

    >>> paired_difference([[0, 1]], [[0, 1, 2, 3]], 100).mean
    -2.0

    Source: Efron and Tibshirani 1993, chapter 13: percentile interval.
    """
    a, b = (_by_image(wrong, images) / (len(wrong) * distortions) for wrong in (ours, theirs))
    # The resampled mean depends only on how often each value is drawn, and there are few values.
    values, counts = np.unique(a - b, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(images, counts / images, size=DRAWS) @ values / images
    low, high = np.quantile(drawn, [(1 - SURE) / 2, (1 + SURE) / 2])
    return Difference(100 * float((a - b).mean()), 100 * float(low), 100 * float(high))


def _by_image(wrong: Sequence[Sequence[int]], images: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How often each image was wrong, over all runs."""
    samples = np.array([sample for run in wrong for sample in run], dtype=np.int64)
    return np.bincount(samples % images, minlength=images).astype(np.float64)
