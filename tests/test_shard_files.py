"""What is read of WebDataset shards, hostile ones and damaged ones among them, and which shards a path names."""

from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path

import pytest
from shard_folder import add, pictures, png, shard_folder, write_shard

from torch_stn.lab.data.listing import Skipped
from torch_stn.lab.data.shards import expand, is_shards, split_shards
from torch_stn.lab.data.tar_samples import NotAShardError, Sample, parse_label, read_samples
from torch_stn.lab.errors import UserError


def faults(path: Path) -> dict[str, str]:
    return {
        each.name: each.reason or getattr(each, "fault", "") for each in read_samples(path) if isinstance(each, Skipped)
    }


def samples(path: Path) -> dict[str, Sample]:
    return {each.name: each for each in read_samples(path) if isinstance(each, Sample)}


def test_a_sample_is_the_members_of_one_base_name(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [
        ("one.jpg", png("red", 0)), ("one.cls", b"7"), ("one.json", b'{"label": "no"}'), ("one.seg.png", b"masks"),
        ("deep.er/two.PNG", png("red", 1)), ("deep.er/two.json", b'{"label": "grebe"}'),
        ("three.png", png("blue", 2)), ("._four.png", b"of a Mac"), ("README", b"text"), ("five.txt", b"text"),
    ])  # fmt: skip
    found = samples(shard)
    assert {name: (each.label, each.fault) for name, each in found.items()} == {
        "a.tar/one.jpg": ("7", ""), "a.tar/deep.er/two.PNG": ("grebe", ""), "a.tar/three.png": ("", "no class"),
    }  # fmt: skip
    whole = shard.read_bytes()
    for each in found.values():
        assert whole[each.offset : each.offset + len(each.data)] == each.data
    assert faults(shard) == {}


@pytest.mark.parametrize(
    ("data", "ending", "wanted"),
    [
        (b"010", "cls", ("10", "")), (b" a grebe \r\n", "cls", ("a grebe", "")), (b"\n", "cls", ("", "no class")),
        (b"\xff\xfe", "cls", ("", "its .cls is no text")), (b"x" * 300, "cls", ("", "a class name of more than 200 characters")),
        (b"{", "json", ("", "its .json is no JSON")), (b"[" * 100_000, "json", ("", "its .json is no JSON")),
        (b"{}", "json", ("", "no class")), (b'{"cls": 3, "label": 4}', "json", ("3", "")),
        (b'{"label": true}', "json", ("", "its class is neither a name nor a number")), (b"[1]", "json", ("", "its class is neither a name nor a number")),
        (b'{"label": "\\ud800"}', "json", ("?", "")),
    ],
)  # fmt: skip
def test_a_class_is_a_number_or_a_name(data: bytes, ending: str, wanted: tuple[str, str]) -> None:
    assert parse_label(data, ending) == wanted


class _Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def test_hostile_members_are_named_and_never_followed_or_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.png").write_bytes(png("red", 9))
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "one.png", png("red", 0))
        for ending in ("pyd", "pickle", "pth"):
            add(tar, f"one.{ending}", pickle.dumps(_Malice()))
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret.png")
            tar.addfile(member)
        add(tar, "../../out.png", png("blue", 1))
        add(tar, "one.png", png("blue", 2))
        add(tar, "two.png", png("blue", 3))
        add(tar, "two.jpg", png("blue", 4))
        add(tar, "three.cls", b"red")
    before = sorted(os.listdir(tmp_path))
    assert list(samples(tmp_path / "a.tar")) == ["a.tar/one.png", "a.tar/../../out.png", "a.tar/two.png"]
    assert faults(tmp_path / "a.tar") == {
        **{f"a.tar/{name}.png": "a link, or no regular file" for name in ("soft", "hard", "pipe")},
        "a.tar/one.png": "its key was there before, apart from here",
        "a.tar/two.jpg": "a second image of its key",
        "a.tar/three": "a class without an image",
    }
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("where", ["in the data", "in a header", "between", "at a header"])
def test_a_shard_that_is_cut_short_gives_what_is_whole(tmp_path: Path, where: str) -> None:
    shard = write_shard(tmp_path / "a.tar", pictures(4))
    last = list(samples(shard).values())[-1]
    end = {"in the data": last.offset + 100, "in a header": last.offset - 200, "between": last.offset - 512}
    cut = tmp_path / "cut.tar"
    if where == "at a header":
        damaged = bytearray(shard.read_bytes())
        damaged[last.offset - 400] ^= 0x55
        cut.write_bytes(damaged)
    else:
        cut.write_bytes(shard.read_bytes()[: end[where]])
    assert list(samples(cut)) == [f"cut.tar/{number:04d}.png" for number in range(3)]
    found = faults(cut)
    assert found.pop("cut.tar").startswith("cut short or damaged after 0003: ")
    assert found in ({}, {"cut.tar/0003": "a class without an image"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"no tar at all" * 100, "no tar"), (b"\x1f\x8b" + b"x" * 50, "compressed|no tar|invalid")],
)
def test_no_shard_at_all_has_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(NotAShardError, match=reason):
        list(read_samples(tmp_path / "a.tar"))


def test_braces_are_those_of_a_shell() -> None:
    assert expand("a.tar") == ["a.tar"]
    assert expand("{8..10}") == ["8", "9", "10"]
    assert expand("{2..0}") == ["2", "1", "0"]
    assert expand("{x,y{1,2}}-{00..01}") == [f"{a}-0{b}" for a in ("x", "y1", "y2") for b in range(2)]
    assert expand("a{b}c") == ["a{b}c"]
    for many in ("{0..999999}", "{0..9999}{0..9999}"):
        with pytest.raises(UserError, match="stands for more than 100,000"):
            expand(many)


def test_what_is_for_validation(tmp_path: Path) -> None:
    shard_folder(tmp_path / "s", 10, 1)

    def parts(path: Path | str, share: float = 0.2) -> list[list[str]]:
        return [[each.stem for each in part] for part in split_shards(str(path), share)]

    numbers = [f"train-{number}" for number in range(10)]
    assert is_shards(str(tmp_path / "s"))
    assert parts(tmp_path / "s") == [numbers[:8], numbers[8:]]
    assert parts(tmp_path / "s" / "train-{0..3}.tar") == [numbers[:3], numbers[3:4]]
    write_shard(tmp_path / "s" / "val-0.tar", pictures(1))
    write_shard(tmp_path / "s" / "test-0.tar", pictures(1))
    assert parts(tmp_path / "s") == parts(tmp_path / "s" / "train-{0..9}.tar", 0) == [numbers, ["val-0"]]
    assert parts(tmp_path / "s" / "{train,val}-0.tar") == [["train-0"], ["val-0"]]
    (tmp_path / "s" / "red").mkdir()
    assert not is_shards(str(tmp_path / "s"))  # sub-folders are classes
