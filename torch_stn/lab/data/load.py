"""What a run learns from, by its config: the one place that knows which kinds of sets there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from torch_stn.lab.config import Config
from torch_stn.lab.data.digits import Digits, load_digits, print_line
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.photo_set import PhotoSet, facts_of
from torch_stn.lab.data.photos import Photos, load_photos
from torch_stn.lab.data.sets import DigitSet, digit_facts
from torch_stn.lab.data.shard_index import load_shards
from torch_stn.lab.data.shards import is_shards
from torch_stn.lab.data.streamed_set import StreamedSet
from torch_stn.lab.data.svhn import load_svhn

Source = Digits | Photos
DataSet = DigitSet | PhotoSet


def load(config: Config, *, notice: Callable[[str], None] = print_line, run: Path | None = None) -> Source:
    """Read the images of a run; ``notice`` is called with lines for the user.

    ``run``: the folder of a run that goes on or is evaluated, whose index saves reading every shard again.
    """
    if config.source == "svhn":
        return load_svhn(config, notice)
    if config.source == "folder" and is_shards(config.data):
        return load_shards(config, notice, run)
    if config.photos:
        return load_photos(config, notice)
    return load_digits(config.digits, notice=notice)


def data_set(source: Source, config: Config, device: torch.device | str = "cpu") -> DataSet:
    """The images as training takes them."""
    if isinstance(source, Photos) and source.stored is not None:
        return StreamedSet(source, source.stored, config, device)
    if isinstance(source, Photos):
        return PhotoSet(source, config, device)
    return DigitSet(source, config.data, config.seed, device)


def facts_for(source: Source, config: Config) -> Facts:
    """What a network must know of them."""
    return facts_of(source) if isinstance(source, Photos) else digit_facts(config.data)
