"""The paired bootstrap: against the standard error that theory gives, and where nothing differs."""

import math

import numpy as np

from torch_stn.lab.report.bootstrap import paired_difference


def test_the_interval_is_that_of_the_normal_law() -> None:
    random = np.random.default_rng(1)
    images = 20_000
    a, b = random.random(images) < 0.10, random.random(images) < 0.12
    found = paired_difference([np.flatnonzero(a).tolist()], [np.flatnonzero(b).tolist()], images)
    difference = a.astype(float) - b
    half = 1.959964 * difference.std() / math.sqrt(images)
    assert math.isclose(found.mean, 100 * difference.mean(), abs_tol=1e-9)
    assert math.isclose(found.high - found.low, 2 * 100 * half, rel_tol=0.03)
    assert math.isclose((found.high + found.low) / 2, found.mean, abs_tol=0.02)
    assert found.clear


def test_the_same_mistakes_differ_by_nothing() -> None:
    found = paired_difference([[3, 7], [4]], [[4, 7], [3]], 50)
    assert (found.mean, found.low, found.high, found.clear) == (0.0, 0.0, 0.0, False)


def test_pairing_narrows_the_interval() -> None:
    shared = list(range(100))
    paired = paired_difference([[*shared, 500]], [shared], 1000)
    apart = paired_difference([[*shared, 500]], [list(range(200, 300))], 1000)
    assert paired.high - paired.low < (apart.high - apart.low) / 5


def test_distortions_of_an_image_count_as_one_image() -> None:
    """Wrong under each of three distortions is wrong once; twice the runs leave the mean as it is."""
    thrice = paired_difference([[5, 105, 205]], [[]], 100, distortions=3)
    once = paired_difference([[5]], [[]], 100)
    assert math.isclose(thrice.mean, 1.0)
    assert (thrice.low, thrice.high) == (once.low, once.high)
    assert math.isclose(paired_difference([[5], [5]], [[], []], 100).mean, 1.0)
