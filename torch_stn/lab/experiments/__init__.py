"""One file an experiment: a claim of a paper, the command that checks it, and its Config. The folder is the
registry.
"""

import difflib
import importlib
import pkgutil

from torch_stn.lab.config import Config
from torch_stn.lab.errors import UserError


def names() -> list[str]:
    """All experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def config(name: str) -> Config:
    """The Config of an experiment."""
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), 1)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise UserError(f"NAME: wanted one of {', '.join(names())}, got {name!r}{hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    return module.CONFIG
