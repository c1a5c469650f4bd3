"""`stn bench`: what its words mean, what is refused before anything runs, and what is written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from torch_stn.lab.bench import cases
from torch_stn.lab.errors import UserError


def bench(suite: str, against: str, pattern: str | None, quick: bool, files: dict[str, Path | None]) -> None:
    """Measure, print, write. ``files``: where the record ("--json") and the picture ("--picture") go, if anywhere."""
    wanted = cases.select(cases.suite(suite), pattern)
    names = cases.chosen(against)
    for option, path in files.items():
        if path is not None:
            _writable(option, path)
    # What is wrong with the words is said before torch is loaded.
    from torch_stn.lab.bench import measure, picture, screen, stopwatch
    from torch_stn.lab.console import out, say
    from torch_stn.lab.report.files import write_whole

    effort = stopwatch.QUICK if quick else stopwatch.Effort()
    record = measure.measure(measure.Order(suite, wanted, names, effort), say)
    screen.show(out, record)
    if (path := files.get("--json")) is not None:
        write_whole(path, (json.dumps(plain(record), indent=1) + "\n").encode())
    if (path := files.get("--picture")) is not None:
        write_whole(path, picture.draw(plain(record)))


def _writable(option: str, path: Path) -> None:
    """Refuse now what could not be written after minutes of measuring."""
    folder = path.parent
    if path.is_dir():
        raise UserError(f"{option}: wanted the name of a file, {path} is a folder")
    if not folder.is_dir():
        raise UserError(f"{option}: wanted a file in a folder that exists, there is no {folder}")
    if not os.access(folder, os.W_OK) or (path.exists() and not path.is_file()):
        raise UserError(f"{option}: {path} cannot be written")


def plain(value: Any) -> Any:
    """The same with tuples as lists and NaN as None: JSON has neither, and digests must not depend on it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
