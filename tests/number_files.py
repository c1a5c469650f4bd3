"""House numbers as SVHN's format 1 has them: png files and a digitStruct.mat as MATLAB 7.3 writes one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float, int]  # left, top, width, height, label


def write_struct(path: Path, entries: Sequence[tuple[str, Sequence[Box]]]) -> None:
    """HDF5 behind MATLAB's 512 bytes; a single value stands in a dataset, several are references to one each."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        kept = file.create_group("#refs#")

        def keep(values: np.ndarray) -> h5py.Reference:
            return kept.create_dataset(f"d{len(kept)}", data=values).ref

        names, groups = [], []
        for name, boxes in entries:
            names.append(keep(np.array([[ord(letter)] for letter in name], dtype=np.uint16)))
            group = kept.create_group(f"g{len(kept)}")
            columns = zip(*boxes, strict=True) if boxes else [()] * 5
            for key, values in zip(("left", "top", "width", "height", "label"), columns, strict=True):
                if len(values) == 1:
                    group.create_dataset(key, data=np.array([[float(values[0])]]))
                else:
                    references = [[keep(np.array([[float(each)]]))] for each in values]
                    group.create_dataset(key, (len(values), 1), dtype=h5py.ref_dtype, data=references or None)
            groups.append(group.ref)
        struct = file.create_group("digitStruct")
        for key, references in (("name", names), ("bbox", groups)):
            struct.create_dataset(key, (len(references), 1), dtype=h5py.ref_dtype, data=[[each] for each in references])


def tinted(size: tuple[int, int], boxes: Sequence[Box]) -> Image.Image:
    """A photograph of (width, height): black, and each digit's box in a grey that tells its label."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    for left, top, width, height, label in boxes:
        pixels[int(top) : int(top + height), int(left) : int(left + width)] = 20 * (label % 10) + 40
    return Image.fromarray(pixels)


def row_of(digits: Sequence[int], left: int = 20, top: int = 15) -> list[Box]:
    """Boxes of 10 x 20 pixels side by side; the digit 0 is label 10."""
    return [(left + 10 * k, top, 10, 20, digit or 10) for k, digit in enumerate(digits)]


def number_folder(folder: Path, numbers: Sequence[Sequence[int]], size: tuple[int, int] = (100, 50)) -> None:
    """One part of SVHN: N.png of the numbers, whole and in order."""
    folder.mkdir(parents=True)
    entries = [(f"{index}.png", row_of(digits)) for index, digits in enumerate(numbers, start=1)]
    for name, boxes in entries:
        tinted(size, boxes).save(folder / name)
    write_struct(folder / "digitStruct.mat", entries)
