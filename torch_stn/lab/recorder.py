"""What a run writes while it trains: metrics.jsonl, and the same to TensorBoard."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from torch_stn.lab.run_folder import RunFolder

Watch = Callable[[Mapping[str, Any]], None]


class Recorder:
    """Rows to metrics.jsonl, to TensorBoard, and to whoever watches (a progress bar)."""

    def __init__(self, folder: RunFolder, watch: Watch, *, tensorboard: bool, first_step: int) -> None:
        self.folder = folder
        self.watch = watch
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # purge_step: what a killed run wrote beyond its last checkpoint is dropped from the curves.
            self.writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=first_step)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics: "step", "seconds" and numbers."""
        self.folder.append_metrics(row)
        self.watch(row)
        if self.writer is not None:
            for key, value in row.items():
                if key not in ("step", "seconds"):
                    self.writer.add_scalar(key, value, row["step"])

    def snapshot(self, step: int, seconds: float, arrays: Mapping[str, Tensor]) -> None:
        """What the transformer makes of the dozen at this step."""
        name = f"snapshots/step-{step:08d}.safetensors"
        self.folder.write_arrays(name, arrays, {"step": step, "seconds": f"{seconds:.3f}"})
        if self.writer is not None:
            self.writer.add_images("aligned", arrays["outputs"][:, None].clamp(0, 1), step)

    def close(self) -> None:
        """Flush."""
        if self.writer is not None:
            self.writer.close()
