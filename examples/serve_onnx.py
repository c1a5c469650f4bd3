"""Classify a folder of images with an exported run: onnxruntime, Pillow and numpy alone, no torch.

    stn export RUN --format onnx --out model.onnx
    python examples/serve_onnx.py model.onnx FOLDER

One line an image: file, class, probability. The ONNX file scales, transforms and classifies; what is left to do here is
to read a file as training did: upright, 16 bits as 8, transparency on white.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


def read(path: Path, size: int, channels: int) -> np.ndarray:
    """(size, size, channels) uint8, reduced as in training."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * size, 2 * size))
        upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):  # 16 bits, of some formats held in 32
        values = np.asarray(upright).astype(np.float64)
        if upright.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"mode {upright.mode}: wanted 8 or 16 bits a channel")
        upright = Image.fromarray((values / 257 + 0.5).astype(np.uint8))
    elif upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    small = upright.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.BILINEAR, None, 3.0)
    return np.asarray(small).reshape(size, size, channels)


def main(model: str, folder: str) -> None:
    """Print the classes."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    known = session.get_modelmeta().custom_metadata_map
    classes, size, channels = json.loads(known["classes"]), int(known["size"]), int(known["channels"])
    for path in sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in ENDINGS):
        try:
            images = read(path, size, channels)[None]
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            print(f"{path}: skipped: {error}", file=sys.stderr)
            continue
        (probabilities,) = session.run(None, {"images": images})[0]
        print(f"{path},{classes[probabilities.argmax()]},{probabilities.max():.6f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
