"""One file an experiment: a claim of a paper, the command that checks it, and its CONFIG; a whole table of a paper is a
TABLE too. The folder is the registry.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from torch_stn.lab.cell import Table
from torch_stn.lab.config import Config
from torch_stn.lab.errors import UserError


def names() -> list[str]:
    """All experiments that `stn train` takes."""
    return [name for name, module in _modules().items() if hasattr(module, "CONFIG")]


def config(name: str) -> Config:
    """The Config of an experiment."""
    return _module("NAME", name, names()).CONFIG


def tables() -> list[str]:
    """All tables that `stn reproduce` takes."""
    return [name for name, module in _modules().items() if hasattr(module, "TABLE")]


def table(name: str) -> Table:
    """A paper's table."""
    return _module("TABLE", name, tables()).TABLE


def _modules() -> dict[str, ModuleType]:
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in found}


def _module(argument: str, name: str, known: Iterable[str]) -> ModuleType:
    if name not in known:
        nearest = difflib.get_close_matches(name, known, 1)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise UserError(f"{argument}: wanted one of {', '.join(known)}, got {name!r}{hint}")
    return importlib.import_module(f"{__name__}.{name}")
