"""A paper's table as data: its cells, each a Config and the number that the paper prints there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch_stn.lab.config import Config


@dataclass(frozen=True)
class Cell:
    """One cell; ``name`` names its files: "r-st-fcn-affine"."""

    name: str
    row: str  # as the table prints it: "ST-FCN affine"
    column: str  # "R"
    config: Config  # the task and the network; a recipe adds how it is trained
    paper: float | None  # what the paper prints, in the table's unit; None: not in the paper
    needs: str = ""  # data that has to be fetched by hand: "SVHN"
    against: str = ""  # the cell whose test images it is compared with one by one: that of its twin


@dataclass(frozen=True)
class Table:
    """Cells in reading order: rows and columns appear as the cells first name them."""

    name: str  # of the module in experiments/, of the folder in results/
    title: str
    source: str  # paper, section, table
    cells: tuple[Cell, ...]
    measure: str = "error"  # what of an evaluation stands in the cells: this, or one of its "measures"
    unit: str = "error %"  # of it, and of the paper's numbers
    larger_is_better: bool = False
    recipes: tuple[str, ...] = ("ours", "paper")  # those that mean something here
    curves: bool = False  # whether the page tells the error while a cell learned
    run: str = ""  # module.function (Config, run folder's path, deadline) -> RunFolder, in the place of the usual run

    def number(self, evaluation: Mapping[str, Any]) -> float:
        """What stands in the cell of an evaluated run; KeyError where its evaluation has no such number."""
        return float(evaluation["error"] if self.measure == "error" else evaluation["measures"][self.measure])

    def as_good(self, number: float, paper: float) -> bool:
        """Whether a number, as two decimals print it, is at least as good as the paper's."""
        return round(number, 2) >= paper if self.larger_is_better else round(number, 2) <= paper


def grid(
    base: Config,
    rows: Mapping[str, tuple[str, str]],
    columns: Mapping[str, str],
    paper: Mapping[str, tuple[float | None, ...]],
) -> tuple[Cell, ...]:
    """The cells of networks by sets.

    Args: rows, what the table calls a network -> (model, transform); columns, what it calls a set -> data; paper, a
    row's numbers in the order of the columns; a row that is missing there is none of the paper's.
    """
    cells = []
    for row, (model, transform) in rows.items():
        numbers = paper.get(row, (None,) * len(columns))
        for (column, data), number in zip(columns.items(), numbers, strict=True):
            name = f"{data}-{row.lower().replace(' ', '-')}"
            config = replace(base, model=model, transform=transform, data=data)
            cells.append(Cell(name, row, column, config, number))
    return tuple(cells)
