"""From a folder of images to a file that onnxruntime runs, in a few steps on small images."""

from __future__ import annotations

import csv
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import complaint, stn
from hostile_folder import hostile_folder
from photo_folder import COLOURS, WORDS, folder_config, folder_run, photo_folder
from PIL import Image
from safetensors.numpy import load_file

from torch_stn.lab.data.listing import shown
from torch_stn.lab.data.photos import load_photos
from torch_stn.lab.errors import LostProcessError, UserError
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.report import build_report, render_alignment_gif
from torch_stn.lab.report.runs import read_run
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import losses_told
from torch_stn.lab.train import train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_commands_lead_from_a_folder_to_a_prediction(tmp_path: Path) -> None:
    photo_folder(tmp_path / "photos", 8)
    code, out, err = stn("train", "folder", "data=photos", *WORDS, "steps=60", "learning_rate=5e-3", "log_every=10")
    assert code == 0, err
    assert "data: 24 images in 3 classes of photos: 18 to train on, 6 to validate on" in err
    assert "run: runs/folder-photos-st-resnet-affine-seed0" in out
    assert "mean of classes %" in out
    assert "rotation" not in out
    run = next((tmp_path / "runs").iterdir())
    assert RunFolder.open(run).config().data == str(tmp_path / "photos")
    code, out, err = stn("predict", run, "photos", "photos/red/001.png", "--crops", "crops")
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    assert len(rows) == 25 == len(list((tmp_path / "crops").glob("*.png")))
    right = sum(Path(row["file"]).parent.name == row["class"] for row in rows)
    assert right >= 22
    assert rows[-1]["file"] == "photos/red/001.png"
    with Image.open(next((tmp_path / "crops").iterdir())) as crop:
        assert crop.size == (16, 16)
    code, again, err = stn("predict", run, "photos", "--out", "all.json")
    assert (code, again) == (0, ""), err
    records = json.loads((tmp_path / "all.json").read_text())
    assert len(records) == 24
    for record, row in zip(records, rows, strict=False):
        assert (record["file"], record["class"]) == (row["file"], row["class"])
        assert (
            record["probability"]
            == max(record["probabilities"].values())
            == pytest.approx(float(row["probability"]), abs=1e-6)
        )
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert stn("evaluate", run)[0] == 0
    assert stn("report", run)[0] == 0
    assert "validation images of photos" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("words", [("transform=none",), ("transform=attention", "count=2", "crop=8"), ("grey=true",)])
def test_the_report_of_every_layout(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder, photos = folder_run(tmp_path / "run", photo_folder(tmp_path / "photos"), *words)
    record = evaluate(folder, "cpu", photos)
    assert record["pose"] is None
    assert record["classes"] == list(COLOURS)
    run = read_run(folder.path)
    assert run.photos
    assert run.has_transformer == (words != ("transform=none",))
    page = build_report([folder.path], tmp_path / "page.html").read_text()
    assert all(name in page for name in COLOURS)
    count = 2 if "count=2" in words else 1
    if run.has_transformer:
        assert run.arrays["lines"].shape == (3, count, 10, 17, 2)
        assert run.arrays["outputs"].shape[:2] == (3, count)
        with pytest.raises(UserError, match="the animation is of digits"):
            render_alignment_gif(folder.path, tmp_path / "a.gif")
    assert ('class="seen several"' in page) == (count == 2)


def test_the_evaluation_is_that_of_the_validation_images(tmp_path: Path) -> None:
    folder, photos = folder_run(tmp_path / "run", photo_folder(tmp_path / "photos", 10), "steps=3")
    record = evaluate(folder, "cpu", photos)
    arrays = load_file(folder.path / "evaluation.safetensors")
    confusion = arrays["confusion"]
    assert confusion.sum() == len(photos.test_images) == record["test_images"] == 6
    assert record["error"] == pytest.approx(100 * (1 - np.trace(confusion) / 6))
    shares = [1 - confusion[k, k] / confusion[k].sum() for k in range(3)]
    assert record["balanced_error"] == pytest.approx(100 * np.mean(shares))
    wrong = 6 - np.trace(confusion)
    assert len(record["mistake_files"]) == len(arrays["mistakes"]) == wrong
    for name, label in zip(record["mistake_files"], arrays["mistake_labels"], strict=True):
        assert name in photos.test_files
        assert Path(name).parent.name == photos.classes[label]


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    path = photo_folder(tmp_path / "photos")
    words = ("flip=true", "balance=draws")
    whole, photos = folder_run(tmp_path / "whole", path, *words)
    folder, _ = folder_run(tmp_path / "part", path, *words)
    folder.drop_checkpoint(6)  # as a kill after step 4 would leave it
    assert folder.load_state()["step"] == 4
    train(folder, photos)
    for key, value in whole.load_weights().items():
        assert torch.equal(folder.load_weights()[key], value)


def test_a_run_goes_on_with_its_own_images_only(tmp_path: Path) -> None:
    path = photo_folder(tmp_path / "photos")
    folder, _ = folder_run(tmp_path / "run", path)
    (path / "red" / "000.jpg").unlink()
    other = load_photos(folder.config(), lambda line: None)
    for call in (lambda: evaluate(folder, "cpu", other), lambda: train(folder, other)):
        with pytest.raises(UserError, match=r"holds other images than when .* began"):
            call()


def test_the_hostile_folder_trains_and_names_each_bad_file_once(tmp_path: Path) -> None:
    _, bad = hostile_folder(tmp_path / "photos")
    code, _, err = stn("train", "folder", "data=photos", *WORDS, "--run", "run")
    assert code == 0, err
    for name in bad:
        assert err.count(f" {shown(name)}: ") == 1, name
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert {each["file"] for each in record["skipped"]} == set(bad)
    code, out, err = stn("predict", "run", "photos")
    assert code == 0, err
    assert len(out.splitlines()) == 1 + 21
    assert all(err.count(f"skipped photos/{shown(name)}: ") == 1 for name in bad)


class _Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_checkpoint_that_is_a_pickle_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    path = photo_folder(tmp_path / "photos")
    folder, _ = folder_run(tmp_path / "run", path)
    (folder.checkpoints()[-1] / name).write_bytes(pickle.dumps(_Malice()))
    if name == "state.pt":
        text = complaint_of_the_last_line("train", "--resume", "run")
    else:
        text = complaint("predict", "run", "photos")
        assert complaint("export", "run").endswith(text.partition(": ")[2])
    assert f"{name}: cannot be read as" in text
    assert not (tmp_path / "executed").exists()


def complaint_of_the_last_line(*words: str) -> str:
    code, out, err = stn(*words)
    assert (code, out) == (2, "")
    return err.splitlines()[-1].removeprefix("stn: ")


def test_mistakes_of_the_call_are_a_line(tmp_path: Path) -> None:
    photo_folder(tmp_path / "photos")
    folder_run(tmp_path / "run", tmp_path / "photos", "transform=none")
    assert "data: wanted the path of a folder or a CSV file" in complaint("train", "folder")
    assert complaint("train", "folder", "data=nowhere").endswith("no folder and no CSV file nowhere")
    assert complaint("predict", "run", "nowhere.png") == "nowhere.png: no such file or folder"
    assert complaint("predict", "run", "photos", "--out", "a.txt").startswith("--out: wanted a name that ends in")
    assert complaint("predict", "run", "photos", "--crops", "c").startswith("--crops: ResNet has no transformer")
    assert complaint("export", "run", "--format", "tflite") == "--format: wanted one of onnx, torch, got 'tflite'"
    assert complaint("export", "run", "--out", "model.bin") == "--out: wanted a name that ends in .onnx, got model.bin"
    assert "model: wanted resnet" in complaint("train", "folder", "model=st-cnn")
    assert not (tmp_path / "runs").exists()


def test_facts_that_do_not_hold_together_are_refused(tmp_path: Path) -> None:
    folder, _ = folder_run(tmp_path / "run", photo_folder(tmp_path / "photos"))
    record = json.loads((folder.path / "data.json").read_text())
    for change in (
        {"height": 10**9},
        {"mean": [0.5]},
        {"deviation": [0.1, 2, 0.1]},
        {"classes": None},
        {"channels": "x"},
    ):
        folder.write_json("data.json", record | {"facts": record["facts"] | change})
        with pytest.raises(UserError, match=r"data\.json: wanted the facts"):
            folder.facts()


def test_a_lost_process_is_told_in_a_line_and_another_fault_is_not_hidden(tmp_path: Path) -> None:
    folder, _ = folder_run(tmp_path / "run", photo_folder(tmp_path / "photos"))
    gloo = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234"
    for processes, fault, wanted in (
        (2, gloo, LostProcessError), (1, gloo, RuntimeError), (2, "mat1 and mat2 shapes", RuntimeError),
    ):  # fmt: skip
        with pytest.raises(wanted) as raised, losses_told(folder, SimpleNamespace(world_size=processes)):  # type: ignore[arg-type]
            raise RuntimeError(fault)
        if wanted is LostProcessError:
            assert "another of the 2 processes ended; its last checkpoint is step-00000006" in str(raised.value)
            assert str(raised.value).endswith(f"go on with: stn train --resume {folder.path}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [(), ("transform=none", "norm=batch"), ("transform=tps",), ("transform=projective", "iterations=2"),
     ("transform=attention", "count=2", "crop=8"), ("grey=true", "transform=similarity", "size=32")],
)  # fmt: skip
def test_an_exported_file_says_what_the_run_says(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = photo_folder(tmp_path / "photos")
    folder_run(tmp_path / "run", path, *words)
    for kind, ending in (("onnx", "onnx"), ("torch", "pt2")):
        code, out, err = stn("export", "run", "--format", kind)
        assert code == 0, err
        assert "differs from the network by at most" in out
        assert [p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".model")] == []
        assert (tmp_path / "run" / f"model.{ending}").stat().st_size > 10_000
    code, out, err = stn("predict", "run", "photos")
    assert code == 0, err
    wanted = {row["file"]: row for row in csv.DictReader(out.splitlines())}
    served = serve(tmp_path / "run" / "model.onnx", "photos")
    assert len(served) == len(wanted) == 18
    for file, label, probability in served:
        assert label == wanted[file]["class"]
        assert float(probability) == pytest.approx(float(wanted[file]["probability"]), abs=2e-4)
    again = torch.export.load(tmp_path / "run" / "model.pt2").module()
    config = folder_config(path, *words)
    channels = 1 if config.grey else 3
    assert again(torch.zeros(5, config.size, config.size, channels, dtype=torch.uint8)).shape == (5, 3)


def serve(model: Path, folder: str) -> list[list[str]]:
    """What the example prints; it must do without torch."""
    code = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(ROOT / "examples" / "serve_onnx.py"), str(model), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split(",") for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_stn.lab import export

    folder_run(tmp_path / "run", photo_folder(tmp_path / "photos"), "transform=none")
    right = export._run_onnx
    monkeypatch.setattr(export, "_run_onnx", lambda path: lambda images: right(path)(images) + 2e-4)
    assert "not kept, it differs from the network by 2.0e-04" in complaint("export", "run")
    monkeypatch.setattr(export, "_run_onnx", lambda path: lambda images: right(path)(images) * float("nan"))
    assert "not kept" in complaint("export", "run")
    assert list((tmp_path / "run").glob("*.onnx")) == []
