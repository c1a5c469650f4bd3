"""Which tar shards a path or URL names, and which of them are for validation; no shard is opened here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch_stn.lab.data.listing import VALIDATION, shown
from torch_stn.lab.data.places import children, is_there, is_url, opened, place, reason
from torch_stn.lab.errors import UserError

ENDINGS = (".tar", ".tar.gz", ".tgz")  # the last two for predictions alone
MOST = 100_000
REQUESTS = 16  # at once
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_shards(path: str) -> bool:
    """Whether a path names shards: a URL, what ends as a tar does, or a folder with tars in it and no sub-folder (a
    class).

    >>> is_shards("shards/train-{000..009}.tar"), is_shards("photos")
    (True, False)
    """
    if is_url(path) or (path.lower().endswith(ENDINGS) and not place(path).is_dir()):
        return True
    folder = place(path)
    if not path or not folder.is_dir():
        return False
    return bool(_tars(folder)) and not any(each.is_dir() and each.name[0] != "." for each in folder.iterdir())


def expand(pattern: str) -> list[str]:
    """The names that braces stand for, as a shell makes them: ranges with leading zeros, lists, several of either.

    >>> expand("{a,b}/train-{08..10}.tar")
    ['a/train-08.tar', 'a/train-09.tar', 'a/train-10.tar', 'b/train-08.tar', 'b/train-09.tar', 'b/train-10.tar']

    Raises: UserError where they stand for more than 100,000.
    """
    done, todo = [], [pattern]
    while todo:
        text = todo.pop()
        found = next((each for each in BRACES.finditer(text) if "," in each[1] or RANGE.fullmatch(each[1])), None)
        if found is None:
            done.append(text)
        else:
            before, after = text[: found.start()], text[found.end() :]
            todo += [f"{before}{each}{after}" for each in reversed(_alternatives(found[1]))]
        if len(done) + len(todo) > MOST:
            raise UserError(f"{shown(pattern)}: stands for more than {MOST:,} shards")
    return list(dict.fromkeys(done))  # braces in braces are opened from within, and give some names twice


def shards_at(path: str, argument: str = "data") -> list[Path]:
    """The shards that a path, a pattern with braces, a folder or URLs name.

    Raises: UserError that begins with the ``argument`` where one is not there.
    """
    if is_url(path):
        return _remote(path, argument)
    whole = place(path)
    if whole.is_dir():
        return _tars(whole)
    names = [whole] if whole.exists() else [place(each) for each in expand(path)]
    missing = [each for each in names if not each.is_file()]
    _refuse(missing, argument)
    return names


def _remote(path: str, argument: str) -> list[Path]:
    """Those of a URL; a bucket's folder too."""
    try:
        if not path.lower().endswith(ENDINGS):
            found = _tars(place(path))
            if not found:
                raise UserError(
                    f"{argument}: no shard in {shown(path)}; wanted names that end in .tar, or a bucket's folder"
                )
            return found
        names = [place(each) for each in expand(path)]
        with ThreadPoolExecutor(REQUESTS) as pool:
            there = list(pool.map(is_there, names))
    except OSError as error:
        raise UserError(f"{argument}: {shown(path)}: {reason(error)}") from None
    _refuse([each for each, found in zip(names, there, strict=True) if not found], argument)
    return names


def _refuse(missing: Sequence[Path], argument: str) -> None:
    if missing:
        rest = f", and {len(missing) - 1:,} more are missing" if len(missing) > 1 else ""
        raise UserError(f"{argument}: no shard {shown(str(missing[0]))}{rest}")


def split_shards(path: str, share: float) -> tuple[list[Path], list[Path]]:
    """Shards to train on and shards to validate on.

    Those called val-*.tar are for validation; where none is named, those beside the first; where there are none, the
    last ones, a ``share`` of all and at least one. Shards called test-*.tar are left alone.
    Raises: UserError where one of the two would be empty.
    """
    named = [each for each in shards_at(path) if not _called(each, ("test",))]
    held = [each for each in named if _called(each, VALIDATION)]
    train = [each for each in named if not _called(each, VALIDATION)]
    if not train:
        raise UserError(f"data: no shard to train on at {shown(path)}; wanted others than val-*.tar and test-*.tar")
    if not held:
        held = _beside(train[0])
    if not held:
        count = max(1, math.ceil(share * len(train))) if share else 0
        if count == 0 or len(train) <= count:
            raise UserError(
                f"validation: no shard is left to validate on; wanted val-*.tar beside {shown(train[0].name)}, "
                f"or two shards or more and a share above 0, got {len(train)} and {share:g}"
            )
        train, held = train[:-count], train[-count:]
    return train, held


def _beside(shard: Path) -> list[Path]:
    try:
        return [each for each in _tars(shard.parent) if _called(each, VALIDATION)]
    except OSError as error:
        raise UserError(f"{shown(str(shard.parent))}: {reason(error)}") from None


def class_names(shard: Path) -> tuple[str, ...] | None:
    """The names in classes.txt beside a shard, one a line, the first that of class 0; None where there is no such file.

    Raises: UserError where it is no text, holds fewer than two names, or one twice.
    """
    path = shard.parent / "classes.txt"
    try:
        if not is_there(path):
            return None
        with opened(path) as file:
            text = file.read().decode("utf-8-sig")
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(str(path))}: cannot be read as class names: {error}") from None
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{shown(str(path))}: wanted at least two class names, each once, got {len(names)}")
    return names


def _alternatives(inside: str) -> Sequence[str]:
    """What stands between two braces."""
    matched = RANGE.fullmatch(inside)
    if matched is None:
        return inside.split(",")
    first, last = int(matched[1]), int(matched[2])
    if abs(last - first) >= MOST:
        raise UserError(f"{{{inside}}}: stands for more than {MOST:,} shards")
    width = max(map(len, matched.groups())) if any(each[0] == "0" and len(each) > 1 for each in matched.groups()) else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _tars(folder: Path) -> list[Path]:
    """The plain tars of a folder, by name; of a server of web pages, none."""
    named = [each for each in children(folder) if each.name[:1] not in ("", ".") and each.suffix == ".tar"]
    return [each for each in named if is_url(each) or each.is_file()]


def _called(shard: Path, words: Sequence[str]) -> bool:
    """Whether a shard's name begins with one of the words, and no letter follows."""
    head = re.match(r"[a-z]*", shard.name.lower())
    return head is not None and head[0] in words
