"""Training from WebDataset shards: what is read of them, and batches that are those of images in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from command_line import complaint, stn
from photo_folder import COLOURS, WORDS, folder_config, photo_folder
from shard_folder import pictures, png, shard_folder, write_shard

from torch_stn.lab.data.load import data_set, load
from torch_stn.lab.data.photo_set import PhotoSet, facts_of
from torch_stn.lab.data.photos import Photos, load_photos
from torch_stn.lab.data.shard_index import load_shards
from torch_stn.lab.data.streamed_set import StreamedSet
from torch_stn.lab.errors import UserError
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import start
from torch_stn.lab.train import train


def read(path: Path | str, *words: str, run: Path | None = None) -> tuple[Photos, list[str]]:
    said: list[str] = []
    return load_shards(folder_config(Path(path), *words), said.append, run), said


def streamed(path: Path, *words: str) -> StreamedSet:
    photos, _ = read(path, *words)
    found = data_set(photos, folder_config(path, *words))
    assert isinstance(found, StreamedSet)
    return found


def test_mistakes_of_the_call_are_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shard_folder(tmp_path / "s", 2)
    call = ("train", "folder", *WORDS)
    assert complaint(*call, "data=s/train-{0..4}.tar") == "data: no shard s/train-2.tar, and 2 more are missing"
    assert complaint(*call, "data=none.tar") == "data: no shard none.tar"
    assert complaint(*call, "data=s/train-0.tar").startswith(
        "validation: no shard is left to validate on; wanted val-*"
    )
    assert complaint(*call, "data=s", "validation=0").startswith("validation: no shard is left")
    assert complaint(*call, "data=s", "together=_").startswith("together: wanted none with shards")
    (tmp_path / "s" / "classes.txt").write_text("red\nred\n")
    assert complaint(*call, "data=s") == "s/classes.txt: wanted at least two class names, each once, got 2"
    assert not (tmp_path / "runs").exists()


def test_batches_and_facts_are_those_of_the_images_in_memory(tmp_path: Path) -> None:
    shard_folder(tmp_path / "s")
    photos, said = read(tmp_path / "s")
    assert len(photos.train_images) == 0
    assert photos.classes == tuple(COLOURS)
    assert photos.test_files == tuple(f"train-2.tar/{number:04d}.png" for number in range(16, 24))
    assert said[1].startswith(
        "data: 24 images in 3 classes of s: 16 in 2 shards to train on, read as they are needed; 8 in"
    )
    # The same images as files, in the same order: a CSV file says which are for validation.
    lines = ["file,label,split"]
    for number in range(24):
        colour = list(COLOURS)[number % 3]
        (tmp_path / f"{number:04d}.png").write_bytes(png(colour, number))
        lines.append(f"{number:04d}.png,{colour},{'val' if number >= 16 else 'train'}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for words in ((), ("balance=draws", "grey=true"), ("balance=weights", "flip=true")):
        memory = load_photos(folder_config(tmp_path / "list.csv", *words), lambda line: None)
        stream = streamed(tmp_path / "s", *words)
        whole = PhotoSet(memory, folder_config(tmp_path / "list.csv", *words))
        assert stream.facts == whole.facts == facts_of(memory)
        for step in (0, 1, 5, 2):  # a run that goes elsewhere gets what is there
            for ours, theirs in zip(stream.training_batch(step, 8), whole.training_batch(step, 8), strict=True):
                assert torch.equal(ours, theirs)
        assert torch.equal(stream.test[0], whole.test[0])


def test_ranks_read_disjoint_images_that_are_the_batch_of_one(tmp_path: Path) -> None:
    one, *two = (streamed(shard_folder(tmp_path / "s")) for _ in range(3))
    for step in range(3):
        whole = one.training_batch(step, 8)
        shares = [each.training_batch(step, 8, rank, 2) for rank, each in enumerate(two)]
        for place, part in enumerate(whole):
            assert torch.equal(torch.cat([share[place] for share in shares]), part)
    pass_of_two = torch.cat(
        [share.training_batch(step, 8, rank, 2).indices for step in range(2) for rank, share in enumerate(two)]
    )
    assert sorted(pass_of_two.tolist()) == list(range(16))  # each image once


def shard_run(run: Path, path: Path, *words: str) -> RunFolder:
    config = folder_config(path, *words)
    source = load(config, notice=lambda line: None)
    folder = start(config, run, source=source)
    train(folder, source)
    return folder


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard_folder(tmp_path / "s")
    whole = shard_run(tmp_path / "whole", path, "flip=true")
    folder = shard_run(tmp_path / "part", path, "flip=true")
    folder.drop_checkpoint(6)  # as a kill after step 4 would leave it
    assert folder.load_state()["step"] == 4
    code, _, err = stn("train", "--resume", folder.path)
    assert code == 0, err
    assert "index: " not in err  # the run's own is used
    for key, value in whole.load_weights().items():
        assert torch.equal(folder.load_weights()[key], value)
    assert json.loads((folder.path / "evaluation.json").read_text())["test_images"] == 8


def test_a_shard_that_changes_is_read_again_and_other_images_are_refused(tmp_path: Path) -> None:
    path = shard_folder(tmp_path / "s")
    folder = shard_run(tmp_path / "run", path)
    os.utime(path / "train-0.tar", (1, 1))
    same, said = read(path, run=folder.path)
    assert said[0].startswith("index: 1 shards")
    folder.refuse_other(same)
    members = pictures(8)
    members[1] = (members[1][0], png("green", 77))
    write_shard(path / "train-0.tar", members)
    other, _ = read(path, run=folder.path)
    with pytest.raises(UserError, match="holds other images"):
        folder.refuse_other(other)
    (folder.path / "shards.json").write_text('{"format": 1')
    assert read(path, run=folder.path)[1][0].startswith("index: 3 shards")


def test_a_shard_that_changes_while_a_run_goes_on_stops_it(tmp_path: Path) -> None:
    path = shard_folder(tmp_path / "s")
    stream = streamed(path)
    for number in range(2):
        write_shard(path / f"train-{number}.tar", pictures(8, 50))
    with pytest.raises(UserError, match=r"train-.\.tar: holds other bytes at \d+ than when it was indexed"):
        stream.training_batch(0, 8)


def test_each_fault_is_named_once_and_the_rest_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shard_folder(tmp_path / "s", 4)
    write_shard(
        tmp_path / "s" / "train-1.tar",
        [*pictures(6), ("bad.png", b"no image"), ("bad.cls", b"red"), ("none.png", png("red", 1))],
    )
    cut = tmp_path / "s" / "train-2.tar"
    cut.write_bytes(cut.read_bytes()[:-12_000])
    write_shard(tmp_path / "s" / "val-0.tar", [*pictures(6), ("new.cls", b"violet"), ("new.png", png("red", 1))])
    (tmp_path / "s" / "train-9.tar").write_bytes(b"")
    code, _, err = stn("train", "folder", "data=s", *WORDS, "--run", "run")
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    reasons = {each["file"]: each["reason"] for each in record["skipped"]}
    assert reasons.pop("train-2.tar").startswith("cut short or damaged after ")
    assert {key: value for key, value in reasons.items() if not key.startswith("train-2.tar/")} == {
        "train-1.tar/bad.png": "no image, whatever its name", "train-1.tar/none.png": "no class",
        "val-0.tar/new.png": "its class has no training image", "train-9.tar": "empty",
    }  # fmt: skip
    for each in record["skipped"]:
        assert err.count(f" {each['file']}: ") == 1
    assert record["validation_images"] == 6


def test_classes_txt_gives_numbers_names(tmp_path: Path) -> None:
    names = list(COLOURS)
    for number in range(3):
        members = [(f"{key}.{e}", d) for key, name in enumerate(names)
                   for e, d in (("cls", str(key).encode()), ("png", png(name, key)))]  # fmt: skip
        write_shard(tmp_path / f"train-{number}.tar", [*members, ("x.cls", b"3"), ("x.png", png("red", 5))])
    assert read(tmp_path)[0].classes == ("0", "1", "2", "3")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    photos, _ = read(tmp_path)
    assert photos.classes == tuple(names)
    assert {each.reason for each in photos.skipped} == {"class 3 is unknown to classes.txt"}
    many = [(f"{k}.{e}", d) for k in (2, 10) for e, d in (("cls", str(k).encode()), ("png", png("red", k)))]
    for number in range(2):
        write_shard(tmp_path / "n" / f"{number}.tar", many)
    assert read(tmp_path / "n")[0].classes == ("2", "10")


def test_the_example_packs_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "examples"))
    from pack_shards import pack

    assert pack(photo_folder(tmp_path / "photos"), tmp_path / "s", 7) == 3
    photos, _ = read(tmp_path / "s")
    assert (len(photos.train_labels), len(photos.test_labels)) == (14, 4)
    assert photos.classes == tuple(COLOURS)
    assert not photos.skipped


def test_too_many_to_validate_on_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_stn.lab.data.shard_index.MOST_HELD", 6000)
    with pytest.raises(UserError, match=r"validation: 8 images of 16 pixels would take 0\.0 GB"):
        read(shard_folder(tmp_path / "s"))


def test_memory_holds_the_next_batches_only(tmp_path: Path) -> None:
    stream = streamed(shard_folder(tmp_path / "s"))
    for step in range(5):
        stream.training_batch(step, 4)
        assert len(stream._coming) == 2
    assert sum(each.nbytes for each in (stream.stored.shard, stream.stored.offset)) == 12 * 16
