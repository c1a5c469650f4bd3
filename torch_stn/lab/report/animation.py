"""alignment.gif: test digits with the sampling frame moving over them as the training goes on, and what came out."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from torch_stn.lab.errors import UserError
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.report.pictures import MARGIN, finite_pieces, to_bytes
from torch_stn.lab.report.runs import Run, Snapshot, moments, read_run
from torch_stn.lab.report.words import duration

DIGITS, CELL, GAP, LEFT, CAPTION, BAR = 8, 70, 8, 12, 34, 3  # pixels of the GIF; 8 digits make it 640 wide
FRAMES, FRAME_MS, LAST_MS = 48, 140, 2000
LIMIT = 1_500_000  # bytes
SHARPER = 3  # frames are drawn this much larger and reduced, which smooths the lines
BACKGROUND, INK, DIM = (17, 20, 24), (232, 234, 237), (150, 156, 164)
GRID, BORDER, TOP = (150, 100, 0), (255, 176, 0), (86, 180, 233)


def render_alignment_gif(run_folder: str | Path, destination: str | Path) -> Path:
    """Write the animation of a run with a transformer; UserError where the run holds nothing to animate."""
    run = read_run(run_folder)
    if not run.has_transformer:
        raise UserError(f"{run.folder}: {run.model} has no spatial transformer, so there is no alignment to animate")
    if run.photos:
        raise UserError(
            f"{run.folder}: a run of {run.data}, and the animation is of digits; stn report shows the images"
        )
    if not run.snapshots:
        raise UserError(f"{run.folder}: no snapshots in it yet; train the run further")
    if "inputs" not in run.arrays:
        raise UserError(f"{run.folder}: not evaluated, so the test digits are not known; evaluate the run first")
    if run.arrays["inputs"].ndim > 3:
        raise UserError(f"{run.folder}: its images are in colour, and the animation is of grey ones; see stn report")
    count = FRAMES
    while True:
        data = _gif(run, moments(run.snapshots, count))
        if len(data) <= LIMIT or count <= 4:
            return write_whole(Path(destination), data)
        count = count * 2 // 3


def _gif(run: Run, snapshots: list[Snapshot]) -> bytes:
    inputs = run.arrays["inputs"]
    count = min(DIGITS, len(inputs), len(snapshots[0].lines))
    frames = [_frame(run, inputs[:count], snapshot) for snapshot in snapshots]
    # One palette for all frames: colours do not flicker, and an unchanged pixel costs nothing.
    sheet = Image.new("RGB", (frames[0].width, frames[0].height * 3))
    for row, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        sheet.paste(frame, (0, row * frame.height))
    palette = sheet.quantize(64, method=Image.Quantize.MEDIANCUT)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    durations = [600] + [FRAME_MS] * (len(frames) - 2) + [LAST_MS] if len(frames) > 1 else LAST_MS
    first.save(buffer, "gif", save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)
    return buffer.getvalue()


def _frame(run: Run, inputs: np.ndarray, snapshot: Snapshot) -> Image.Image:
    """One moment: inputs with the frame, outputs, and the caption."""
    count = len(inputs)
    width = 2 * LEFT + count * CELL + (count - 1) * GAP
    height = CAPTION + 2 * CELL + GAP + LEFT + BAR
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    for index in range(count):
        x = LEFT + index * (CELL + GAP)
        canvas.paste(_input(inputs[index], snapshot.lines[index]), (x, CAPTION))
        output = Image.fromarray(to_bytes(snapshot.outputs[index])).resize((CELL, CELL), Image.Resampling.BICUBIC)
        canvas.paste(output.convert("RGB"), (x, CAPTION + CELL + GAP))
        ImageDraw.Draw(canvas).rectangle((x, CAPTION + CELL + GAP, x + CELL - 1, CAPTION + CELL + GAP + 1), TOP)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 14)
    moment = f"step {snapshot.step:,}   {duration(snapshot.seconds)}"
    draw.text((width - LEFT, 9), moment, DIM, font, anchor="ra")
    draw.text((LEFT, 9), _caption(run.label, font, width - 3 * LEFT - font.getlength(moment)), INK, font)
    done = snapshot.seconds / max(run.snapshots[-1].seconds, 1e-9)
    draw.rectangle((0, height - BAR, max(0, round(done * width) - 1), height), TOP)
    return canvas


def _caption(label: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """What the rows are, as far as there is room; a label from a file may be of any length."""
    label = " ".join(label.split())
    for text in (f"{label}: where it looks, what it sees", label):
        if font.getlength(text) <= room:
            return text
    while label and font.getlength(label + "…") > room:
        label = label[:-1]
    return label + "…"


def _input(image: np.ndarray, lines: np.ndarray) -> Image.Image:
    """A digit with its margin and the frame over it."""
    size = CELL * SHARPER
    height, width = image.shape
    margin = MARGIN * max(height, width)
    scale = size / (max(height, width) + 2 * margin)
    left, top = (size - width * scale) / 2, (size - height * scale) / 2
    cell = Image.new("RGB", (size, size), (0, 0, 0))
    box = (round(width * scale), round(height * scale))
    cell.paste(
        Image.fromarray(to_bytes(image)).resize(box, Image.Resampling.BICUBIC).convert("RGB"), (round(left), round(top))
    )
    draw = ImageDraw.Draw(cell)
    draw.rectangle(
        (left, top, left + width * scale, top + height * scale), outline=(60, 64, 70), width=SHARPER // 2 + 1
    )
    half = len(lines) // 2
    edges = (half - 1, half, len(lines) - 1)
    inner = [index for index in range(1, len(lines)) if index not in edges]
    for index, colour, thickness in (*((i, GRID, 2) for i in inner), *((i, BORDER, 4) for i in edges), (0, TOP, 6)):
        for piece in finite_pieces(lines[index]):
            points = (piece + 0.5) * scale + (left, top)
            draw.line([(float(x), float(y)) for x, y in points], colour, thickness, joint="curve")
    return cell.resize((CELL, CELL), Image.Resampling.LANCZOS)
