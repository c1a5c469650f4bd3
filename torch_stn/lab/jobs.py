"""What `stn reproduce` has to do, from its words alone: which cell, which seed, which config, which files."""

import difflib
import fnmatch
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.config import Config, override
from torch_stn.lab.errors import UserError
from torch_stn.lab.recipes import RECIPES

# What a cell is, so no word may change it.
DEFINING = (
    *("experiment", "source", "data", "perturb", "model", "transform", "count", "iterations", "series", "backbones"),
    *("layer", "shared", "theta_forward", "looking", "backbone", "average"),
)


@dataclass(frozen=True)
class Job:
    """One cell with one seed."""

    table: Table
    cell: Cell
    seed: int
    recipe: str
    words: tuple[str, ...]  # KEY=VALUE, on top of the recipe
    config: Config

    @property
    def name(self) -> str:
        """Of its run folder and of its result: ``r-fcn-0``, ``r-fcn-0-paper``."""
        return f"{self.cell.name}-{self.seed}" + ("" if self.recipe == "ours" else f"-{self.recipe}")

    def result(self, results: Path) -> Path:
        """Its file."""
        return results / self.table.name / f"{self.name}.json"

    @property
    def command(self) -> str:
        """What does this cell again, with its seed and those before."""
        recipe = [] if self.recipe == "ours" else ["--recipe", self.recipe]
        words = ["stn", "reproduce", self.table.name, *self.words, *recipe, "--cells", self.cell.name]
        return shlex.join([*words, "--seeds", str(self.seed + 1)])


def plan(table: Table, words: Sequence[str], recipe: str, seeds: int, cells: str | None) -> list[Job]:
    """The jobs in order: every cell with seed 0 first, so that a small budget fills the table before it repeats.

    Args: words, KEY=VALUE for all configs; cells, patterns separated by commas, None: all.
    Raises: UserError for a word, recipe, seed count or pattern that means nothing.
    """
    if recipe not in table.recipes:
        raise UserError(f"--recipe: wanted one of {', '.join(table.recipes)} with {table.name}, got {recipe!r}")
    if seeds < 1:
        raise UserError(f"--seeds: wanted a count of at least 1, got {seeds}")
    for word in words:
        key = word.partition("=")[0]
        if key == "seed":
            raise UserError("seed: wanted no seed= beside --seeds, which takes a count: 3 is seeds 0, 1 and 2")
        if key == "devices":
            raise UserError("devices: a table is made by one process, wanted no devices=")
        if key in DEFINING:
            raise UserError(f"{key}: is what a cell is, wanted --cells instead of {word}")
    jobs = []
    for seed in range(seeds):
        for cell in select(table, cells):
            task = replace(cell.config, seed=seed)
            if recipe != "ours" and RECIPES[recipe](task) == RECIPES["ours"](task):
                continue  # it would be the same run again, under another name
            config = override(RECIPES[recipe](task), words)
            jobs.append(Job(table, cell, seed, recipe, tuple(words), config))
    if not jobs:
        raise UserError(f"--recipe: {recipe} leaves {cells or 'all'} of {table.name} as ours has them")
    return jobs


def select(table: Table, patterns: str | None) -> list[Cell]:
    """The cells of a table whose names are like one of the patterns."""
    if patterns is None:
        return list(table.cells)
    names = [cell.name for cell in table.cells]
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            nearest = difflib.get_close_matches(pattern, names, 1)
            hint = f"; nearest: {nearest[0]}" if nearest else ""
            raise UserError(
                f"--cells: no cell of {table.name} is like {pattern!r}, wanted some of {names[0]}, ...{hint}"
            )
    return [cell for cell in table.cells if any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in wanted)]
