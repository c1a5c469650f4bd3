"""A folder of results, read and checked: TABLE/CELL-SEED.json of the tables, NAME.json of single runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_stn.lab import experiments
from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.errors import UserError

BENCHMARK = "benchmarks-"  # how the names of `stn bench`'s records begin
FEW = "5,000"  # how the name of the embedded digits begins: of a table of MNIST they are no result


@dataclass(frozen=True)
class Result:
    """What one run came to. Of a single run table and cell are None."""

    name: str  # the file's, without .json
    table: Table | None
    cell: Cell | None
    recipe: str
    words: tuple[str, ...]  # KEY=VALUE on top of the recipe
    command: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    curve: tuple[tuple[float, float], ...] = ()  # (seconds, error on some test images) while it learned

    @property
    def few_digits(self) -> bool:
        """Whether it learned from the 5,000 digits."""
        return str(self.evaluation.get("digits", "")).startswith(FEW)

    def pair(self, name: str) -> tuple[float, float] | None:
        """(before, after) of a quantity of the residual pose, "variance" or "variance_share"; None: not measured."""
        evaluation = self.evaluation
        found = evaluation.get(name) if name.startswith("variance") else (evaluation.get("pose") or {}).get(name)
        return (float(found["before"]), float(found["after"])) if found else None

    @property
    def machine(self) -> str:
        """Versions and device, in words."""
        environment, threads = self.environment, self.environment["threads"]
        device = environment["device"]
        if environment.get("processor"):
            device = f"{device} ({environment['processor']})"
        return f"torch {environment['torch']}, {device}, {threads} thread{'s' if threads != 1 else ''}"


def read_results(folder: Path) -> list[Result]:
    """All results of a folder, by name, the single runs first. UserError names a file that is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of results")
    found = [read_result(path) for path in sorted(folder.glob("*.json")) if not path.name.startswith(BENCHMARK)]
    for name in experiments.tables():
        found += [read_result(path, experiments.table(name)) for path in sorted((folder / name).glob("*.json"))]
    return found


def is_folder_of_results(path: Path) -> bool:
    """Whether a folder holds results rather than a run."""
    if (path / "config.json").exists():
        return False
    return any(path.glob("*.json")) or any(any((path / name).glob("*.json")) for name in experiments.tables())


def read_result(path: Path, table: Table | None = None) -> Result:
    """One file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config, environment, evaluation = (dict(record[part]) for part in ("config", "environment", "evaluation"))
        number = table.number(evaluation) if table else float(evaluation["error"])
        if not math.isfinite(number):
            raise ValueError(f"its number is {number}")
        name, command = path.stem, str(record["command"])
        if table is None:
            return Result(name, None, None, "", (), command, config, environment, evaluation)
        cells = {cell.name: cell for cell in table.cells}
        if record["table"] != table.name or record["cell"] not in cells:
            raise UserError(f"{path}: {table.name} has no cell {record['cell']!r} of {record['table']!r}")
        cell, recipe, words = cells[record["cell"]], str(record["recipe"]), tuple(record["overrides"])
        curve = tuple((float(row["seconds"]), float(row["test_error"])) for row in record.get("curve", ()))
        return Result(name, table, cell, recipe, words, command, config, environment, evaluation, curve)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: wanted the result of a run: {type(error).__name__}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
