"""600 photographs of birds as a folder with a sub-folder a class: grebes, kingfishers, woodpeckers, 200 of each.

    python examples/bird_folder.py photos
    stn train folder data=photos

They come from CUB-200-2011 as TORCH_STN_DATA/cub100 holds it (research and education only).
"""

import os
import sys
from pathlib import Path

import numpy as np

KINDS = {"grebe": "Grebe", "kingfisher": "Kingfisher", "woodpecker": "Woodpecker"}
EACH = 200


def main(target: Path) -> None:
    """Write the JPEG files as they are in the archive, species by turns."""
    archive = np.load(Path(os.environ["TORCH_STN_DATA"]) / "cub100" / "cub100_128.npz")
    pictures, offsets, labels = archive["jpeg"], archive["offsets"], archive["label"]
    names = [str(name) for name in archive["classes"]]
    for kind, ending in KINDS.items():
        species = [index for index, name in enumerate(names) if name.endswith(ending)]
        members = [np.flatnonzero(labels == index) for index in species]
        turns = [photos[turn] for turn in range(max(map(len, members))) for photos in members if turn < len(photos)]
        folder = target / kind
        folder.mkdir(parents=True, exist_ok=True)
        for index in turns[:EACH]:
            data = pictures[offsets[index] : offsets[index + 1]].tobytes()
            (folder / f"{names[labels[index]]}-{index:04d}.jpg").write_bytes(data)
    print(f"{sum(1 for _ in target.glob('*/*.jpg'))} photographs in {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "photos"))
