"""The sets that are drawn from digits: how each is drawn, and what a network must know of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from torch_stn.lab.data.addition import draw_sums
from torch_stn.lab.data.backgrounds import photographs
from torch_stn.lab.data.colocalization import SCENE, SCENE_PATCHES, draw_nudged
from torch_stn.lab.data.distortions import DISTORTIONS, RTS_CANVAS, SIDE, distort, translated
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.strings import LONGEST, draw_strings
from torch_stn.lab.data.volumes import VOLUME, draw_volumes
from torch_stn.transforms.maps import Map

DIGIT_NAMES = tuple("0123456789")


class Drawn(NamedTuple):
    """A batch of pictures made from digits."""

    images: Tensor  # (B, C, S, S) float32 in [0, 1], of volumes (B, C, D, H, W)
    labels: Tensor  # (B,) int64, with several heads (B, heads)
    map: Map | None  # canvas -> digit; None where there is no one such map


class Kind(NamedTuple):
    """One set."""

    name: str  # as a report prints it
    facts: Facts
    draw: Callable[[Tensor, Tensor, Tensor, Tensor, int], Drawn]  # (digits, labels, indices, samples, seed)
    posed: bool = False  # whether each sample is one digit under a known map


def _facts(channels: int, side: int, classes: tuple[str, ...]) -> Facts:
    """Those of drawn pictures, the same on every machine; their pixels are taken as they are."""
    return Facts(channels, side, side, classes, (0.0,) * channels, (1.0,) * channels)


def _distorted(kind: str, digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> Drawn:
    images, drawn = distort(kind, digits, indices, samples, seed)
    return Drawn(images, labels[indices], drawn)


def _sums(digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> Drawn:
    return Drawn(*draw_sums(digits, labels, indices, samples, seed), None)


def _nudged(digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> Drawn:
    return Drawn(*draw_nudged(digits, labels, indices, samples, seed), None)


def _volumes(digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> Drawn:
    return Drawn(*draw_volumes(digits, labels, indices, samples, seed), None)


def _scenes(patches: int, digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> Drawn:
    images, drawn = translated(digits, indices, samples, seed, SCENE, patches)
    return Drawn(images, labels[indices], drawn)


def _strings(size: int, digits: Tensor, labels: Tensor, indices: Tensor, samples: Tensor, seed: int) -> Drawn:
    return Drawn(*draw_strings(digits, labels, indices, samples, seed, size, photographs(digits.device)), None)


def _string_kind(size: int) -> Kind:
    # Half way between black and white, and half of that: about what their pixels have, and the same for both sizes.
    facts = Facts(3, size, size, (*DIGIT_NAMES, "none"), (0.5,) * 3, (0.25,) * 3, heads=LONGEST)
    return Kind(f"digit strings {size} px", facts, partial(_strings, size))


KINDS: dict[str, Kind] = {
    **{
        kind: Kind(each.name, _facts(1, each.size, DIGIT_NAMES), partial(_distorted, kind), posed=True)
        for kind, each in DISTORTIONS.items()
    },
    "addition": Kind("addition", _facts(2, RTS_CANVAS, tuple(str(total) for total in range(19))), _sums),
    "nudged": Kind("nudged", _facts(1, SIDE, DIGIT_NAMES), _nudged),
    "volumes": Kind("volumes", Facts(1, VOLUME, VOLUME, DIGIT_NAMES, (0.0,), (1.0,), depth=VOLUME), _volumes),
    **{
        kind: Kind(kind.upper(), _facts(1, SCENE, DIGIT_NAMES), partial(_scenes, patches), posed=True)
        for kind, patches in SCENE_PATCHES.items()
    },
    "strings-64": _string_kind(64),
    "strings-128": _string_kind(128),
}
