"""Small folders of images: what the tests of `stn train folder` learn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from torch_stn.lab.config import Config, override
from torch_stn.lab.data.photos import Photos, load_photos
from torch_stn.lab.experiments.folder import CONFIG
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.session import start
from torch_stn.lab.train import train

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
SPECIES = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
WORDS = [
    "size=16", "width=8", "batch_size=8", "epochs=0", "steps=6", "log_every=1", "checkpoint_every=2", "evaluations=3",
    "tensorboard=false", "accelerator=cpu",
]  # fmt: skip


def photo(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A bright spot of a colour somewhere on noise; (width, height)."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 90, (size[1], size[0], 3))
    x, y = random.integers(0, size[0] // 2), random.integers(0, size[1] // 2)
    pixels[y : y + size[1] // 2, x : x + size[0] // 2] += np.array(colour) // 2
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def photo_folder(path: Path, counts: Mapping[str, int] | int = 6) -> Path:
    """A folder with a sub-folder for each colour, PNG and JPEG by turns."""
    counts = dict.fromkeys(COLOURS, counts) if isinstance(counts, int) else counts
    for number, (name, count) in enumerate(counts.items()):
        (path / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            ending = "png" if index % 2 else "jpg"
            photo(COLOURS[name], 100 * number + index).save(path / name / f"{index:03d}.{ending}")
    return path


def bird_folder(path: Path) -> Path:
    """CUB-200-2011 as it is published: two species of four images, the first three of each for training."""
    lines: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": [], "classes": []}
    for number, name in enumerate(SPECIES):
        folder = path / "CUB_200_2011" / "images" / name
        folder.mkdir(parents=True)
        lines["classes"].append(f"{number + 1} {name}")
        for index in range(4):
            image = 4 * number + index + 1
            file = f"{name[4:]}_{index:04d}_{image}.jpg"
            photo(list(COLOURS.values())[number], image).save(folder / file)
            lines["images"].append(f"{image} {name}/{file}")
            lines["image_class_labels"].append(f"{image} {number + 1}")
            lines["train_test_split"].append(f"{image} {int(index < 3)}")
    for table, rows in lines.items():
        (path / "CUB_200_2011" / f"{table}.txt").write_text("\n".join(rows) + "\n")
    return path


def sign_folder(path: Path) -> Path:
    """GTSRB as it is published, two classes of it: two tracks of three frames each, and four test images."""
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    (path / "Final_Test" / "Images").mkdir(parents=True)
    for number, label in enumerate((14, 3)):
        place = path / "Final_Training" / "Images" / f"{label:05d}"
        place.mkdir(parents=True)
        (place / f"GT-{label:05d}.csv").write_text(rows[0] + "\n")
        for track in range(2):
            for frame in range(3):
                picture = photo(list(COLOURS.values())[number], 10 * track + frame)
                picture.save(place / f"{track:05d}_{frame:05d}.ppm")
        for index in range(2):
            name = f"{2 * number + index:05d}.ppm"
            photo(list(COLOURS.values())[number], 50 + index).save(path / "Final_Test" / "Images" / name)
            rows.append(f"{name};24;20;5;5;18;14;{label}")
    (path / "Final_Test" / "Images" / "GT-final_test.csv").write_text("\n".join(rows) + "\n")
    return path


def folder_config(path: Path, *words: str) -> Config:
    """The experiment's config for a few steps on small images."""
    return override(CONFIG, [f"data={path}", *WORDS, *words])


def read(path: Path, *words: str) -> tuple[Photos, list[str]]:
    """The images of a folder, and the lines that were said about them."""
    said: list[str] = []
    return load_photos(folder_config(path, *words), said.append), said


def folder_run(run: Path, path: Path, *words: str) -> tuple[RunFolder, Photos]:
    """A whole training of a few steps."""
    config = folder_config(path, *words)
    photos = load_photos(config, lambda line: None)
    folder = start(config, run, source=photos)
    train(folder, photos)
    return folder, photos
