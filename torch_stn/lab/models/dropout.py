"""Dropout whose mask is a function of (seed, global sample number, layer), so that a resumed run drops what an
unbroken one did.
"""

from torch import Tensor, nn

from torch_stn.lab.data.draws import uniform

_FIRST_STREAM = 1000  # streams below belong to the distortions


class Keyed(nn.Module):
    """A module whose draws are keyed by sample. Before a training step, :func:`set_samples` hands over which samples
    are in the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.samples: Tensor | None = None
        self.seed = 0


class SampleDropout(Keyed):
    """Dropout keyed by sample. ``channels`` drops whole channels, as nn.Dropout2d."""

    def __init__(self, p: float = 0.5, *, channels: bool = False, layer: int = 0) -> None:
        super().__init__()
        self.p = p
        self.channels = channels
        self.layer = layer

    def extra_repr(self) -> str:
        return f"p={self.p}, channels={self.channels}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.samples is None or len(self.samples) != len(x):
            raise RuntimeError("SampleDropout: call set_samples(model, seed, samples) before a training step")
        shape = x.shape[:2] if self.channels else x.shape
        count = shape[1:].numel()
        draws = uniform(self.seed, self.samples, _FIRST_STREAM + self.layer, count, 0.0, 1.0).reshape(shape)
        keep = (draws >= self.p).to(x.dtype) / (1 - self.p)
        return x * keep.reshape(*shape, *[1] * (x.dim() - len(shape)))


def set_samples(model: nn.Module, seed: int, samples: Tensor) -> None:
    """Tell everything in a model that draws by sample which global sample numbers the next batch holds."""
    for module in model.modules():
        if isinstance(module, Keyed):
            module.seed = seed
            module.samples = samples.detach()


def has_dropout(model: nn.Module) -> bool:
    """Whether a model needs :func:`set_samples`."""
    return any(isinstance(module, Keyed) for module in model.modules())
