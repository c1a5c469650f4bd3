"""What a person sees while a run trains: a progress bar on a terminal, a line now and then elsewhere."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

out = Console()
err = Console(stderr=True)


def say(line: str) -> None:
    """One line for the person, on stderr; stdout is for results."""
    err.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def watching(label: str, done: Callable[[Mapping[str, Any]], float]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A watcher of metrics rows; ``done(row)`` is the share of the run that is over, 0 to 1."""
    shown: dict[str, Any] = {"loss": "", "error": "", "rate": ""}

    def note(row: Mapping[str, Any]) -> None:
        if "loss" in row:
            shown["loss"] = f"loss {row['loss']:.3f}"
            shown["rate"] = f"{row['images_per_second']:,} images/s"
        if "test_error" in row:
            shown["error"] = f"error {row['test_error']:.1f} %"
        if "warning" in row:
            say(f"{label}: {row['warning']}")

    if not sys.stderr.isatty():

        def lines(row: Mapping[str, Any]) -> None:
            note(row)
            if "test_error" in row:
                parts = [f"step {row['step']}", f"{row['seconds']:.0f} s", shown["error"], shown["loss"], shown["rate"]]
                say(f"{label}: " + ", ".join(part for part in parts if part))

        yield lines
        return

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    ]
    fields = [TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[error]}"), TextColumn("{task.fields[rate]}")]
    with Progress(*columns, *fields, console=err) as progress:
        task = progress.add_task(label, total=1.0, **shown)

        def bar(row: Mapping[str, Any]) -> None:
            note(row)
            progress.update(task, completed=done(row), **shown)

        yield bar
