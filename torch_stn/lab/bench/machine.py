"""Where a record was made."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

import torch

from torch_stn.lab.run_folder import environment

PACKAGES = {"kornia": "kornia", "opencv": "opencv-python-headless"}


def describe(device: str) -> dict[str, Any]:
    """Versions, commit and whether the tree was changed since, processor, threads, date."""
    record = environment(device)
    return {
        **record,
        "commit": record["commit"] and record["commit"] + ("" if _clean() else ", changed since"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "rivals": {rival: _version(package) for rival, package in PACKAGES.items()},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _clean() -> bool:
    """Whether the tracked files are those of the commit."""
    where = Path(__file__).resolve().parents[3]
    try:
        done = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=where, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
