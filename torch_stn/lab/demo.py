"""Make the demo: train its runs one after the other, then the page and the animation."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_stn.lab.config import override
from torch_stn.lab.console import say
from torch_stn.lab.data.digits import load_digits
from torch_stn.lab.errors import UserError
from torch_stn.lab.experiments.demo import RUNS
from torch_stn.lab.report.animation import render_alignment_gif
from torch_stn.lab.report.page import build_report
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import start, train_and_evaluate


def make_demo(path: Path, overrides: Sequence[str]) -> tuple[list[Mapping[str, Any]], Path, Path]:
    """Train, evaluate, report: the records, the HTML page, the GIF. An earlier demo in the folder is replaced."""
    if any(word.startswith("model=") for word in overrides):
        raise UserError("model: the demo compares three networks, wanted no model=")
    if any(word.startswith("devices=") for word in overrides):
        raise UserError("devices: the demo is for one process, wanted no devices=")
    configs = [override(config, overrides) for config in RUNS]
    _clear(path, [config.model for config in configs])
    digits = load_digits(configs[0].digits, notice=say)
    folders, records = [], []
    for config in configs:
        folder = start(config, path / config.model)
        record = train_and_evaluate(folder, digits)
        assert record is not None  # one process
        records.append(record)
        folders.append(folder.path)
    page = build_report(folders, path / "report.html")
    return records, page, render_alignment_gif(folders[1], path / "alignment.gif")


def _is_part(entry: Path, names: Sequence[str]) -> bool:
    """Whether an entry of the folder is of an earlier demo: a picture or page of it, or a run of it."""
    if entry.name in ("report.html", "alignment.gif"):
        return entry.is_file()
    if entry.name not in names or not entry.is_dir():
        return False
    try:
        return RunFolder.open(entry).config().experiment == "demo"
    except UserError:
        return not any(entry.iterdir())


def _clear(path: Path, names: Sequence[str]) -> None:
    """Remove an earlier demo, and nothing else: a folder with other things in it is left alone."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path}: wanted a folder for the demo, got a file")
    strangers = [entry.name for entry in sorted(path.iterdir()) if not _is_part(entry, names)]
    if strangers:
        raise UserError(f"{path}: holds {strangers[0]}, which is no part of a demo; choose another --run")
    for name in names:
        shutil.rmtree(path / name, ignore_errors=True)
