"""Trained digit networks that come with the package: weights as safetensors, their config and measurement as JSON, a
card to read. `scripts/zoo.py keep RUN NAME` adds one.
"""

import difflib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from torch_stn.lab import models
from torch_stn.lab.config import Config, from_record
from torch_stn.lab.errors import UserError

FOLDER = Path(__file__).parent
FORMAT = 1  # of the JSON file


def names() -> list[str]:
    """All networks of the zoo."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """A trained network in evaluation mode: digits (N, 1, S, S) in [0, 1], light on black, to class scores (N, 10).

    S is the canvas of its set: 28 of R, P and E, 42 of RTS, 60 of TC. A network with a transformer is an
    :class:`~torch_stn.lab.models.aligned.Aligned`, whose ``map(images)`` says where it reads.
    Raises: UserError for a name that is none, and for files that are damaged.
    """
    config, path = config_of(name), FOLDER / f"{name}.safetensors"
    model = models.build(config)
    try:
        model.load_state_dict(safetensors.torch.load_file(path))  # weights of half precision become float32 here
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights of this network: {str(error).splitlines()[0]}") from None
    return model.to(device).eval()


def config_of(name: str) -> Config:
    """The config that a network was trained with."""
    try:
        return from_record(record_of(name)["config"])
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{FOLDER / name}.json: holds no config that can be read: {error}") from None


def record_of(name: str) -> dict[str, Any]:
    """Config, environment and evaluation of a network."""
    if name not in names():
        known = ", ".join(names()) or "none yet"
        nearest = difflib.get_close_matches(name, names(), 1)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise UserError(f"{name}: no network of the zoo, which has: {known}{hint}")
    path = FOLDER / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path}: wanted a JSON object of format {FORMAT}")
    return record


def card(name: str) -> str:
    """What there is to know of a network, as Markdown."""
    record_of(name)
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")
