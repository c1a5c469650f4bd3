"""`stn reproduce`: train what is missing of a table, cell after cell, as long as the budget lasts."""

import dataclasses
import importlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch_stn.lab.claims import claimed
from torch_stn.lab.config import Config
from torch_stn.lab.errors import UserError
from torch_stn.lab.jobs import Job
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import prepare, start, train_and_evaluate
from torch_stn.lab.train import Interrupted

FORMAT = 1  # of a result


@dataclass
class Outcome:
    """What became of the jobs."""

    done: list[Job] = field(default_factory=list)
    were_there: list[Job] = field(default_factory=list)
    elsewhere: list[Job] = field(default_factory=list)  # another process is at them, or was
    failed: list[Job] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)


def reproduce(
    jobs: Sequence[Job], runs: Path, results: Path, say: Callable[[str], None], seconds: float = math.inf
) -> Outcome:
    """Do the jobs that have no file in ``results`` yet; each finished one is written at once.

    After ``seconds`` the running cell is saved where it stands, and the next call goes on with it. A cell that fails is
    told and left, the others go on. A cell that another process of this machine is at is left to it.
    Raises: UserError before anything is trained, where a run to go on with was begun with another config; Interrupted
    after Ctrl-C.
    """
    deadline = time.monotonic() + seconds
    outcome = Outcome()
    todo = []
    for job in jobs:
        if job.result(results).exists():
            outcome.were_there.append(job)
        else:
            refuse_other_config(runs / job.table.name / job.name, job.config)
            todo.append(job)
    if outcome.were_there:
        say(f"{len(outcome.were_there)} of {len(jobs)} are in {results / jobs[0].table.name} already")
    for number, job in enumerate(todo):
        if time.monotonic() >= deadline:
            outcome.left += todo[number:]
            break
        run, path = runs / job.table.name / job.name, job.result(results)
        run.parent.mkdir(parents=True, exist_ok=True)
        try:
            with claimed(run, path.exists) as mine:
                if not mine:
                    say(f"{job.name}: another process is at it")
                    outcome.elsewhere.append(job)
                    continue
                say(f"{job.name}: {number + 1} of {len(todo)}")
                record = _run(job, run, deadline)
                write_whole(path, (json.dumps(record, indent=1) + "\n").encode())
        except Interrupted as stopped:
            if time.monotonic() < deadline:
                raise
            say(f"{job.name}: the budget is used up; stopped at step {stopped.step}")
            outcome.left += todo[number:]
            break
        except UserError as error:
            say(f"{job.name}: {error}")
            outcome.failed.append(job)
            continue
        outcome.done.append(job)
        beside = "" if job.cell.paper is None else f", paper {job.cell.paper:g}"
        say(f"{job.name}: {job.table.unit} {job.table.number(record['evaluation']):.2f}{beside} -> {path}")
    return outcome


def refuse_other_config(run: Path, config: Config) -> None:
    """A run that was begun goes on with its own config, so that must be the one wanted now."""
    if not (run / "config.json").exists():
        return
    begun, wanted = (dataclasses.asdict(each) for each in (RunFolder.open(run).config(), config))
    for key, value in wanted.items():
        if begun[key] != value and not (key == "digits" and value == "auto"):
            raise UserError(f"{run}: was begun with {key}={begun[key]}, wanted {key}={value}; delete it to begin again")


def _run(job: Job, path: Path, deadline: float) -> dict[str, Any]:
    """Train and evaluate one job from wherever it stands; the record of it."""
    if job.table.run:
        module, _, function = job.table.run.rpartition(".")
        return result(job, getattr(importlib.import_module(module), function)(job.config, path, deadline))
    fabric, config, source = prepare(job.config)
    begun = (path / "config.json").exists()
    folder = RunFolder.open(path) if begun else start(config, path, fabric, source)
    train_and_evaluate(folder, source, fabric, deadline)
    return result(job, folder)


def result(job: Job, folder: RunFolder) -> dict[str, Any]:
    """What a file of results holds of a run that is evaluated."""
    parts: Mapping[str, Any] = {
        part: folder.read_json(f"{part}.json", missing=f"has no {part}.json")
        for part in ("config", "environment", "evaluation")
    }
    return {
        "format": FORMAT,
        "command": job.command,
        "table": job.table.name,
        "cell": job.cell.name,
        "seed": job.seed,
        "recipe": job.recipe,
        "overrides": list(job.words),
        **parts,
        "curve": [
            {key: row[key] for key in ("step", "seconds", "test_error")}
            for row in folder.metrics()
            if "test_error" in row
        ],
    }
