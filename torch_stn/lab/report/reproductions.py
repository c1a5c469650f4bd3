"""The page of a folder of results: docs/reproductions.md, and the same as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from torch_stn.lab import experiments
from torch_stn.lab.cell import Table
from torch_stn.lab.errors import UserError
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.report.results import Result, read_results
from torch_stn.lab.report.sheets import Account, Entry, Sheet, account, counts, singles

HERE = Path(__file__).parent
FIRST = ("table1", "tc")  # of the page: what the paper is known for
TITLE = "What was measured"
LEAD = (
    "Every number of ours is read from a file in the folder of results, one a run, which holds its command, config, "
    "machine and measurement. In the tables: the mean over seeds ± their standard deviation; bold where it is at least "
    "as good as the paper's. A digit's error is over ten fixed distortions of the whole test set. Residual pose and "
    "within-class variance, before → after the transformer: docs/maths.md."
)
RECIPES = (
    "Recipes: where a row names none it is ours, which may change optimiser, schedule, loss, the localisation net's "
    "learning rate and, within the paper's bounds, the width; ours+ changes the network too; the paper's is plain SGD, "
    "150,000 steps of 256."
)
DIFFERENCES = "Differences in error, the same test images for both (paired bootstrap over images, all seeds together):"
CURVES = "Error % on 1,000 test images while it learned:"
MADE = (
    "Made from the files in `results/` by `python scripts/results.py page`, as `stn report results --out FILE.md`; "
    "do not edit."
)


def build_results_page(folder: Path, destination: Path) -> Path:
    """Write the page of a folder of results, as Markdown or HTML by the ending of its name."""
    write = {".html": html, ".md": markdown}.get(destination.suffix.lower())
    if write is None:
        raise UserError(f"--out: wanted a name that ends in .html or .md, got {destination}")
    return write_whole(destination, write(read_results(folder)).encode("utf-8", errors="replace"))


def markdown(results: list[Result]) -> str:
    """The page as Markdown."""
    parts = [f"# {TITLE}", MADE, LEAD, RECIPES]
    for each in _accounts(results):
        parts += [
            f"## {each.table.title}",
            f"{each.table.source}. `stn reproduce {each.table.name}`",
            _table(each.grid),
        ]
        if each.details.rows:
            parts.append(_table(each.details))
        if each.differences:
            parts.append(DIFFERENCES)
            parts.append(_list(f"{name}: {text}" for name, text in each.differences))
        if each.curves:
            parts.append(CURVES)
            parts.append(_list(f"`{name}`: {text}" for name, text in each.curves))
        if each.made:
            parts.append(_list(f"`{command}`: {text}" for command, text in each.made))
        if each.missing:
            parts.append("Not run yet:")
            parts.append(_list(f"{row}: `{command}`" for row, command in each.missing))
    single = singles(results, _tables())
    if single.rows:
        parts += ["## Single runs", _table(single)]
        parts.append(_list(f"`{each.name}`: `{each.command}`, {each.machine}" for each in results if not counts(each)))
    return "\n\n".join(parts) + "\n"


def html(results: list[Result]) -> str:
    """The page as one HTML file."""
    templates = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("results.html.jinja").render(
        title=TITLE,
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        lead=[LEAD, RECIPES],
        curves=CURVES,
        differences=DIFFERENCES,
        accounts=_accounts(results),
        singles=singles(results, _tables()),
        commands=[(each.name, each.command, each.machine) for each in results if not counts(each)],
    )


def _tables() -> list[Table]:
    names = experiments.tables()
    return [experiments.table(name) for name in sorted(names, key=lambda name: (name not in FIRST, name))]


def _accounts(results: list[Result]) -> list[Account]:
    return [account(table, results) for table in _tables()]


def _table(sheet: Sheet) -> str:
    lines = [sheet.headings, ["---"] * len(sheet.headings), *([_entry(each) for each in row] for row in sheet.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _entry(entry: Entry) -> str:
    text = entry.text.replace("|", "\\|")
    return f"**{text}**" if entry.strong else f"`{text}`" if entry.code else text


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)
