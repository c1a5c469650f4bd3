"""Which backend serves a problem: BACKENDS in order of preference, each asked for its reasons."""

from types import ModuleType

from torch_stn import _checks
from torch_stn.sampling.backends import aten, cpu, reference, triton
from torch_stn.sampling.problem import Problem

BACKENDS: dict[str, ModuleType] = {
    "cpu": cpu,
    "triton": triton,
    "aten": aten,
    "reference": reference,
}


def choose(problem: Problem, backend: str | None = None, does: str = "sample") -> ModuleType:
    """The backend asked for by name, or the first that can and does not step back; ``does``: "sample" or "splat".

    Raises: ValueError with the backend's own reason where it cannot; a backend asked for by name never falls back
    silently.
    """
    if backend is not None:
        module = BACKENDS[_checks.one_of("backend", backend, BACKENDS)]
        reason = module.why_not(problem) if hasattr(module, does) else f"it has no {does}"
        if reason is not None:
            raise ValueError(f"backend: {backend!r} cannot serve this call: {reason}")
        return module
    for module in BACKENDS.values():
        if hasattr(module, does) and module.why_not(problem) is None and module.not_by_default(problem) is None:
            return module
    raise AssertionError("the reference backend serves every problem")


def reasons(problem: Problem) -> dict[str, str | None]:
    """For each backend, why it does not serve the problem by default; None for those that would."""
    return {name: module.why_not(problem) or module.not_by_default(problem) for name, module in BACKENDS.items()}
