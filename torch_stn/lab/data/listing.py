"""Which image files a folder or a CSV file names, and of which class: nothing is opened here but the CSV."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch_stn.lab.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
TRAINING, VALIDATION = ("train", "training"), ("val", "valid", "validation")
LONGEST = 100  # characters of a name on the screen


class Listed(NamedTuple):
    """One image file."""

    file: Path
    name: str  # as a person knows it: below the folder, or as the CSV writes it
    label: str
    part: str  # train | val | "" where nothing says it


class Skipped(NamedTuple):
    """A file that is not used, and why."""

    name: str
    reason: str


class Listing(NamedTuple):
    """The image files, in an order that depends on their names alone; what is left out; classes without a file."""

    files: list[Listed]
    skipped: list[Skipped]
    empty: list[str]
    others: list[str]  # endings of files that are no images by their name, one for each file


def shown(name: str) -> str:
    """A file name as one line of the screen holds it: no control characters, no lone surrogates, not endless."""
    text = os.fsencode(name).decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def list_images(path: str | os.PathLike[str]) -> Listing:
    """The images of a folder with one sub-folder a class, perhaps below train/ and val/, or of a CSV file.

    Raises: UserError where there is no such folder, no sub-folder in it, or a column missing.
    """
    if not str(path):
        raise UserError("data: wanted the path of a folder or a CSV file, as in data=photos; got none")
    path = Path(path).expanduser()
    if path.is_file():
        return _from_csv(path)
    if not path.is_dir():
        raise UserError(f"data: no folder and no CSV file {shown(str(path))}")
    found = Listing([], [], [], [])
    roots = _parts(path)
    classes = [(part, label, root / label) for part, root in roots for label in _folders(root)]
    # A link to another class, or to the folder above, must not give images a class that is not theirs.
    named = {_identity(each) for each in (path, *(root for _, root in roots), *(at for _, _, at in classes))}
    read: set[tuple[int, int]] = set()
    for part, label, at in classes:
        before, bad = len(found.files), len(found.skipped)
        _class(found, path, at, label, part, (named - {_identity(at)}) | read)
        read.add(_identity(at))
        if len(found.files) == before and len(found.skipped) == bad:
            found.empty.append(os.path.join(part, label))
    if not found.files and not found.skipped:
        raise UserError(f"data: no image in a sub-folder of {shown(str(path))}; wanted one sub-folder a class")
    return found


def images_at(paths: list[Path]) -> Iterator[Listed | Skipped]:
    """Image files, and those of folders at any depth, for a prediction: their names are as given."""
    for path in paths:
        if path.is_dir():
            found = Listing([], [], [], [])
            _class(found, path.parent, path, "", "", set())
            yield from (each._replace(name=str(path.parent / each.name)) for each in found.files)
            yield from (each._replace(name=str(path.parent / each.name)) for each in found.skipped)
        else:
            reason = _why_not(path)
            yield Skipped(str(path), reason) if reason else Listed(path, str(path), "", "")


def _parts(path: Path) -> list[tuple[str, Path]]:
    """Where classes lie: below train/ and val/ where both are there, else in the folder itself."""
    names = {name.lower(): name for name in _folders(path)}
    training = next((names[name] for name in TRAINING if name in names), None)
    validation = next((names[name] for name in VALIDATION if name in names), None)
    if training is None or validation is None:
        return [("", path)]
    return [("train", path / training), ("val", path / validation)]


def _folders(path: Path) -> list[str]:
    """Sub-folders by name; hidden ones are none of ours."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder and every link to it have in common."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _class(found: Listing, root: Path, folder: Path, label: str, part: str, seen: set[tuple[int, int]]) -> None:
    """A folder's images, at any depth; links are followed, and a folder that was seen is not entered again."""
    todo: list[Path] = [folder]
    while todo:
        at = todo.pop()
        try:
            identity = _identity(at)
            entries = sorted(os.scandir(at), key=lambda entry: entry.name)
        except OSError as error:
            found.skipped.append(Skipped(os.path.relpath(at, root), error.strerror or "cannot be read"))
            continue
        if identity in seen:
            found.skipped.append(Skipped(os.path.relpath(at, root), "a link to a folder that was read already"))
            continue
        seen.add(identity)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            file = at / entry.name
            name = os.path.relpath(file, root)
            if _is_folder(entry):
                todo.append(file)
            elif not entry.name.lower().endswith(ENDINGS):
                found.others.append(os.path.splitext(entry.name)[1].lower() or "no ending")
            elif reason := _why_not(file):
                found.skipped.append(Skipped(name, reason))
            else:
                found.files.append(Listed(file, name, label, part))


def _why_not(file: Path) -> str | None:
    """Why a path cannot be opened as a file; a pipe or device is never opened, which could wait for ever."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        return (error.strerror or "cannot be read").lower()
    return None if stat.S_ISREG(mode) else "no regular file"


def _from_csv(path: Path) -> Listing:
    """Columns file and label, perhaps split (train or val); files are relative to the CSV file's folder."""
    found = Listing([], [], [], [])
    seen: set[Path] = set()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(str(path))}: cannot be read as a CSV file: {error}") from None
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
        for wanted in ("file", "label"):
            if wanted not in columns:
                had = shown(", ".join(columns)) or "none"
                raise UserError(f"{shown(str(path))}: no column {wanted!r}; wanted file,label, got {had}")
        for row in rows:
            _csv_row(found, path, {key: (row.get(name) or "").strip() for key, name in columns.items()}, seen)
    except csv.Error as error:
        raise UserError(f"{shown(str(path))}: line {rows.line_num} is no CSV: {error}") from None
    return found


def _csv_row(found: Listing, path: Path, row: dict[str, str], seen: set[Path]) -> None:
    """One line of the CSV file: into the files, or with its reason into the skipped."""
    name, label, part = row["file"], row["label"], row.get("split", "").lower()
    file = path.parent / name
    reason = None
    if not name or not label:
        reason = "no file" if not name else "no label"
    elif "\0" in name or file in seen:
        reason = "listed twice" if file in seen else "no file name"
    elif part and part not in TRAINING + VALIDATION:
        reason = f"split {shown(part)}: neither train nor val"
    else:
        seen.add(file)
        reason = _why_not(file)
    if reason:
        found.skipped.append(Skipped(name or "a line without a file", reason))
    else:
        found.files.append(Listed(file, name, label, "train" if part in TRAINING else "val" if part else ""))
