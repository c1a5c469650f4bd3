"""A folder with one sub-folder a class, as WebDataset shards: each image with its class beside it, in mixed order.

    python examples/pack_shards.py photos shards 1000

writes shards/train-00000.tar, ... of 1,000 images each (the last may hold fewer). Nothing is decoded or changed.
"""

from __future__ import annotations

import io
import random
import sys
import tarfile
from pathlib import Path

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def pack(folder: Path, out: Path, each: int) -> int:
    """Write the shards; how many there are."""
    files = sorted(file for file in folder.glob("*/**/*") if file.suffix.lower() in ENDINGS and file.is_file())
    # Mixed once, so that the last shards, which are held out, are of all classes.
    random.Random(0).shuffle(files)
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(files), each):
        with tarfile.open(out / f"train-{start // each:05d}.tar", "w") as tar:
            for number, file in enumerate(files[start : start + each], start):
                label = file.relative_to(folder).parts[0].encode("utf-8", "surrogateescape")
                for ending, data in ((".cls", label), (file.suffix.lower(), file.read_bytes())):
                    member = tarfile.TarInfo(f"{number:08d}{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return -(-len(files) // each)


if __name__ == "__main__":
    folder, out, each = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    print(f"{pack(folder, out, each)} shards in {out}")
