"""Monitor: what the transformers of a model do while it trains, and since which step one of them has collapsed."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torch_stn.nn.determinants import cell_determinants, lattice
from torch_stn.nn.pose import affine_fit, pose, spread
from torch_stn.nn.stn import SpatialTransformer
from torch_stn.transforms.maps import Map

CELLS = 8  # each way, of the lattice on which maps are asked
FIT = 16  # points each way of an affine fit
Truth = tuple[Map | Callable[[], Map], Tensor | None]  # how pictures were made, and their classes
KEPT = 100  # observations on the device before they are fetched: one wait for the device in a hundred
NAMES = ("finite", "outside", "scale", "scale_spread", "determinant_min", "determinant_max", "folds", "moved", "spread")


class CollapseWarning(UserWarning):
    """A localisation net does nothing useful any more."""


@dataclass(frozen=True)
class Limits:
    """What counts as a collapse, when it lasts ``patience`` observations without a break."""

    outside: float = 0.5  # share of the points that read outside the image
    smallest: float = (
        0.1  # mean scale: pixels of the input a pixel of the output steps over, over those of the identity
    )
    largest: float = 4.0
    folds: float = 0.05  # share of the cells that are folded or mirrored
    spread: float = 1e-3  # normalised units: all images get the same map when theirs differ by less ...
    settle: int = 100  # ... for so many observations: at the start they do
    patience: int = 10


class Monitor:
    """Watches every SpatialTransformer of a model while it trains: one line before the loop, nothing in it.

    A step is a forward pass in training mode. Every ``every``-th is observed on an 8 x 8 lattice over the output; a
    collapse is told once, through ``tell``, with the step since which it lasts.

    :meth:`metrics` gives, of the last observed batch:
        outside: share of the points that read outside the image;
        scale, scale_spread: geometric mean over the batch of the d-th root of the map's determinant (below 1 zooms in),
            and the standard deviation of its logarithm;
        determinant_min, determinant_max: over all cells and images; folds: share of the cells where it is not above 0;
        moved: root mean square of the displacement; spread: that of its standard deviation over the batch, normalised;
        residual_rotation_deg, residual_shift, residual_log_scale: the spread within a class of what is left of a pose
            that :meth:`know` told; shift in normalised units;
        finite: share of the images whose points are all finite.

    Args:
        model: holds the transformers; or is one. Of several, the metrics' names begin with their path in the model.
        every: steps from one observation to the next.
        first_step: the number of the first step, where training goes on.
        limits: what counts as a collapse.
        tell: what to do with the message; None raises a :class:`CollapseWarning`.
    Gradients: none; it draws no random numbers, so a watched run is bit by bit an unwatched one.
    Raises: ValueError where the model holds no transformer.

    Example:
        >>> from torch_stn import Affine, LocalizationFC
        >>> model = nn.Sequential(SpatialTransformer(LocalizationFC((1, 28, 28)), Affine()), nn.Flatten())
        >>> monitor = Monitor(model)
        >>> _ = model(torch.rand(4, 1, 28, 28))
        >>> monitor.metrics()["scale"]
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 10,
        first_step: int = 0,
        limits: Limits | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every: wanted at least 1, got {every}")
        found = {name: m for name, m in model.named_modules() if isinstance(m, SpatialTransformer)}
        if not found:
            raise ValueError(f"model: wanted a SpatialTransformer in it, found none in {type(model).__name__}")
        self.every = every
        self.limits = limits or Limits()
        self.tell = tell or partial(warnings.warn, category=CollapseWarning, stacklevel=2)
        self._truth: Truth | None = None
        self._flat = all(module.transform.dims == 2 for module in found.values())
        self._logs: dict[str, _Log] = {}
        self._hooks = []
        for name, module in found.items():
            names = [name] if module.count == 1 else [f"{name}[{i}]" for i in range(module.count)]
            logs = [self._logs.setdefault(each, _Log(each or type(module).__name__)) for each in names]
            # Not as a decorator: it loads the compiler, seconds that who only imports this should not pay.
            watched = _Watched(self, module, logs, first_step)
            self._hooks.append(module.head.register_forward_hook(torch.compiler.disable(watched.see)))

    def know(self, truth: Map | Callable[[], Map], labels: Tensor | None = None) -> None:
        """Tell the pose of the batch of each next step: ``truth`` is how its pictures were made from upright ones, or
        a function that says so, called for the few batches that are measured; ``labels`` (N,) are the classes within
        which the spread is taken; None: all in one.

        Raises: ValueError where a transformer is not 2-D: rotation, shift and scale are those of the plane.
        """
        if not self._flat:
            raise ValueError("truth: wanted a model of 2-D transformers, whose residual pose is known; got others")
        self._truth = (truth, labels)

    def metrics(self) -> dict[str, float]:
        """The numbers of the last observed batch, {} before the first one. Waits for the device."""
        result: dict[str, float] = {}
        for name, log in self._logs.items():
            log.fetch(self.limits, self.tell)
            prefix = f"{name}." if len(self._logs) > 1 else ""
            result |= {prefix + key: value for key, value in log.numbers.items()}
        return result

    def collapsed(self) -> dict[str, int]:
        """The transformers that have been told to have collapsed, and since which step."""
        self.metrics()
        return {name or "transformer": min(log.told.values()) for name, log in self._logs.items() if log.told}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """What a run that goes on later must know: the last numbers, and since when something has been wrong."""
        self.metrics()
        return {name: log.state() for name, log in self._logs.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from a :meth:`state_dict` of a monitor of the same model."""
        if state.keys() != self._logs.keys():
            raise ValueError(f"state: wanted that of {sorted(self._logs)}, got that of {sorted(state)}")
        for name, log in self._logs.items():
            log.set(state[name])

    def close(self) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()


class _Watched:
    """One transformer: counts its steps and sees its thetas go by."""

    def __init__(self, monitor: Monitor, module: SpatialTransformer, logs: "list[_Log]", step: int) -> None:
        self.monitor = monitor
        self.module = module
        self.logs = logs
        self.step = step
        self.looks: list[Tensor] = []

    def see(self, head: nn.Module, inputs: object, theta: Tensor) -> None:
        """The hook of the head: it runs once a look."""
        if not head.training or not torch.is_grad_enabled() or not len(theta):
            return
        self.looks.append(theta.detach())
        if len(self.looks) < self.module.iterations:
            return
        looks, self.looks = self.looks, []
        step, self.step = self.step, self.step + 1
        if step % self.monitor.every:
            return
        with torch.no_grad():
            for map, log in zip(self.module.maps(_arranged(looks, self.module)), self.logs, strict=True):
                log.add(step, _observe(map), map, self.monitor._truth)
                if len(log.rows) >= KEPT:
                    log.fetch(self.monitor.limits, self.monitor.tell)


def _arranged(looks: list[Tensor], module: SpatialTransformer) -> Tensor:
    """Outputs of the head as :meth:`SpatialTransformer.theta` returns them."""
    if module.iterations > 1:
        return torch.stack(looks, dim=1)
    return looks[0].unflatten(1, (module.count, -1)) if module.count > 1 else looks[0]


class _Log:
    """What was observed of one transformer, and which collapses are under way."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[Tensor] = []
        self.steps: list[int] = []
        self.numbers: dict[str, float] = {}
        self.latest: tuple[Map, Truth | None] | None = None
        self.since: dict[str, tuple[int, int]] = {}  # kind -> first step, observations without a break
        self.told: dict[str, int] = {}

    def add(self, step: int, row: Tensor, map: Map, truth: Truth | None) -> None:
        self.steps.append(step)
        self.rows.append(row)
        self.latest = (map, truth)

    def fetch(self, limits: Limits, tell: Callable[[str], None]) -> None:
        """Bring the rows from the device and look for a collapse."""
        if not self.rows:
            return
        rows, self.rows = torch.stack(self.rows).tolist(), []
        steps, self.steps = self.steps, []
        for step, row in zip(steps, rows, strict=True):
            self.numbers = {name: value for name, value in zip(NAMES, row, strict=True) if not math.isnan(value)}
            wrong = _wrong(self.numbers, limits)
            self.since = dict.fromkeys(wrong, (step, 0)) | {k: v for k, v in self.since.items() if k in wrong}
            self.since = {kind: (first, times + 1) for kind, (first, times) in self.since.items()}
            enough = {"spread": max(limits.settle, limits.patience)}
            lasting = {k: first for k, (first, n) in self.since.items() if n >= enough.get(k, limits.patience)}
            if lasting and not self.told:
                self.told = lasting
                words = "; ".join(wrong[kind] for kind in lasting)
                tell(f"{self.title}: the localisation net has collapsed, since step {min(lasting.values())}: {words}")
        assert self.latest is not None
        map, truth = self.latest
        self.latest = None  # it holds on to a batch
        if truth is not None:
            self.numbers |= _residual(map, *truth)

    def state(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "since": dict(self.since), "told": dict(self.told)}

    def set(self, state: Mapping[str, Any]) -> None:
        self.numbers = dict(state["numbers"])
        self.since = {kind: (first, times) for kind, (first, times) in state["since"].items()}
        self.told = dict(state["told"])


def _residual(map: Map, truth: Map | Callable[[], Map], labels: Tensor | None) -> dict[str, float]:
    """The spread of what is left of a known pose."""
    truth = truth if isinstance(truth, Map) else truth()
    left = pose(affine_fit(truth.then(map).grid((FIT, FIT)))).cpu()
    classes = torch.zeros(len(left), dtype=torch.int64) if labels is None else labels.cpu()
    names = ("residual_rotation_deg", "residual_shift", "residual_log_scale")
    return dict(zip(names, spread(left, classes), strict=True))


def _wrong(numbers: dict[str, float], limits: Limits) -> dict[str, str]:
    """The kinds of collapse that one observation shows, each in words."""
    scale = numbers["scale"]
    found = {}
    if numbers["finite"] < 1:
        found["finite"] = f"{1 - numbers['finite']:.0%} of the images have points that are not finite"
    if numbers["outside"] > limits.outside:
        found["outside"] = f"{numbers['outside']:.0%} of the points read outside the image"
    if scale < limits.smallest:
        found["smallest"] = f"it zooms in until a pixel steps over {scale:.2g} of one"
    if scale > limits.largest:
        found["largest"] = f"it zooms out until a pixel steps over {scale:.2g} of them"
    if numbers["folds"] > limits.folds:
        found["folds"] = f"{numbers['folds']:.0%} of the map is folded or mirrored"
    if numbers.get("spread", math.inf) < limits.spread:
        found["spread"] = f"it gives every image the same map (they differ by {numbers['spread']:.1g})"
    return found


def _observe(map: Map) -> Tensor:
    """One row of NAMES, on the device."""
    corners, sources = lattice(map, CELLS)
    finite = sources.isfinite().flatten(1).all(dim=1)
    moved = torch.where(sources.isfinite(), sources - corners, 0.0)
    determinants = cell_determinants(sources).flatten(1)
    known = determinants.isfinite()  # behind a homography's camera there is no area
    areas = torch.where(known, determinants.abs(), 0.0).sum(dim=1) / known.sum(dim=1).clamp(min=1)
    log_scale = areas.clamp(min=1e-12).log() / map.dims
    return torch.stack(
        [
            finite.to(moved.dtype).mean(),
            1 - (sources.abs() <= 1 + 1e-6).all(dim=-1).to(moved.dtype).mean(),
            log_scale.mean().exp(),
            log_scale.std(unbiased=False),
            torch.where(known, determinants, float("inf")).min(),
            torch.where(known, determinants, -float("inf")).max(),
            (determinants <= 0).to(moved.dtype).mean(),
            moved.square().sum(dim=-1).mean().sqrt(),
            # NaN, hence no number at all, where one picture has nobody to differ from.
            moved.var(dim=0, unbiased=False).sum(dim=-1).mean().sqrt() * (1 if len(moved) > 1 else math.nan),
        ]
    )
