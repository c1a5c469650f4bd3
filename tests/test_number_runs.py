"""A run of house numbers from training to its page: strings through all three nets, SVHN's files through one."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from number_files import number_folder
from PIL import Image
from tiny_run import tiny_digits, tiny_train

from torch_stn.lab.config import Config, override
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.experiments.numbers import CONFIG
from torch_stn.lab.report import build_report, render_alignment_gif
from torch_stn.lab.report.frame_sheet import COLOURS, render_frame_sheet
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import prepare, start, train_and_evaluate

STRINGS = ("data=strings-64", "scale=0.03", "steps=2", "batch_size=4", "evaluations=2")


def strings_run(path: Path, *words: str) -> RunFolder:
    folder = tiny_train(path, *STRINGS, *words)
    evaluate(folder, "cpu", tiny_digits())
    return folder


def test_whole_numbers_and_their_digits_are_measured(tmp_path: Path) -> None:
    folder = strings_run(tmp_path / "cnn", "model=number-cnn", "dropout=0.5")
    record = folder.read_json("evaluation.json", missing="")
    lengths = {f"error of length {k}" for k in range(1, 6)}
    assert {"digit error"} < record["measures"].keys() <= {"digit error", *lengths}
    assert record["label"] == "Number CNN, 0.03 width"
    assert record["error"] >= record["balanced_error"] / 5
    arrays = safetensors.torch.load_file(folder.path / "evaluation.safetensors")
    assert arrays["labels"].shape == arrays["predictions"].shape == (12, 5)
    # All five places of 60 strings under two distortions.
    assert int(arrays["confusion"].sum()) == record["test_images"] * 5 == 2 * 60 * 5
    assert (arrays["mistake_predictions"] != arrays["mistake_labels"]).any(dim=1).all()
    assert "lines" not in arrays


def test_a_page_and_a_picture_of_where_transformers_read(tmp_path: Path) -> None:
    single = strings_run(tmp_path / "single", "model=st-number-cnn", "crop=32")
    multi = strings_run(tmp_path / "multi", "model=st-number-cnn-multi", "crop=32")
    lines = {
        each: safetensors.torch.load_file(each.path / "evaluation.safetensors")["lines"] for each in (single, multi)
    }
    assert (lines[single].shape[:2], lines[multi].shape[:2]) == ((12, 1), (12, 4))
    assert torch.allclose(lines[multi][:, 0], lines[single][:, 0], atol=0.5)  # two steps from the identity: the border
    page = build_report([single.path, multi.path], tmp_path / "page.html").read_text()
    assert "ST-CNN Multi affine to 32 px, 0.03 width" in page
    sheet = Image.open(render_frame_sheet([single.path, multi.path], tmp_path / "frames.png"))
    assert sheet.width > 1000
    # Each of the four borders lies around the images in its colour, the later the thinner.
    pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in COLOURS:
        assert (np.abs(pixels - colour).max(axis=1) < 40).sum() > 100
    with pytest.raises(UserError, match="images are in colour"):
        render_alignment_gif(single.path, tmp_path / "alignment.gif")


def test_no_frames_where_nothing_transforms(tmp_path: Path) -> None:
    folder = strings_run(tmp_path / "cnn", "model=number-cnn")
    with pytest.raises(UserError, match="no sampling frames in it"):
        render_frame_sheet([folder.path], tmp_path / "frames.png")


def test_svhn_from_files_to_an_error(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    number_folder(tmp_path / "svhn" / "train", [[1], [2, 3], [4, 5, 6], [0, 7]])
    number_folder(tmp_path / "svhn" / "test", [[8], [9, 0]])
    words = ["source=svhn", f"data={tmp_path / 'svhn'}", "size=64", "scale=0.03", "steps=2", "batch_size=2"]
    config: Config = override(CONFIG, [*words, "evaluations=2", "tensorboard=false", "accelerator=cpu"])
    fabric, config, source = prepare(config)
    folder = start(config, tmp_path / "run", fabric, source)
    record = train_and_evaluate(folder, source, fabric)
    assert record is not None
    assert (record["set"], record["test_images"]) == ("SVHN 64 px", 2)
    assert record["measures"].keys() == {"digit error", "error of length 1", "error of length 2"}
    assert "SVHN 64 px" in build_report([folder.path], tmp_path / "page.html").read_text()
