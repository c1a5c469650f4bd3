"""The page: run folders -> one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from torch_stn.lab.errors import UserError
from torch_stn.lab.report import figures, words
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.report.runs import Run, read_run
from torch_stn.lab.report.sections import section

HERE = Path(__file__).parent


def build_report(run_folders: Sequence[str | Path], destination: str | Path) -> Path:
    """Write the page of these runs, in this order; returns its path. UserError names what stands in the way."""
    if not run_folders:
        raise UserError("no run folder was given; name at least one, for example runs/demo/st-fcn")
    runs = [read_run(folder) for folder in run_folders]
    return write_whole(Path(destination), render(runs).encode("utf-8", errors="replace"))


def render(runs: Sequence[Run]) -> str:
    """The HTML of the page."""
    # Autoescape is on for every template: names, labels and settings come from files and may hold anything.
    templates = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    called = words.names(runs)
    return templates.get_template("template.html.jinja").render(
        title=_title(runs),
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        lead=words.lead(runs, called),
        tiles=_tiles(runs, called),
        table=_table(runs, called),
        residuals=any(run.pose(key) for run in runs for key, *_ in words.QUANTITIES),
        photos=all(run.photos for run in runs),
        shares=any(run.variance_share for run in runs),
        legend=[(name, *figures.style(index)) for index, name in enumerate(called)],
        curves=figures.curves(runs, called),
        class_colours=figures.CLASS_COLOURS,
        sections=[section(run, name, index) for index, (run, name) in enumerate(zip(runs, called, strict=True))],
        environments=_environments(runs, called),
    )


def _title(runs: Sequence[Run]) -> str:
    """What the page shows; it says "learned" only where an alignment was measured."""
    count = sum(run.has_transformer for run in runs)
    things = "Images" if all(run.photos for run in runs) else "Digits"
    if not count:
        return f"{things} without a spatial transformer"
    transformer = "spatial transformer" if count == 1 else "spatial transformers"
    if any(words.learned(run) for run in runs):
        return f"What the {transformer} learned"
    return f"{things} through {'a ' if count == 1 else ''}{transformer}"


def _tiles(runs: Sequence[Run], called: Sequence[str]) -> list[dict[str, object]]:
    """One tile for each run: its error as a figure and as a bar, and the rotation that is left."""
    worst = max((run.evaluation["error"] for run in runs if run.evaluation), default=0)
    return [
        {
            "name": name,
            "data": run.data,
            "anchor": f"run-{index + 1}",
            "colour": figures.style(index)[0],
            "error": words.percent(run.evaluation["error"]) if run.evaluation else None,
            "share": round(100 * run.evaluation["error"] / worst, 1) if run.evaluation and worst else 0,
            "rotation": words.change(pose, "°") if (pose := run.pose("rotation_deg")) else None,
        }
        for index, (run, name) in enumerate(zip(runs, called, strict=True))
    ]


def _table(runs: Sequence[Run], called: Sequence[str]) -> dict[str, object]:
    """Headings and rows, without the columns in which no run has anything."""
    rows = words.rows(runs, called)
    kept = [column for column in range(len(words.HEADINGS)) if not all(row[column].empty for row in rows)]
    headings = [words.HEADINGS[column] for column in kept]
    return {"headings": headings, "rows": [[row[column] for column in kept] for row in rows]}


def _environments(runs: Sequence[Run], called: Sequence[str]) -> list[dict[str, object]]:
    """The environment of every run, runs with equal ones together; the starting time stands with the settings."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run, name in zip(runs, called, strict=True):
        facts = {key: str(value) for key, value in run.environment.items() if value is not None and key != "started"}
        groups.setdefault(tuple(facts.items()), []).append(name)
    return [{"runs": ", ".join(members), "facts": facts} for facts, members in groups.items()]
