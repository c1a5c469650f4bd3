"""A run folder, read and checked: everything the report knows about a run comes from here. Reads files only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from torch_stn.lab.errors import UserError
from torch_stn.lab.report.arrays import check_arrays

FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """One moment of the training: what the transformer made of the dozen test images, and where it looked.

    Of images in colour: outputs (12, count, h, w, C) and lines (12, count, L, P, 2).
    """

    step: int
    seconds: float
    outputs: np.ndarray  # (12, h, w) in [0, 1]
    lines: np.ndarray  # (12, L, P, 2), (x, y) in input pixels, pixel centre = integer


@dataclass(frozen=True)
class Curve:
    """A measured series of the training, ordered by step."""

    step: np.ndarray
    seconds: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Run:
    """A run folder in memory. `evaluation` is None, and `arrays` empty, when the run has not been evaluated."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    loss: Curve
    error: Curve
    snapshots: tuple[Snapshot, ...]
    evaluation: dict[str, Any] | None
    arrays: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """The folder's own name, which tells runs with one label apart."""
        return self.folder.resolve().name

    @property
    def model(self) -> str:
        """The model as the config names it, for example st-fcn."""
        return str(self.config.get("model", "unknown model"))

    @property
    def has_transformer(self) -> bool:
        """Whether a spatial transformer is part of the model: by its name, or because it left pictures."""
        named = self.model.startswith("st-") or self.model == "tutorial"
        if self.model == "resnet":
            named = self.config.get("transform") != "none"
        return named or bool(self.snapshots) or "outputs" in self.arrays

    @property
    def label(self) -> str:
        """The label that the evaluation wrote, else one made from the config."""
        if self.evaluation and self.evaluation.get("label"):
            return str(self.evaluation["label"])
        model = self.model if self.model == "tutorial" else self.model.upper()
        if self.model == "resnet":
            model = "ST-ResNet" if self.has_transformer else "ResNet"
        transform = str(self.config.get("transform", "")) if self.has_transformer else ""
        return f"{model} {transform.upper() if transform == 'tps' else transform}".strip()

    @property
    def photos(self) -> bool:
        """Whether it learned from the user's own images rather than from digits."""
        return self.config.get("source", "digits") != "digits"

    @property
    def things(self) -> str:
        """What it is tested on, in words."""
        if self.config.get("source") in ("gtsrb", "cub", "svhn") and not self.config.get("validation"):
            return "test images"
        return "validation images" if self.photos else "test digits"

    def called(self, label: int | np.ndarray) -> str:
        """The name of a class; of several heads, the digits of a number, which ends where there are none."""
        if np.ndim(label):
            digits = [self.called(int(each)) for each in np.asarray(label)]
            return "".join(each if len(each) == 1 else " " for each in digits).rstrip() or "nothing"
        label = int(label)
        names = (self.evaluation or {}).get("classes")
        known = isinstance(names, list) and 0 <= label < len(names)
        return str(names[label]) if known and isinstance(names, list) else str(label)

    @property
    def data(self) -> str:
        """The name of the set, for example RTS."""
        if self.evaluation and self.evaluation.get("set"):
            return str(self.evaluation["set"])
        data = str(self.config.get("data", "unknown set"))
        return Path(data).name if self.photos else data.upper()

    def pose(self, name: str) -> tuple[float, float] | None:
        """Residual (before, after) of "rotation_deg", "shift_px" or "log_scale"; None where it is not defined."""
        return _before_after(((self.evaluation or {}).get("pose") or {}).get(name))

    @property
    def variance(self) -> tuple[float, float] | None:
        """Within-class pixel variance (before, after) the transformer."""
        return _before_after((self.evaluation or {}).get("variance"))

    @property
    def variance_share(self) -> tuple[float, float] | None:
        """The same as a share of the mean squared pixel, which zooming in does not raise."""
        return _before_after((self.evaluation or {}).get("variance_share"))


def read_run(folder: str | Path) -> Run:
    """Read and check a run folder; UserError names the file and what is wrong with it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: not a run folder (no config.json in it)")
    config = _object(folder / "config.json")
    if config.get("format") != FORMAT:
        raise UserError(
            f"{folder / 'config.json'}: run format {config.get('format')!r}, this version reads format {FORMAT}; "
            "make the run again or read it with the version that wrote it"
        )
    rows = _metrics(folder / "metrics.jsonl")
    evaluation, arrays = _evaluation(folder)
    return Run(
        folder=folder,
        config=config,
        environment=_object(folder / "environment.json") if (folder / "environment.json").is_file() else {},
        loss=_curve(rows, "loss"),
        error=_curve(rows, "test_error"),
        snapshots=_snapshots(folder / "snapshots"),
        evaluation=evaluation,
        arrays=arrays,
    )


def moments(snapshots: tuple[Snapshot, ...], count: int) -> list[Snapshot]:
    """At most `count` snapshots: first, last, and ever longer strides between, since most is learned early."""
    if len(snapshots) <= count:
        return list(snapshots)
    steps = np.array([snapshot.step for snapshot in snapshots], dtype=np.float64)
    # log(1 + step / scale): strides grow with the step, and step 0 has a place on the axis.
    axis = np.log1p((steps - steps[0]) / max(float(np.ptp(steps)) / 60, 1.0))
    chosen = {0, len(steps) - 1}
    for target in np.linspace(axis[0], axis[-1], count)[1:-1]:
        free = [index for index in range(len(steps)) if index not in chosen]
        chosen.add(min(free, key=lambda index: abs(axis[index] - target)))
    return [snapshots[index] for index in sorted(chosen)]


def _object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: truncated or not JSON ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__}, a JSON object was wanted")
    return value


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl. A last line cut by a kill is dropped; a broken line before it is an error."""
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"{path}: line {number} of {len(lines)} is not a JSON object") from None
        rows.append(row)
    return rows


def _curve(rows: list[dict[str, Any]], key: str) -> Curve:
    """The rows that carry the key, one per step (a resumed run may have written a step twice: the later row holds)."""
    points = {
        int(row["step"]): (_number(row.get("seconds")), _number(row[key]))
        for row in rows
        if row.get(key) is not None and _number(row.get("step")) >= 0
    }
    table = np.array([(step, *points[step]) for step in sorted(points)], dtype=np.float64).reshape(-1, 3)
    return Curve(*table.T)


def _number(value: object) -> float:
    """A JSON value as a float, NaN when it is none."""
    return float(value) if isinstance(value, int | float) else float("nan")


def _before_after(value: object) -> tuple[float, float] | None:
    """The pair of a {"before": ..., "after": ...} record, None unless both are finite numbers."""
    if not isinstance(value, dict):
        return None
    pair = _number(value.get("before")), _number(value.get("after"))
    return pair if np.isfinite(pair).all() else None


def _snapshots(folder: Path) -> tuple[Snapshot, ...]:
    """All snapshots by step. A broken last one (the run was killed while writing it) is dropped."""
    paths = sorted(folder.glob("step-*.safetensors"))
    snapshots: list[Snapshot] = []
    for path in paths:
        try:
            snapshot = _snapshot(path)
        except UserError:
            if path is paths[-1]:
                break
            raise
        if snapshots and snapshot.outputs.shape[0] != snapshots[0].outputs.shape[0]:
            raise UserError(
                f"{path}: {snapshot.outputs.shape[0]} digits, {snapshots[0].outputs.shape[0]} in the first snapshot"
            )
        snapshots.append(snapshot)
    return tuple(sorted(snapshots, key=lambda snapshot: snapshot.step))


def _snapshot(path: Path) -> Snapshot:
    arrays, metadata = _tensors(path)
    outputs, lines = arrays.get("outputs"), arrays.get("lines")
    whole = outputs is not None and lines is not None and len(outputs) == len(lines)
    if outputs is None or lines is None or not whole or (outputs.ndim, lines.ndim) not in ((3, 4), (3, 5), (5, 5)):
        raise UserError(
            f"{path}: not a snapshot: outputs (12, h, w) and lines (12, L, P, 2) were wanted, or in colour outputs "
            "(12, count, h, w, C) and lines (12, count, L, P, 2)"
        )
    try:
        return Snapshot(int(metadata["step"]), float(metadata["seconds"]), outputs, lines)
    except (KeyError, ValueError):
        raise UserError(f"{path}: the metadata step and seconds are missing or are no numbers") from None


def _evaluation(folder: Path) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """evaluation.json and its arrays; (None, {}) when the run has not been evaluated."""
    path, tensors = folder / "evaluation.json", folder / "evaluation.safetensors"
    if not path.is_file():
        return None, {}
    record = _object(path)
    if not np.isfinite(_number(record.get("error"))):
        raise UserError(f"{path}: error is {record.get('error')!r}, a number in percent was wanted")
    if not tensors.is_file():
        raise UserError(f"{tensors}: missing beside evaluation.json; evaluate the run again")
    arrays, _ = _tensors(tensors)
    check_arrays(tensors, arrays)
    return record, arrays


def _tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path}: truncated or not a safetensors file ({error})") from None
