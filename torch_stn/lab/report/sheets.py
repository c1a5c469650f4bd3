"""Results as tables of text, the same for Markdown and HTML: our numbers beside the paper's."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch_stn.lab.cell import Cell, Table
from torch_stn.lab.report.bootstrap import paired_difference
from torch_stn.lab.report.results import Result

RECIPES = ("ours", "ours+", "paper")  # the order of their rows
CALLED = {"ours": "", "paper": ", the paper's recipe"}  # how a row says its recipe; others by their own name
POSE = (("rotation_deg", "rotation °", 1), ("shift_px", "shift px", 2), ("log_scale", "log-scale", 3))
NOT_RUN = "not run"
PUBLIC = {("plain", "Tutorial ST-CNN affine"): "1.1 to 1.5 (public runs)"}  # (set, network) of no paper's table


class Entry(NamedTuple):
    """One cell of a sheet."""

    text: str
    strong: bool = False  # as good as the paper
    code: bool = False


@dataclass(frozen=True)
class Sheet:
    """Headings and rows, ready to be written."""

    headings: list[str]
    rows: list[list[Entry]]


@dataclass(frozen=True)
class Account:
    """What is known of one table."""

    table: Table
    grid: Sheet  # ours beside the paper's
    details: Sheet  # a row a cell and recipe
    differences: list[tuple[str, str]]  # cell -> how it differs from its twin, image by image
    curves: list[tuple[str, str]]  # result -> error at moments of its training
    made: list[tuple[str, str]]  # command -> how many runs, where
    missing: list[tuple[str, str]]  # network -> the command that runs it


def account(table: Table, results: Iterable[Result]) -> Account:
    """A table's sheets from its results; those of 5,000 digits do not count where the table is of all."""
    mine = [result for result in results if counts(result) and result.table == table]
    groups: dict[tuple[str, str], list[Result]] = {}  # (cell, recipe)
    for result in mine:
        assert result.cell is not None
        groups.setdefault((result.cell.name, result.recipe), []).append(result)
    curves = [(each.name, _curve(each)) for each in mine if table.curves and each.curve]
    made, missing = _made(table, mine), _missing(table, groups)
    differences = _differences(table, groups)
    return Account(table, _grid(table, groups), _details(table, groups), differences, curves, made, missing)


def counts(result: Result) -> bool:
    """Whether a result stands in its table."""
    wanted = result.cell is not None and result.cell.config.digits == "mnist"
    return result.cell is not None and not (wanted and result.few_digits)


def singles(results: Iterable[Result], tables: Sequence[Table]) -> Sheet:
    """A row a run that stands in no table."""
    headings = ["run", "set", "network", "error %", "paper", *(title for _, title, _ in POSE), "variance, raw"]
    headings += ["variance, share", "parameters", "steps", "seconds"]
    return Sheet(headings, [_single(result, tables) for result in results if not counts(result)])


def _grid(table: Table, groups: dict[tuple[str, str], list[Result]]) -> Sheet:
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    rows = []
    for row in dict.fromkeys(cell.row for cell in table.cells):
        cells = {cell.column: cell for cell in table.cells if cell.row == row}
        for recipe in _recipes(groups):
            found = [groups.get((cells[column].name, recipe)) if column in cells else None for column in columns]
            if recipe != "ours" and not any(found):
                continue
            entries = [Entry(row + CALLED.get(recipe, f", {recipe}"))]
            for column, results in zip(columns, found, strict=True):
                entries += _beside(table, cells.get(column), results)
            rows.append(entries)
    return _without_empty(Sheet(["network", *(heading for column in columns for heading in (column, "paper"))], rows))


def _recipes(groups: dict[tuple[str, str], list[Result]]) -> list[str]:
    return [*RECIPES, *sorted({recipe for _, recipe in groups} - set(RECIPES))]


def _beside(table: Table, cell: Cell | None, results: list[Result] | None) -> tuple[Entry, Entry]:
    """Ours and the paper's; the paper leaves some cells out, and a table may have no such cell at all."""
    if cell is None:
        return Entry(""), Entry("")
    paper = Entry("" if cell.paper is None else f"{cell.paper:.1f}")
    if not results:
        return Entry(f"{NOT_RUN}: {cell.needs} not at hand" if cell.needs else NOT_RUN), paper
    numbers = [table.number(result.evaluation) for result in results]
    good = cell.paper is not None and table.as_good(statistics.fmean(numbers), cell.paper)
    return Entry(mean_and_sd(numbers), strong=good), paper


def _details(table: Table, groups: dict[tuple[str, str], list[Result]]) -> Sheet:
    measures = dict.fromkeys(
        name for results in groups.values() for each in results for name in each.evaluation.get("measures") or {}
    )
    headings = ["cell", "recipe", "seeds", table.unit, "paper", *(title for _, title, _ in POSE), "variance, share"]
    headings += [*measures, "parameters", "steps", "seconds", "device"]
    rows = []
    for cell in table.cells:
        for recipe in _recipes(groups):
            if results := groups.get((cell.name, recipe)):
                ours, paper = _beside(table, cell, results)
                seeds = Entry(", ".join(str(seed) for seed in sorted(each.config["seed"] for each in results)))
                row = [Entry(cell.name, code=True), Entry(recipe), seeds, ours, paper]
                row += [Entry(_change(results, key, digits)) for key, _, digits in (*POSE, ("variance_share", "", 3))]
                row += [Entry(_mean_measure(results, name)) for name in measures]
                row += [Entry(_range(results, key)) for key in ("parameters", "train_steps", "train_seconds")]
                row.append(Entry(", ".join(dict.fromkeys(str(each.environment["device"]) for each in results))))
                rows.append(row)
    return _without_empty(Sheet(headings, rows))


def _differences(table: Table, groups: dict[tuple[str, str], list[Result]]) -> list[tuple[str, str]]:
    """Each cell beside its twin by the paired bootstrap over test images."""
    told = []
    cells = {cell.name: cell for cell in table.cells}
    for cell in table.cells:
        ours, twins = groups.get((cell.name, "ours")), groups.get((cell.against, "ours"))
        if ours and twins and all("wrong" in each.evaluation for each in (*ours, *twins)):
            distortions = int(ours[0].evaluation["distortions"])
            images = int(ours[0].evaluation["test_images"]) // distortions
            mine, others = ([each.evaluation["wrong"] for each in group] for group in (ours, twins))
            found = paired_difference(mine, others, images, distortions)
            verdict = "clear" if found.clear else "within the noise"
            text = f"{found.mean:+.2f} points, 95 % of resamples {found.low:+.2f} to {found.high:+.2f}: {verdict}"
            told.append((f"{cell.column}: {cell.row} less {cells[cell.against].row}", text))
    return told


def _curve(result: Result) -> str:
    return ", ".join(f"{seconds:.0f} s {error:.1f}" for seconds, error in result.curve)


def _without_empty(sheet: Sheet) -> Sheet:
    kept = [i for i in range(len(sheet.headings)) if any(row[i].text for row in sheet.rows)]
    return Sheet([sheet.headings[i] for i in kept], [[row[i] for i in kept] for row in sheet.rows])


def _made(table: Table, results: Sequence[Result]) -> list[tuple[str, str]]:
    """The commands that made the results, runs of one command on one kind of machine together."""
    made = Counter((_command(table, result.words, result.recipe), result.machine) for result in results)
    return [
        (command, f"{count} run{'s' if count > 1 else ''}, {machine}") for (command, machine), count in made.items()
    ]


def _missing(table: Table, groups: dict[tuple[str, str], list[Result]]) -> list[tuple[str, str]]:
    missing = [cell for cell in table.cells if (cell.name, "ours") not in groups]
    if len(missing) == len(table.cells):
        return [("everything", _command(table))]
    rows = dict.fromkeys(cell.row for cell in missing)
    return [(row, _command(table, cells=[cell.name for cell in missing if cell.row == row])) for row in rows]


def _command(table: Table, words: Sequence[str] = (), recipe: str = "ours", cells: Sequence[str] = ()) -> str:
    parts = ["stn", "reproduce", table.name, *words]
    parts += [] if recipe == "ours" else ["--recipe", recipe]
    parts += ["--cells", ",".join(cells)] if cells else []
    return shlex.join(parts)


def mean_and_sd(numbers: Sequence[float]) -> str:
    """Mean and standard deviation over seeds; one seed has none."""
    mean = f"{statistics.fmean(numbers):.2f}"
    return f"{mean} ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else mean


def _change(results: Sequence[Result], key: str, digits: int) -> str:
    """Before -> after the transformer, means over seeds."""
    pairs = [pair for result in results if (pair := result.pair(key))]
    if not pairs:
        return ""
    before, after = (statistics.fmean(each) for each in zip(*pairs, strict=True))
    return f"{before:.{digits}f} → {after:.{digits}f}"


def _mean_measure(results: Sequence[Result], name: str) -> str:
    found = [each.evaluation["measures"][name] for each in results if name in (each.evaluation.get("measures") or {})]
    return f"{statistics.fmean(found):.4g}" if found else ""


def _range(results: Sequence[Result], key: str) -> str:
    """The value, or from the least to the greatest where seeds differ."""
    found = sorted(round(result.evaluation[key]) for result in results if key in result.evaluation)
    return "" if not found else f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"


def _single(result: Result, tables: Sequence[Table]) -> list[Entry]:
    evaluation = result.evaluation
    spread = f" ± {evaluation['error_sd']:.2f}" if evaluation.get("distortions", 1) > 1 else ""
    return [
        Entry(result.name, code=True),
        Entry(str(evaluation["set"]) + (", 5,000 digits" if result.few_digits else "")),
        Entry(str(evaluation["label"])),
        Entry(f"{evaluation['error']:.2f}{spread}"),
        Entry("" if result.few_digits else _printed(result, tables)),
        *(Entry(_change([result], key, digits)) for key, _, digits in POSE),
        Entry(_change([result], "variance", 4)),
        Entry(_change([result], "variance_share", 3)),
        *(Entry(_range([result], key)) for key in ("parameters", "train_steps", "train_seconds")),
    ]


def _printed(result: Result, tables: Sequence[Table]) -> str:
    """What a paper prints for the network and set of a single run, if a table of ours has it."""
    label, data = str(result.evaluation["label"]), str(result.evaluation["set"])
    cells = [cell for table in tables for cell in table.cells]
    found = [cell.paper for cell in cells if (cell.row.lower(), cell.column) == (label.lower(), data)]
    return f"{found[0]:.1f}" if found and found[0] is not None else PUBLIC.get((data, label), "")
