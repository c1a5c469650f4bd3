"""What a run writes while it trains: metrics.jsonl, and the same to TensorBoard; what its transformer does is in it."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from torch_stn.lab.data.load import DataSet
from torch_stn.lab.data.sets import Batch, DigitSet
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.run_folder import RunFolder
from torch_stn.nn import Monitor

Watch = Callable[[Mapping[str, Any]], None]


class Recorder:
    """Rows to metrics.jsonl, to TensorBoard, and to whoever watches (a progress bar).

    ``model`` with a transformer is monitored from ``first_step`` on: each row of training carries the monitor's
    numbers, and a collapse is a row of its own, "warning". None: not in this process.
    """

    def __init__(
        self,
        folder: RunFolder,
        watch: Watch,
        *,
        tensorboard: bool,
        first_step: int,
        model: nn.Module | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.watch = watch
        self.writer = None
        self.told: list[str] = []
        self.monitor: Monitor | None = None
        if isinstance(model, Aligned):
            self.monitor = Monitor(model, first_step=first_step, tell=self.told.append)
            if state:  # of a run that goes on
                self.monitor.load_state_dict(state)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # purge_step: what a killed run wrote beyond its last checkpoint is dropped from the curves.
            self.writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=first_step)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics: "step", "seconds" and numbers, or a text."""
        self.folder.append_metrics(row)
        self.watch(row)
        if self.writer is not None:
            for key, value in row.items():
                if isinstance(value, str):
                    self.writer.add_text(key, value, row["step"])
                elif key not in ("step", "seconds"):
                    self.writer.add_scalar(key, value, row["step"])

    def training_row(self, row: Mapping[str, Any]) -> None:
        """A row of training, with what the transformer did at the last look of the monitor."""
        numbers = self.monitor.metrics() if self.monitor else {}
        self.row({**row, **{key: round(value, 6) for key, value in numbers.items()}})
        self._say(row)

    def know(self, data: DataSet, batch: Batch) -> None:
        """The batch of the next step, where its pose is known."""
        if self.monitor and isinstance(data, DigitSet) and data.posed:
            self.monitor.know(lambda: data.training_map(batch), batch.labels)

    def state(self, step: int, seconds: float) -> Mapping[str, Any]:
        """What a run that goes on must know of the transformer; {} without one."""
        state = self.monitor.state_dict() if self.monitor else {}
        self._say({"step": step, "seconds": round(seconds, 3)})
        return state

    def snapshot(self, step: int, seconds: float, arrays: Mapping[str, Tensor]) -> None:
        """What the transformer makes of the dozen at this step."""
        name = f"snapshots/step-{step:08d}.safetensors"
        self.folder.write_arrays(name, arrays, {"step": step, "seconds": f"{seconds:.3f}"})
        if self.writer is not None:
            outputs = arrays["outputs"]  # (n, h, w), or (n, count, h, w, C)
            channels_first = outputs[:, None] if outputs.dim() == 3 else outputs.flatten(0, 1).permute(0, 3, 1, 2)
            self.writer.add_images("aligned", channels_first.clamp(0, 1), step)

    def close(self) -> None:
        """Flush."""
        if self.monitor:
            self.monitor.close()
        if self.writer is not None:
            self.writer.close()

    def _say(self, row: Mapping[str, Any]) -> None:
        """A row for each thing that the monitor has told."""
        while self.told:
            self.row({"step": row["step"], "seconds": row["seconds"], "warning": self.told.pop(0)})
