"""The training loop. Every random number of a step is a function of (seed, step, sample), so resuming needs no
generator state.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from torch_stn.lab import models
from torch_stn.lab.config import Config
from torch_stn.lab.data.load import DataSet, Source, data_set
from torch_stn.lab.data.sets import Batch
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import quick_error, snapshot
from torch_stn.lab.models.aligned import Aligned
from torch_stn.lab.models.backbones import load_weights
from torch_stn.lab.models.dropout import has_dropout, set_samples
from torch_stn.lab.processes import launch, trained
from torch_stn.lab.recorder import Recorder, Watch
from torch_stn.lab.run_folder import RunFolder
from torch_stn.nn import parameter_groups, penalties

PARTS = {"steps": 3, "fifths": 5}  # schedules that divide the learning rate by 10 after each part


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or a deadline: the run was saved at ``step`` and can be resumed."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step


def train_step(
    fabric: Fabric,
    model: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: Config,
    weights: Tensor | None = None,
) -> Tensor:
    """One step: loss, gradients, update; ``weights`` of the classes. Returns the loss, detached, on the device."""
    optimizer.zero_grad(set_to_none=True)
    zoom: Tensor | float = 0.0
    if config.area_penalty and isinstance(model.module, Aligned):
        scores, theta = model(batch.images, return_theta=True)
        maps = model.module.transformer.maps(theta)
        zoom = config.area_penalty * sum(penalties.area(each) for each in maps) / len(maps)
    else:
        scores = model(batch.images)
    loss: Tensor = zoom + classification_loss(scores, batch.labels, config.label_smoothing, weights)
    fabric.backward(loss)
    if config.clip:
        fabric.clip_gradients(model, optimizer, max_norm=config.clip, error_if_nonfinite=False)
    optimizer.step()
    return loss.detach()


def classification_loss(scores: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy. With weights, a plain mean over the batch of each image's loss times its class's weight: dividing
    by the weights of the batch, as F.cross_entropy does, would make a share of a batch count by what it holds.

    Scores (N, K) and labels (N,), or with several heads (N, heads, K) and (N, heads): the mean over heads too.
    """
    scores, labels = scores.flatten(0, -2), labels.flatten()
    if weights is None:
        return F.cross_entropy(scores, labels, label_smoothing=smoothing)
    losses = F.cross_entropy(scores, labels, label_smoothing=smoothing, reduction="none")
    return (losses * weights[labels].to(losses.dtype)).mean()


def train(
    folder: RunFolder,
    source: Source,
    watch: Watch = lambda row: None,
    fabric: Fabric | None = None,
    deadline: float = math.inf,
) -> None:
    """Train the run of a folder from its last checkpoint, or from the start, to its end.

    Raises: UserError where the loss is no longer finite (the last good checkpoint stays); Interrupted after Ctrl-C, and
    where time.monotonic() passes the ``deadline``.
    """
    config = folder.config()
    if config.threads:
        torch.set_num_threads(config.threads)
    fabric = fabric or launch(config)
    if config.batch_size % fabric.world_size:
        raise UserError(f"batch_size: wanted a multiple of the {fabric.world_size} processes, got {config.batch_size}")
    data = data_set(source, config, fabric.device)
    folder.refuse_other(source)
    raw = models.build(config, data.facts)
    if not folder.checkpoints():
        load_weights(raw, config)
    model, optimizer = fabric.setup(raw, make_optimizer(raw, config))
    data.dtype = next(raw.parameters()).dtype
    limit = step_limit(config, len(data.train[1]))

    step, elapsed, moment = 0, 0.0, 0
    state: dict[str, Any] = {}
    if folder.checkpoints():
        folder.load_into(raw)
        state = folder.load_state()
        try:
            optimizer.load_state_dict(state["optimizer"])
            step, elapsed, moment = state["step"], state["elapsed"], state["moment"]
        except (KeyError, ValueError) as error:
            path = folder.checkpoints()[-1] / "state.pt"
            raise UserError(f"{path}: is not a state of this run's training: {error}") from None
    if fabric.is_global_zero:
        folder.forget_after(step if folder.checkpoints() else -1)
    recorder = Recorder(
        folder,
        watch,
        tensorboard=config.tensorboard and fabric.is_global_zero,
        first_step=step,
        # A transformer that is frozen on purpose has not collapsed.
        model=raw if fabric.is_global_zero and config.localization_rate > 0 else None,
        state=state.get("monitor"),
    )

    def save() -> None:
        if fabric.is_global_zero:
            state = {"elapsed": elapsed, "moment": moment, "optimizer": optimizer.state_dict()}
            state["monitor"] = recorder.state(step, elapsed)
            folder.save_checkpoint(step, raw.state_dict(), state)

    moments = evaluation_moments(config.evaluations)
    losses: list[Tensor] = []
    keyed, logged = has_dropout(raw), (step, elapsed)
    with stop_signals() as stopped:
        while True:
            elapsed, halted = agree(fabric, elapsed, bool(stopped) or time.monotonic() >= deadline)
            done = progress(config, limit, step, elapsed)
            over = done >= 1 or halted
            saving = over or (step > 0 and step % config.checkpoint_every == 0)
            logging = over or step % config.log_every == 0
            if losses and (logging or saving):
                losses[:] = mean_of_ranks(fabric, losses)
                check_finite(losses, step, folder, writes=fabric.is_global_zero)
            if losses and logging:
                rate = (step - logged[0]) * config.batch_size / max(elapsed - logged[1], 1e-9)
                row = {
                    "loss": float(torch.stack(losses).mean()),
                    "learning_rate": config.learning_rate * shape(config, done),
                }
                if fabric.is_global_zero:
                    row |= {"images_per_second": round(rate)}
                    recorder.training_row({"step": step, "seconds": round(elapsed, 3), **row})
                losses, logged = [], (step, elapsed)
            if moment < len(moments) and done >= moments[moment]:
                while moment < len(moments) and done >= moments[moment]:
                    moment += 1
                if fabric.is_global_zero:
                    _look(recorder, raw, data, step, elapsed)
            if over:
                trained()
            if saving:
                save()
            if over:
                break
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * group["scale"] * shape(config, done)
            batch = data.training_batch(step, config.batch_size, fabric.global_rank, fabric.world_size)
            if keyed:
                set_samples(raw, config.seed, batch.samples)
            recorder.know(data, batch)
            losses.append(train_step(fabric, model, optimizer, batch, config, data.class_weights))
            step += 1
            elapsed += time.perf_counter() - began
    recorder.close()
    if halted and done < 1:
        raise Interrupted(step)


def agree(fabric: Fabric, elapsed: float, stopped: bool) -> tuple[float, bool]:
    """One clock and one decision to stop for all processes: those of the furthest."""
    if fabric.world_size == 1:
        return elapsed, stopped
    together = fabric.all_reduce(torch.tensor([elapsed, float(stopped)], dtype=torch.float64), reduce_op="max")
    return float(together[0]), bool(together[1])


def mean_of_ranks(fabric: Fabric, losses: list[Tensor]) -> list[Tensor]:
    """Each step's loss over the whole batch, so that every process sees the same one that is not finite."""
    if fabric.world_size == 1:
        return losses
    mean = fabric.all_reduce(torch.stack(losses), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return list(mean)


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Groups by learning rate and weight decay. Biases and the regression head do not decay: theta would be pulled
    off the identity.
    """
    rows = parameter_groups(
        model,
        lr=config.learning_rate,
        localization_rate=config.localization_rate,
        weight_decay=config.weight_decay,
    )
    if config.optimizer == "sgd":
        return torch.optim.SGD(rows, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(rows, lr=config.learning_rate, fused=True)


def step_limit(config: Config, images: int) -> float:
    """The last step by `steps` or `epochs`, whichever comes first; infinite where only seconds count."""
    limits = [config.steps or math.inf, math.ceil(config.epochs * images / config.batch_size) or math.inf]
    return min(limits)


def progress(config: Config, limit: float, step: int, elapsed: float) -> float:
    """How much of the run is done, 0 to 1: by steps or by seconds, whichever is further."""
    by_time = elapsed / config.seconds if config.seconds else 0.0
    return min(1.0, max(step / limit, by_time))


def shape(config: Config, done: float) -> float:
    """The learning rate at a moment of the run, as a share of its peak."""
    if done < config.warmup:
        # From a hundredth, not from 0: the first step should move.
        return max(0.01, done / config.warmup)
    if config.schedule in PARTS:
        parts = PARTS[config.schedule]
        return 0.1 ** min(parts - 1, int(parts * done))
    return 0.5 * (1 + math.cos(math.pi * (done - config.warmup) / (1 - config.warmup)))


def evaluation_moments(count: int) -> list[float]:
    """Shares of the run at which to look, closer together at the start, where the alignment is learned."""
    return [(i / max(count - 1, 1)) ** 2 for i in range(count)]


def check_finite(losses: list[Tensor], step: int, folder: RunFolder, *, writes: bool = True) -> None:
    """Stop at a loss that is not finite; nothing after it is saved. Of several processes one ``writes``."""
    bad = [i for i, loss in enumerate(losses) if not bool(torch.isfinite(loss))]
    if bad:
        # This loss is that of the weights after so many steps: a checkpoint of just then is no good one.
        if writes:
            folder.drop_checkpoint(step - len(losses) + bad[0])
        kept = folder.checkpoints()
        where = f"; the last good checkpoint is {kept[-1]}" if kept else ""
        raise UserError(
            f"loss: not finite at step {step - len(losses) + bad[0] + 1}{where}; a lower learning_rate may help"
        )


def _look(recorder: Recorder, model: nn.Module, data: DataSet, step: int, elapsed: float) -> None:
    """A point of the error curve and, with a transformer, a snapshot."""
    recorder.row({"step": step, "seconds": round(elapsed, 3), "test_error": quick_error(model, data)})
    if isinstance(model, Aligned):
        recorder.snapshot(step, elapsed, snapshot(model, data))


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list, so that the loop ends between two steps; a second Ctrl-C is immediate."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            before[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: the caller's signals stay as they are
            break
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
