"""A run folder on disk: config, metrics, environment, checkpoints, snapshots. Nothing half-written is ever left as
whole.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from torch_stn._version import __version__
from torch_stn.lab.config import Config, from_record
from torch_stn.lab.data.facts import Facts, read_facts
from torch_stn.lab.data.load import Source, facts_for
from torch_stn.lab.data.photos import Photos
from torch_stn.lab.data.sets import digit_facts
from torch_stn.lab.errors import UserError

FORMAT = 1  # of the folder; another number is another layout
KEPT = 2  # checkpoints


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @classmethod
    def create(
        cls, path: Path | str, config: Config, environment: Mapping[str, Any], source: Source | None = None
    ) -> "RunFolder":
        """A new run; refuses a folder that holds one already. data.json tells of the user's own images."""
        folder = cls(path)
        folder.refuse_existing()
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{path}: wanted a folder for the run, got a file, or a path below one") from None
        folder.write_json("environment.json", environment)
        if isinstance(source, Photos):
            folder.write_json("data.json", data_record(source, facts_for(source, config)))
            if source.index is not None:
                folder.write_json("shards.json", source.index)
        folder.write_json("config.json", {"format": FORMAT, **asdict(config)})
        return folder

    def refuse_existing(self) -> None:
        """A run is never written over."""
        if (self.path / "config.json").exists():
            raise UserError(
                f"{self.path}: holds a run already; go on with --resume {self.path}, or choose another --run"
            )

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """A run that exists, of this format."""
        folder = cls(path)
        record = folder.read_json("config.json", missing="no run here: it has no config.json")
        if record.get("format") != FORMAT:
            raise UserError(f"{path}: wanted a run folder of format {FORMAT}, got format {record.get('format')!r}")
        return folder

    def config(self) -> Config:
        """The run's config."""
        try:
            return from_record(self.read_json("config.json", missing="no run here: it has no config.json"))
        except UserError as error:
            raise UserError(f"{self.path / 'config.json'}: {error}") from None

    def facts(self) -> Facts:
        """What the run's network knows of its data."""
        config = self.config()
        if not config.photos:
            return digit_facts(config.data)
        return read_facts(self._data().get("facts", {}), self.path / "data.json")

    def refuse_other(self, source: Source) -> None:
        """A run goes on with the images that it began with, and is judged by those that it held out."""
        if isinstance(source, Photos) and self._data().get("digest") != source.digest:
            raise UserError(
                f"{self.config().data}: holds other images than when {self.path} began; wanted the same, or a new run"
            )

    def _data(self) -> dict[str, Any]:
        return self.read_json("data.json", missing="not whole: it has no data.json")

    def read_json(self, name: str, *, missing: str) -> dict[str, Any]:
        """A JSON object of the folder; ``missing`` says what its absence means."""
        path = self.path / name
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.path}: {missing}") from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise UserError(f"{path}: wanted a JSON object, the file is damaged") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}: wanted a JSON object, got {type(record).__name__}")
        return record

    def write_json(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a JSON object at once or not at all."""
        temporary = self.path / f".{name}.tmp"
        with _named(self.path / name):
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self.path / name)

    def write_arrays(self, name: str, arrays: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
        """Write tensors as safetensors, at once or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        plain = {key: value.detach().cpu().contiguous() for key, value in arrays.items()}
        with _named(path):
            safetensors.torch.save_file(plain, temporary, {key: str(value) for key, value in (metadata or {}).items()})
        os.replace(temporary, path)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        with _named(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a last line cut by a kill is dropped."""
        path = self.path / "metrics.jsonl"
        rows = []
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
        return rows

    def forget_after(self, step: int) -> None:
        """Drop metrics and snapshots of steps that a resumed run will take again."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step]
        temporary = self.path / ".metrics.jsonl.tmp"
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(temporary, self.path / "metrics.jsonl")
        for snapshot in (self.path / "snapshots").glob("step-*.safetensors"):
            if int(snapshot.stem.removeprefix("step-")) > step:
                snapshot.unlink()

    def save_checkpoint(self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Weights as safetensors, the rest for torch.load(weights_only=True), in a folder that appears whole; keeps
        the last two.
        """
        checkpoints = self.path / "checkpoints"
        final = checkpoints / f"step-{step:08d}"
        if (
            final.exists()
        ):  # the same step has the same weights, and what is whole is never taken away to be written again
            return final
        temporary = checkpoints / f".{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        plain = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        with _named(final):
            safetensors.torch.save_file(plain, temporary / "model.safetensors")
            torch.save({"step": step, **state}, temporary / "state.pt")
        os.replace(temporary, final)
        for old in self.checkpoints()[:-KEPT]:
            _remove(old)
        return final

    def drop_checkpoint(self, step: int) -> None:
        """Take the checkpoint of a step away, if there is one."""
        _remove(self.path / "checkpoints" / f"step-{step:08d}")

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def load_weights(self) -> dict[str, Tensor]:
        """The weights of the last checkpoint."""
        if not self.checkpoints():
            raise UserError(f"{self.path}: no checkpoint yet")
        path = self.checkpoints()[-1] / "model.safetensors"
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: cannot be read as safetensors: {_line(error)}") from None

    def load_into(self, model: nn.Module) -> None:
        """Put the weights of the last checkpoint into a network."""
        try:
            model.load_state_dict(self.load_weights())
        except RuntimeError:
            path = self.checkpoints()[-1] / "model.safetensors"
            raise UserError(f"{path}: holds the weights of another network than config.json describes") from None

    def load_state(self) -> dict[str, Any]:
        """Step, optimiser and the rest of the last checkpoint; tensors and plain values only, no pickled objects."""
        path = self.checkpoints()[-1] / "state.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{path}: cannot be read as a training state: {_line(error)}") from None
        if not isinstance(state, dict) or "step" not in state:
            raise UserError(f"{path}: wanted a training state, got {type(state).__name__}")
        return state


def data_record(photos: Photos, facts: Facts) -> dict[str, Any]:
    """What data.json holds: the facts, the count of images, every file that was left out with its reason."""
    return {
        "facts": facts.record(),
        "train_images": len(photos.train_labels),
        "validation_images": len(photos.test_images),
        "digest": photos.digest,
        "summary": photos.summary,
        "skipped": [{"file": each.name, "reason": each.reason} for each in photos.skipped],
    }


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint under a hidden name, so that a kill on the way leaves no half one under its own."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(checkpoint, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """A full disk, told with the name of the file: safetensors, torch.save and write() leave it out."""
    try:
        yield
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _line(error)
        raise UserError(f"{path}: cannot be written: {reason}; what was whole before still is") from None


def environment(device: str) -> dict[str, Any]:
    """Where and with what a run was made."""
    return {
        "torch_stn": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "processor": torch.cuda.get_device_name(device) if device.startswith("cuda") else _cpu(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu() -> str:
    """The processor's name, from Linux where it tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the source tree this package runs from, if it runs from one."""
    try:
        where = Path(__file__).resolve().parents[2]
        if not (where / ".git").exists():
            return None
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _line(error: Exception) -> str:
    """The first line of an exception's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
