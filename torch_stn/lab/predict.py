"""`stn predict`: classes of images by a trained network, and what its transformers cut out of them."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from torch_stn.lab import models, zoo
from torch_stn.lab.config import Config
from torch_stn.lab.data.decode import NotAnImageError, decode, hostile_files
from torch_stn.lab.data.digit_files import place
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.listing import Listed, Skipped, images_at, shown
from torch_stn.lab.data.sets import digit_facts
from torch_stn.lab.errors import UserError
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.run_folder import RunFolder

BATCH = 64
STANDARD_INPUT = Path("-")
MOST_BYTES = 100_000_000  # of standard input
ENDINGS = (".csv", ".json")


class Prediction(NamedTuple):
    """What a run makes of one image."""

    file: str
    label: str
    probability: float
    probabilities: dict[str, float]


def predict(
    name: str,
    paths: Sequence[Path],
    notice: Callable[[str], None],
    *,
    device: torch.device | str = "cpu",
    crops: Path | None = None,
) -> list[Prediction]:
    """Classify image files and the images of folders, in the order of their names; a bad file is named and passed over.

    Args: name, a run folder or a network of the zoo; paths, where ``-`` is one image from standard input; crops, a
    folder for the aligned crops, NUMBER-NAME.png or, of several transformers, NUMBER-NAME-K.png.
    Images for a network of digits are placed on the canvas of its set: :func:`~torch_stn.lab.data.digit_files.place`.
    Raises: UserError where the network is not of single images, has no transformer to crop with, or where there is no
    image at all.
    """
    model, config, facts = network(name, device)
    if crops is not None and (not isinstance(model, Aligned) or model.stem is not None):
        what = "a transformer behind a layer, which cuts out no picture" if config.layer else "no transformer"
        raise UserError(f"--crops: {models.label(config)} has {what}, so there is nothing to write")
    for path in paths:
        if path != STANDARD_INPUT and not path.exists() and not path.is_symlink():
            raise UserError(f"{shown(str(path))}: no such file or folder")
    found, bad = [], 0
    numbers = count()
    with hostile_files(), torch.inference_mode():
        decoded = _decoded(paths, decoder(config, facts))
        while batch := list(islice(decoded, BATCH)):
            good = [(name, pixels) for name, pixels in batch if not isinstance(pixels, Skipped)]
            for each in (pixels for _, pixels in batch if isinstance(pixels, Skipped)):
                bad += 1
                notice(f"skipped {shown(each.name)}: {each.reason}")
            if not good:
                continue
            x = torch.from_numpy(np.stack([pixels for _, pixels in good])).to(device)
            probabilities, cut = look(model, x.permute(0, 3, 1, 2).float() / 255)
            for (name, _), row, pictures in zip(good, probabilities.tolist(), cut, strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                named = dict(zip(facts.classes, row, strict=True))
                found.append(Prediction(name, facts.classes[best], row[best], named))
                if crops is not None:
                    _write_crops(crops, next(numbers), name, pictures)
    if not found:
        raise UserError(f"PATH: no image that can be read{f', {bad} skipped' if bad else ''}")
    return found


def look(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (N, K), and what the transformers wrote, (N, count, C, h, w); without one count is 0."""
    if not isinstance(model, Aligned):
        return model(images).softmax(dim=1), images[:, None][:, :0]
    theta = model.theta(images)
    read = model.transformer.read(images, theta)
    return model.classify(read, theta).softmax(dim=1), read if model.transformer.count > 1 else read[:, None]


def write_predictions(rows: Sequence[Prediction], out: Path | None) -> str | None:
    """Write by the ending of the name, .csv or .json; without a name, the CSV text comes back."""
    if out is None:
        return _csv(rows)
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out: wanted a name that ends in .csv or .json, got {out}")
    records = [
        {
            "file": plain(row.file),
            "class": row.label,
            "probability": row.probability,
            "probabilities": row.probabilities,
        }
        for row in rows
    ]
    text = json.dumps(records, indent=1) + "\n" if out.suffix.lower() == ".json" else _csv(rows)
    write_whole(out, text.encode("utf-8", "replace"))
    return None


def _csv(rows: Sequence[Prediction]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("file", "class", "probability"))
    for row in rows:
        table.writerow((plain(row.file), plain(row.label), f"{row.probability:.6f}"))
    return text.getvalue()


def plain(name: str) -> str:
    """A name in UTF-8; what a file system holds besides is replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def decoder(config: Config, facts: Facts) -> Callable[[Any], tuple[Any, Any]]:
    """How the network of a run wants a file decoded: a file or its bytes -> pixels, size in the file."""
    if config.photos:
        return partial(decode, size=config.size, grey=config.grey)
    return partial(decode, size=facts.width, grey=True, fit=place)


def network(name: str, device: torch.device | str) -> tuple[nn.Module, Config, Facts]:
    """The network of a run folder or of the zoo, in evaluation mode."""
    if not Path(name).exists() and name in zoo.names():
        config = zoo.config_of(name)
        return zoo.load(name, device), config, digit_facts(config.data)
    if not Path(name).exists():
        known = ", ".join(zoo.names()) or "none yet"
        raise UserError(f"{name}: no run folder, and no network of the zoo, which has: {known}")
    folder = RunFolder.open(name)
    config, facts = folder.config(), folder.facts()
    if not config.photos and (facts.channels, facts.depth, facts.heads) != (1, 0, 1):
        raise UserError(f"{name}: learned from data={config.data}, wanted a run on pictures of one digit, or on images")
    model = models.build(config, facts).to(device).eval()
    folder.load_into(model)
    return model, config, facts


def _decoded(paths: Sequence[Path], decode_one: Callable[[Any], tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """Names with their pixels, or with why there are none."""
    for path in paths:
        for each in _listed(path):
            if isinstance(each, Skipped):
                yield each.name, each
                continue
            try:
                yield each.name, decode_one(BytesIO(_input()) if path == STANDARD_INPUT else each.file)[0]
            except NotAnImageError as error:
                yield each.name, Skipped(each.name, str(error))


def _listed(path: Path) -> Iterable[Listed | Skipped]:
    return [Listed(path, "-", "", "")] if path == STANDARD_INPUT else images_at([path])


def _input() -> bytes:
    """The bytes of one image from standard input."""
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise NotAnImageError(f"more than {MOST_BYTES // 10**6} MB")
    return data


def _write_crops(folder: Path, number: int, name: str, pictures: Tensor) -> None:
    """The crops of one image; numbered, so that no two images of one name meet."""
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in shown(Path(name).stem))[:60]
    for index, crop in enumerate(pictures):
        pixels = (crop.movedim(0, -1).clamp(0, 1) * 255).round().byte().cpu().numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "png")
        part = f"-{index}" if len(pictures) > 1 else ""
        write_whole(folder / f"{number:05d}-{stem}{part}.png", buffer.getvalue())
