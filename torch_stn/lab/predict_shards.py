"""`stn predict` over tar shards, in several processes: one CSV file a shard, each image in it once.

A shard is a job. Whoever claims it reads it from front to back, writes FOLDER/SHARD.csv under another name and renames
it at the end, so that a file of that name is whole, whatever is killed and when. A restarted command does what is
missing; a second one on the same folder takes other shards. The rename alone keeps rows from being lost or doubled; the
claim only saves work from being done twice, which matters where a file system's locks do not reach other machines.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from torch_stn.lab.claims import CAN_LOCK, claimed, release, written_whole
from torch_stn.lab.config import Config
from torch_stn.lab.console import say
from torch_stn.lab.data.decode import NotAnImageError, hostile_files
from torch_stn.lab.data.facts import Facts
from torch_stn.lab.data.listing import Skipped, shown
from torch_stn.lab.data.places import reason, size_and_time
from torch_stn.lab.data.shards import ENDINGS, is_shards, shards_at
from torch_stn.lab.data.tar_samples import NotAShardError, read_samples
from torch_stn.lab.errors import UserError
from torch_stn.lab.predict import BATCH, decoder, look, network, plain
from torch_stn.lab.report.files import write_whole

HEADER = ("file", "class", "probability", "skipped")
SAME = 2.0  # seconds: how exactly every file system keeps a file's time
MOST_WORKERS = 256


class Outcome(NamedTuple):
    """What became of the shards, by their names."""

    done: list[str]
    were_there: list[str]
    left: list[str]  # unreadable, or another process has them


@dataclass(frozen=True)
class Job:
    """What a worker must know."""

    network: str
    shards: tuple[Path, ...]
    out: Path
    device: str
    threads: int


def shards_among(paths: Sequence[str], out: Path | None, crops: Path | None, workers: int) -> list[Path]:
    """The shards that the words of a call name; none where they name images.

    Raises: UserError where they name both, or options that do not fit.
    """
    named = [is_shards(path) for path in paths]
    if not any(named):
        if workers != 1:
            raise UserError(f"--workers: wanted tar shards to share out, got {shown(paths[0])}")
        return []
    if not all(named):
        other = paths[named.index(False)]
        raise UserError(f"PATH: wanted shards alone or images alone, got shards and {shown(other)}")
    if out is None or out.suffix.lower() in (".csv", ".json"):
        raise UserError(f"--out: wanted a folder for one CSV file a shard, got {'none' if out is None else out}")
    if crops is not None:
        raise UserError("--crops: wanted none with shards")
    if not 1 <= workers <= (MOST_WORKERS if CAN_LOCK else 1):
        raise UserError(f"--workers: wanted 1 to {MOST_WORKERS if CAN_LOCK else 1}, got {workers}")
    shards = [shard for path in paths for shard in shards_at(path, "PATH")]
    for stem, count in Counter(map(_stem, shards)).items():
        if count > 1:
            raise UserError(f"PATH: {count} shards would be written to {shown(stem)}.csv; wanted each name once")
    return shards


def predict_shards(
    name: str,
    shards: Sequence[Path],
    out: Path,
    *,
    workers: int = 1,
    device: torch.device | str = "cpu",
    notice: Callable[[str], None] = say,
) -> Outcome:
    """Classify the images of shards into OUT/SHARD.csv, ``workers`` shards at once; what is there is left as it is.

    A line for each image, in the order of the shard: file (SHARD/KEY.jpg), class, probability; or file and why it was
    skipped. A CSV file carries the time of its shard, and one of another time is made again.
    Raises: UserError where the folder holds the predictions of another network; see :func:`~.predict.network` too.
    """
    model, config, facts = network(name, device)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out: wanted a folder for one CSV file a shard, got {out}") from None
    _refuse_other(out, model, config, facts)
    there = {shard for shard in shards if _finished(out, shard)}
    for shard in there:
        release(_csv(out, shard))
    threads = max(1, torch.get_num_threads() // workers)
    left = [shard for shard in shards if shard not in there]
    killed = ""
    while left:
        job = Job(name, tuple(left), out, str(device), threads)
        if workers == 1:
            _passes(job, model, config, facts, notice)
        else:
            killed = _in_processes(job, min(workers, len(left)))
        before, left = len(left), [shard for shard in left if not _finished(out, shard)]
        # What a killed worker had begun goes to another, but a shard that kills whoever reads it does not go round.
        if not killed or len(left) == before:
            break
    if killed and left:
        notice(f"{killed}; the same command does what is left")
    done = [shard.name for shard in shards if shard not in there and shard not in left]
    return Outcome(done, [shard.name for shard in shards if shard in there], [shard.name for shard in left])


def _in_processes(job: Job, count: int) -> str:
    """Workers until none of them finds work; what was amiss with one of them, or ""."""
    # Not forked: a child of a process whose OpenMP threads run may hang.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(job,), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
    ends = [process.exitcode for process in processes if process.exitcode]
    return f"a worker ended with code {ends[0]}" if ends else ""


def work(job: Job) -> None:
    """One worker, from its start to where no shard is left to claim."""
    torch.set_num_threads(job.threads)
    try:
        _passes(job, *network(job.network, job.device), say)
    except KeyboardInterrupt:
        sys.exit(1)
    except UserError as error:
        say(f"worker: {error}")
        sys.exit(1)
    except OSError as error:  # of the folder, a full disk
        say(f"worker: {job.out}: {error.strerror or error}")
        sys.exit(1)


def _passes(job: Job, model: nn.Module, config: Config, facts: Facts, notice: Callable[[str], None]) -> None:
    """Go over the shards until a pass finds nothing: what another was killed over may be free by then."""
    seen: set[Path] = set()  # unreadable, or done here, whatever a server says of its time by now
    working = True
    while working:
        working = False
        for shard in job.shards:
            if shard in seen or _orphaned():
                continue
            with claimed(_csv(job.out, shard), lambda shard=shard: _finished(job.out, shard)) as mine:  # type: ignore[misc]
                if not mine:
                    continue
                working = True
                seen.add(shard)
                try:
                    _predict_shard(shard, job, model, config, facts, notice)
                except NotAShardError as error:
                    notice(f"{shown(str(shard))}: {error}; left out")


def _predict_shard(
    shard: Path, job: Job, model: nn.Module, config: Config, facts: Facts, notice: Callable[[str], None]
) -> None:
    """One shard into its CSV file."""
    began = time.perf_counter()
    try:
        _, changed = size_and_time(shard)
    except OSError as error:
        raise NotAShardError(reason(error)) from None
    read = decoder(config, facts)
    counts: Counter[bool] = Counter()
    with written_whole(_csv(job.out, shard)) as file, closing(_images(shard, read)) as images:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        with hostile_files(), torch.inference_mode():
            while batch := list(islice(images, BATCH)):
                if _orphaned():
                    sys.exit(1)
                for row in _rows(batch, model, facts, job.device):
                    counts[bool(row[3])] += 1
                    table.writerow(row)
                    if row[3]:
                        notice(f"skipped {shown(row[0])}: {row[3]}")
        _take_time(file, changed)
    passed = f", {counts[True]:,} skipped" if counts[True] else ""
    notice(f"{shown(shard.name)}: {counts[False]:,} images{passed}, {time.perf_counter() - began:.1f} s")


def _images(shard: Path, read: Callable[[Any], tuple[Any, Any]]) -> Generator[tuple[str, Any], None, None]:
    """Names with their pixels, or with why there are none; a fault of reading is one of the shard."""
    try:
        for each in read_samples(shard):
            if isinstance(each, Skipped):
                yield each.name, each
                continue
            try:
                yield each.name, read(BytesIO(each.data))[0]
            except NotAnImageError as error:
                yield each.name, Skipped(each.name, str(error))
    except OSError as error:
        raise NotAShardError(reason(error)) from None


def _rows(batch: Sequence[tuple[str, Any]], model: nn.Module, facts: Facts, device: str) -> list[tuple[str, ...]]:
    """The lines of the CSV file for a batch."""
    good = [pixels for _, pixels in batch if not isinstance(pixels, Skipped)]
    found: Iterator[list[float]] = iter(())
    if good:
        x = torch.from_numpy(np.stack(good)).to(device)
        found = iter(look(model, x.permute(0, 3, 1, 2).float() / 255)[0].tolist())
    rows: list[tuple[str, ...]] = []
    for name, pixels in batch:
        if isinstance(pixels, Skipped):
            rows.append((plain(name), "", "", pixels.reason))
            continue
        row = next(found)
        best = max(range(len(row)), key=row.__getitem__)
        rows.append((plain(name), plain(facts.classes[best]), f"{row[best]:.6f}", ""))
    return rows


def _refuse_other(out: Path, model: nn.Module, config: Config, facts: Facts) -> None:
    """A folder holds the predictions of one network, which predictions.json names by what it is made of."""
    digest = hashlib.sha256(json.dumps([config.size, config.grey, facts.classes]).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    path, mark = out / "predictions.json", {"format": 1, "network": digest.hexdigest()}
    with claimed(path, path.exists, wait=True) as mine:
        if mine:
            write_whole(path, json.dumps(mark).encode())
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if found != mark:
        raise UserError(f"--out: {out} holds the predictions of another network; wanted another folder")


def _csv(out: Path, shard: Path) -> Path:
    return out / f"{_stem(shard)}.csv"


def _stem(shard: Path) -> str:
    """The shard's name without its ending."""
    ending = next(each for each in sorted(ENDINGS, key=len, reverse=True) if shard.name.lower().endswith(each))
    return shard.name[: -len(ending)]


def _finished(out: Path, shard: Path) -> bool:
    """Whether a shard has its CSV file, of that shard and not of one of its name."""
    try:
        return abs(_csv(out, shard).stat().st_mtime - size_and_time(shard)[1] / 1e9) <= SAME
    except OSError:
        return False


def _take_time(file: IO[str], changed: int) -> None:
    """Give the CSV file its shard's time, before it has its name."""
    file.flush()
    os.utime(file.name, ns=(changed, changed))


def _orphaned() -> bool:
    """Whether the command that started this worker is gone: then nobody waits for it."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()
