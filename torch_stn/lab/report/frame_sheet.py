"""One picture of where every transformer of a run reads: test images, and over each the borders of what is read."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from torch_stn.lab.errors import UserError
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.report.pictures import MARGIN, finite_pieces, to_bytes
from torch_stn.lab.report.runs import Run, read_run

IMAGES, CELL, GAP, CAPTION = 8, 150, 6, 26  # pixels
SHARPER = 2  # drawn this much larger and reduced, which smooths the lines
# Okabe and Ito's, told apart by colour-blind readers too: of the first transformer, the second, ...
COLOURS = ((255, 176, 0), (86, 180, 233), (0, 200, 140), (230, 110, 190))
BACKGROUND, INK = (17, 20, 24), (232, 234, 237)


def render_frame_sheet(run_folders: list[Path], destination: Path) -> Path:
    """Write the PNG: a row a run, its first test images. UserError where a run has no transformer or no evaluation.

    Frames of transformers in a row are those of what each reads, drawn on the input image.
    """
    runs = [read_run(folder) for folder in run_folders]
    for run in runs:
        if "lines" not in run.arrays:
            raise UserError(f"{run.folder}: no sampling frames in it, wanted an evaluated run with a transformer")
    rows = [_row(run) for run in runs]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), BACKGROUND)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    buffer = io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    return write_whole(Path(destination), buffer.getvalue())


def _row(run: Run) -> Image.Image:
    """The name of the network, a word in the colour of each transformer, the images."""
    images, lines = run.arrays["inputs"][:IMAGES], run.arrays["lines"][:IMAGES]
    lines = lines if lines.ndim == 5 else lines[:, None]
    row = Image.new("RGB", (GAP + IMAGES * (CELL + GAP), CAPTION + CELL + GAP), BACKGROUND)
    draw = ImageDraw.Draw(row)
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 14)
    draw.text((GAP, 5), run.label, INK, font)
    at = 3 * GAP + font.getlength(run.label)
    for k in range(lines.shape[1] if lines.shape[1] > 1 else 0):
        draw.text((at, 5), f"{k + 1}", COLOURS[k % len(COLOURS)], font)
        at += 4 * GAP
    for index, (image, frames) in enumerate(zip(images, lines, strict=True)):
        row.paste(_cell(image, frames), (GAP + index * (CELL + GAP), CAPTION))
    return row


def _cell(image: np.ndarray, frames: np.ndarray) -> Image.Image:
    """An image with a margin around it and the border of each frame; later ones are thinner, so that none is hidden."""
    size = CELL * SHARPER
    height, width = image.shape[:2]
    scale = size / ((1 + 2 * MARGIN) * max(height, width))
    left, top = (size - width * scale) / 2, (size - height * scale) / 2
    cell = Image.new("RGB", (size, size), BACKGROUND)
    small = Image.fromarray(to_bytes(image)).convert("RGB")
    box = (round(width * scale), round(height * scale))
    cell.paste(small.resize(box, Image.Resampling.BICUBIC), (round(left), round(top)))
    draw = ImageDraw.Draw(cell)
    for k, lines in enumerate(frames):
        half = len(lines) // 2
        for edge in (0, half - 1, half, len(lines) - 1):
            for piece in finite_pieces(lines[edge]):
                points = [(float(x), float(y)) for x, y in (piece + 0.5) * scale + (left, top)]
                draw.line(points, COLOURS[k % len(COLOURS)], SHARPER * (len(frames) - k), joint="curve")
    return cell.resize((CELL, CELL), Image.Resampling.LANCZOS)
