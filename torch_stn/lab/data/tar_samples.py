"""The samples of one WebDataset shard: a tar whose members share a base name, KEY.jpg beside KEY.cls or KEY.json.

Read once from front to back, nothing is written to disk, no link is followed and nothing is unpickled: members of other
endings (.pyd, .pickle, .pth, ...) are passed over unread.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from torch_stn.lab.data.listing import ENDINGS, Skipped
from torch_stn.lab.data.places import opened

MOST_BYTES = 100_000_000  # of an image
MOST_LABEL_BYTES = 1_000_000  # of a .cls or .json member
LONGEST = 200  # characters of a class
JSON_FIELDS = ("cls", "label", "class")
# The format's own rule: the key goes up to the first dot behind the last slash.
NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]*)", re.DOTALL)


class NotAShardError(Exception):
    """A file that cannot be read as a tar at all; the message is the reason, a few words."""


class Sample(NamedTuple):
    """One image of a shard."""

    name: str  # SHARD/KEY.jpg
    data: bytes  # of the image file
    offset: int  # where they begin in the tar
    label: str  # "" where no member says it
    fault: str  # why there is no label


class _Header(tarfile.TarInfo):
    """A member's header; tarfile takes one that is cut or damaged for the end of the archive, here it is an error."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            found = super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise  # the zeros that end a whole archive
            missing = isinstance(error, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]
            raise tarfile.ReadError("no end mark" if missing else str(error)) from None
        if found.size < 0:
            raise tarfile.ReadError("a member of negative size")
        return found


@dataclass
class _Group:
    """The members that share a key, so far."""

    key: str
    image: tuple[str, bytes, int] | None = None
    label: str = ""
    fault: str = "no class"
    labelled: bool = False
    again: bool = False  # the key was there before: passed over

    def sample(self, shard: str) -> Iterator[Sample | Skipped]:
        if self.image is not None:
            name, data, offset = self.image
            yield Sample(f"{shard}/{name}", data, offset, self.label, "" if self.label else self.fault)
        elif self.labelled:
            yield Skipped(f"{shard}/{self.key}", "a class without an image")


def read_samples(
    file: Path,
    *,
    compressed: bool = True,
) -> Iterator[Sample | Skipped]:
    """The images of a shard in the order of its members, each with its class; what is amiss comes as a Skipped.

    Args: compressed, whether a tar inside gzip, bzip2 or xz will do: nothing in it can be found again by offset.
    A class is the text of KEY.cls, else ``cls``, ``label`` or ``class`` of KEY.json; of a number without leading zeros.
    Where the tar is cut short or damaged, all that came before is given, then a Skipped with the shard's own name.
    Raises: NotAShardError where the file is no tar; OSError where it cannot be read.
    """
    with opened(file) as stream:
        yield from _samples(file, stream, compressed)


def _samples(file: Path, stream: IO[bytes], compressed: bool) -> Iterator[Sample | Skipped]:
    shard = file.name
    try:
        tar = tarfile.open(fileobj=stream, mode="r|*" if compressed else "r|", tarinfo=_Header)  # noqa: SIM115 (closed below)
    except tarfile.TarError as error:
        raise NotAShardError(_why_no_tar(file, error)) from None
    except EOFError:
        raise NotAShardError("compressed and cut short") from None
    group, seen = _Group(""), set[str]()
    with tar:
        try:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else each header of the shard is remembered
                matched = NAME.fullmatch(member.name)
                if not member.isreg() or member.issparse():
                    if not member.isdir():
                        yield Skipped(f"{shard}/{member.name}", "a link, or no regular file")
                    continue
                if matched is None:
                    continue
                key, ending = matched[1], matched[2].lower()
                if key != group.key:
                    yield from group.sample(shard)
                    group = _Group(key, again=key in seen)
                    seen.add(key)
                    if group.again:
                        yield Skipped(f"{shard}/{member.name}", "its key was there before, apart from here")
                if not group.again:
                    yield from _take(tar, member, ending, group, shard)
        # Whatever a damaged archive makes the standard library do.
        except (tarfile.TarError, EOFError, ValueError, ArithmeticError) as error:
            yield from group.sample(shard)
            after = f" after {group.key}" if group.key else ""
            yield Skipped(shard, f"cut short or damaged{after}: {_line(error)}")
        else:
            yield from group.sample(shard)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str, group: _Group, shard: str) -> Iterator[Skipped]:
    """Put a member into its group."""
    if f".{ending}" in ENDINGS:
        if group.image is not None or member.size > MOST_BYTES:
            reason = "a second image of its key" if group.image else f"more than {MOST_BYTES // 10**6} MB"
            yield Skipped(f"{shard}/{member.name}", reason)
        else:
            group.image = (member.name, _bytes(tar, member), member.offset_data)
    elif ending in ("cls", "json") and member.size <= MOST_LABEL_BYTES:
        if ending == "json" and group.label:
            return
        label, fault = parse_label(_bytes(tar, member), ending)
        group.labelled |= ending == "cls" or bool(label)
        if label or not group.label:
            group.label, group.fault = label, fault


def parse_label(data: bytes, ending: str) -> tuple[str, str]:
    """The class that a .cls or .json member names, and where it names none, why.

    >>> parse_label(b" 007\\n", "cls"), parse_label(b'{"label": "grebe"}', "json"), parse_label(b"", "cls")
    (('7', ''), ('grebe', ''), ('', 'no class'))
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text) if ending == "json" else text
    except (ValueError, RecursionError):
        return "", f"its .{ending} is no {'JSON' if ending == 'json' else 'text'}"
    if isinstance(value, dict):
        value = next((value[field] for field in JSON_FIELDS if field in value), "")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return "", "its class is neither a name nor a number"
    try:
        # What no file can hold (half a surrogate pair, from JSON) must not come back out of it.
        label = str(value).strip().encode("utf-8", "replace").decode("utf-8")
    except ValueError:  # an integer of thousands of digits
        label = "9" * (LONGEST + 1)
    if len(label) > LONGEST:
        return "", f"a class name of more than {LONGEST} characters"
    if label.isascii() and label.isdigit():
        label = str(int(label))
    return label, "" if label else "no class"


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    part: IO[bytes] | None = tar.extractfile(member)
    assert part is not None  # a regular file
    data = part.read()
    if len(data) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _why_no_tar(file: Path, error: Exception) -> str:
    with opened(file) as again:
        start = again.read(6)
    if not start:
        return "empty"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
        return "compressed; wanted a plain tar, in which an image can be found again"
    return f"no tar: {_line(error)}"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:100]
