"""Who may import whom, what starts without torch, names and lengths of files: read by `ast`, nothing is run."""

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from source_imports import imports, modules

ROOT = Path(__file__).resolve().parents[1]

FOUNDATION = "_checks coordinates lowered"
RULES = (
    "sampling.problem sampling.interpolation sampling.padding sampling.prefilter sampling.taps sampling.antialias "
    "sampling.pyramid"
)
SAMPLER = "sampling.sample sampling.read sampling.interpolation sampling.padding sampling.problem sampling.gradients"
KERNELS = "sampling.backends.cpu_library sampling.backends.cpu_call sampling.backends.cpu_operator"  # one backend
TRITON = "sampling.backends.triton_kernels"  # one backend
REASONS = "sampling.choose.BACKENDS sampling.choose.reasons"  # `stn doctor` tells who serves what
# Each module and what of the project it may name besides itself and what lies in it; the nearest row upwards holds.
# What is missing in a row is the rule: transforms and sampling do not know each other, backends do not know each other,
# only `sample` and `warp` choose a backend, nothing below the lab knows the lab.
MAY_IMPORT = {
    "": f"_version {FOUNDATION} transforms sampling warping compat nn",  # the face: all but the lab
    "__main__": "lab.cli",  # python -m torch_stn
    "_version": "",
    "_checks": FOUNDATION,
    "coordinates": FOUNDATION,
    "lowered": FOUNDATION,
    "transforms": f"{FOUNDATION} transforms",
    "sampling": FOUNDATION,
    "sampling.problem": f"{FOUNDATION} {RULES}",
    "sampling.interpolation": f"{FOUNDATION} {RULES}",
    "sampling.padding": f"{FOUNDATION} {RULES}",
    "sampling.prefilter": f"{FOUNDATION} {RULES}",
    "sampling.taps": f"{FOUNDATION} {RULES}",
    "sampling.gradients": f"{FOUNDATION} {RULES}",
    "sampling.antialias": f"{FOUNDATION} {RULES}",
    "sampling.pyramid": f"{FOUNDATION} {RULES}",
    "sampling.backends": f"{FOUNDATION} {RULES}",
    "sampling.backends.cpu": f"{FOUNDATION} {RULES} {KERNELS}",
    "sampling.backends.cpu_call": KERNELS,
    "sampling.backends.cpu_operator": KERNELS,
    "sampling.backends.triton": f"{FOUNDATION} {RULES} {TRITON}",
    TRITON: TRITON,
    "sampling.choose": f"{FOUNDATION} {RULES} sampling.backends",
    "sampling.read": f"{FOUNDATION} {RULES} sampling.choose sampling.gradients",
    "sampling.straight": f"{FOUNDATION} {RULES} sampling.choose sampling.read",
    "sampling.affine_footprints": f"{FOUNDATION} {RULES} sampling.read",
    "sampling.footprints": f"{FOUNDATION} {RULES} sampling.read sampling.choose sampling.gradients "
    "sampling.affine_footprints",
    "sampling.sample": f"{FOUNDATION} {RULES} sampling.read sampling.straight sampling.gradients sampling.footprints",
    "sampling.splat": f"{FOUNDATION} {RULES} sampling.read sampling.choose",
    "sampling.slopes": f"{FOUNDATION} {RULES} sampling.read sampling.backends.reference",
    "sampling.labels": f"{FOUNDATION} {RULES} sampling.read sampling.sample",
    "warping": f"{FOUNDATION} {SAMPLER} sampling.straight sampling.antialias sampling.footprints transforms",
    "compat": f"{FOUNDATION} {SAMPLER} transforms",
    "nn": f"{FOUNDATION} {SAMPLER} sampling.choose.BACKENDS transforms warping compat nn",  # checks the name early
    "lab": f"torch_stn _version {FOUNDATION} {SAMPLER} {REASONS} transforms warping compat nn lab",
    "lab.bench.cases": "lab.errors",  # pure data
    "lab.bench.rows": "",
    "lab.bench.page": "lab.bench.rows",  # these two read records and never measure
    "lab.bench.picture": "lab.bench.rows",
    "lab.experiments": "lab.config lab.cell lab.errors",  # data about a claim, no code that runs it
    "lab.cell": "lab.config",  # plain data
    "lab.recipes": "lab.config",
    "lab.report": "_version lab.config lab.cell lab.experiments lab.errors lab.report",  # it reads files and never trains
}
# Packages from outside, in the same way; None: any.
MAY_USE: dict[str, str | None] = {
    "": "torch numpy",  # `pip install torch-stn` brings these two
    "sampling.backends.triton": "torch",  # its kernels are loaded by the first call
    TRITON: "torch triton",
    "lab": None,
    "lab.bench.cases": "",
    "lab.bench.rows": "",
    "lab.bench.page": "",
    "lab.bench.picture": "matplotlib",
    "lab.cell": "",
    "lab.recipes": "",
    "lab.experiments": "",
    "lab.report": "jinja2 markupsafe matplotlib numpy PIL safetensors",  # no torch: a report can be made anywhere
}
# What must not be loaded when the module is imported, through whatever chain of imports at the top of files.
STARTS_WITHOUT = {
    "": "torch numpy",
    "sampling.choose": "triton",  # half a second that nobody on a CPU owes
    "lab.cli": "torch lightning_fabric matplotlib",  # `stn --help` answers at once
    "lab.jobs": "torch lightning_fabric matplotlib",  # a mistake in the words is told at once
    "lab.bench.command": "torch lightning_fabric matplotlib",  # a mistake in the words is told at once
    "lab.report": "torch lightning_fabric",
}
VAGUE = {"utils", "util", "misc", "common", "helpers", "helper"}
LONGEST = 300
# Files that may be longer, each with the reason.
LONG: dict[str, str] = {}


def below(name: str, rooms: str) -> bool:
    """Whether a dotted name is one of the rooms or lies in one."""
    return any(f"{name}.".startswith(f"{room}.") for room in rooms.split())


def nearest(rows: Iterable[str], module: str) -> str:
    """The row of a table that holds for a module: its own or the nearest above."""
    return max((row for row in rows if row == "" or below(module, row)), key=len)


def broken_rules(root: Path) -> list[str]:
    """One line for each import that the tables do not allow."""
    lines = []
    for i in imports(root):
        top = i.target.split(".")[0]
        if i.ours:
            row = nearest(MAY_IMPORT, i.module)
            allowed = below(i.target, f"{MAY_IMPORT[row]} {i.module}")
        else:
            row = nearest(MAY_USE, i.module)
            outside = MAY_USE[row]
            allowed = outside is None or top in sys.stdlib_module_names or top in outside.split()
        if not allowed:
            lines.append(f"{i.where}: {row or 'torch_stn'} may not import {i.target}")
    return lines


def loads(root: Path, start: str) -> dict[str, str]:
    """The outside packages that importing a module loads, each with the import that does it."""
    paths, early = modules(root), [i for i in imports(root) if i.early]
    found: dict[str, str] = {}
    done, todo = set(), {start}
    while todo:
        module = todo.pop()
        done.add(module)
        for i in (i for i in early if i.module == module):
            if not i.ours:
                found.setdefault(i.target.split(".")[0], i.where)
            parts = i.target.split(".") if i.ours else []
            todo |= {".".join(parts[:n]) for n in range(len(parts) + 1)} & paths.keys()  # a.b.c runs a and a.b first
        todo = (todo | {module.rpartition(".")[0]}) - done
    return found


def vague_names(root: Path) -> list[str]:
    """Files and folders whose name does not say what is in them."""
    return [str(p.relative_to(root)) for p in sources(root) if VAGUE & {s.strip("_") for s in (p.stem, p.parent.name)}]


def long_files(root: Path, excused: dict[str, str]) -> list[str]:
    """Files over the limit that have no excuse, and excuses that nothing needs any more."""
    long = {str(p.relative_to(root)) for p in sources(root) if len(p.read_text().splitlines()) > LONGEST}
    return [f"{name}: over {LONGEST} lines" for name in sorted(long - excused.keys())] + [
        f"{name}: needs no excuse any more" for name in sorted(excused.keys() - long)
    ]


def sources(root: Path) -> list[Path]:
    """Every Python file of the project."""
    folders = ("torch_stn", "tests", "benchmarks", "examples", "scripts")
    return [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]


def test_imports_follow_the_floors() -> None:
    assert broken_rules(ROOT) == []


@pytest.mark.parametrize("module", STARTS_WITHOUT)
def test_starts_without(module: str) -> None:
    loaded = loads(ROOT, module)
    assert {name: loaded[name] for name in STARTS_WITHOUT[module].split() if name in loaded} == {}


def test_every_row_speaks_of_a_module_that_exists() -> None:
    assert (MAY_IMPORT.keys() | MAY_USE.keys() | STARTS_WITHOUT.keys()) - modules(ROOT).keys() == set()


def test_names_say_what_is_in_a_file() -> None:
    assert vague_names(ROOT) == []


def test_files_can_be_read_in_one_sitting() -> None:
    assert long_files(ROOT, LONG) == []


# From here on: the checks can fail.


def tree(root: Path, files: dict[str, str]) -> Path:
    """A made-up package: the files given, with an `__init__.py` in each folder and a face that knows Affine."""
    face = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch_stn.transforms.matrix import Affine"
    for name, text in {"__init__.py": face, **files}.items():
        path = root / "torch_stn" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (p for p in path.parents if p.is_relative_to(root / "torch_stn")):
            (folder / "__init__.py").touch()
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("file", "source", "target"),
    [
        ("transforms/matrix.py", "from torch_stn.sampling import sample", "sampling.sample"),
        ("transforms/matrix.py", "from ..sampling.sample import sample", "sampling.sample.sample"),
        ("sampling/sample.py", "from torch_stn import Affine", "transforms.matrix.Affine"),
        ("sampling/sample.py", "def f():\n    import torch_stn.transforms.matrix", "transforms.matrix"),
        ("sampling/padding.py", "from . import choose", "sampling.choose"),
        (
            "sampling/backends/aten.py",
            "from torch_stn.sampling.backends import reference",
            "sampling.backends.reference",
        ),
        ("sampling/backends/aten.py", "from .reference import sample", "sampling.backends.reference.sample"),
        ("nn/stn.py", "from torch_stn.sampling.choose import choose", "sampling.choose.choose"),
        ("nn/stn.py", "from torch_stn import lab", "lab"),
        ("nn/stn.py", "import importlib\nimportlib.import_module('torch_stn.lab.train')", "lab.train"),
        ("nn/stn.py", "import torch_stn", "torch_stn"),
        ("nn/stn.py", "import typer", "typer"),
        ("__init__.py", "from .lab import train", "lab.train"),
        ("lab/doctor.py", "from torch_stn.sampling.choose import choose", "sampling.choose.choose"),
        ("lab/experiments/table1.py", "from torch_stn.lab import train", "lab.train"),
        ("lab/experiments/table1.py", "import torch", "torch"),
        ("lab/report/page.py", "from ..train import fit", "lab.train.fit"),
        ("lab/report/page.py", "def f():\n    import torch", "torch"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, target: str) -> None:
    found = broken_rules(tree(tmp_path, {file: source}))
    assert [line.rpartition(" ")[2] for line in found] == [target]
    assert found[0].startswith(f"torch_stn/{file}:")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("nn/stn.py", "from torch_stn import Affine, _checks, warping"),
        ("transforms/matrix.py", "import math\nimport torch.nn as nn\nfrom . import base\nfrom .. import lowered"),
        ("sampling/backends/triton_kernels/call.py", "import triton"),
        ("lab/doctor.py", "import torch_stn\nfrom torch_stn.sampling.choose import BACKENDS, reasons\nimport typer"),
        ("lab/experiments/table1.py", "from torch_stn.lab.config import Config"),
        ("lab/experiments/__init__.py", "from torch_stn.lab.experiments import table1"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, file: str, source: str) -> None:
    assert broken_rules(tree(tmp_path, {file: source})) == []


def test_torch_behind_a_chain_of_imports_is_found(tmp_path: Path) -> None:
    chain = {
        "lab/cli.py": "from torch_stn.lab import config",
        "lab/config.py": "from torch_stn.transforms import matrix",
    }
    late = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch\n"
    assert "torch" not in loads(tree(tmp_path, {**chain, "transforms/matrix.py": late}), "lab.cli")
    assert loads(tree(tmp_path, {**chain, "transforms/matrix.py": "x = 1\nimport torch.nn"}), "lab.cli") == {
        "typing": "torch_stn/__init__.py:1",
        "torch": "torch_stn/transforms/matrix.py:2",
    }


def test_vague_names_and_long_files_are_found(tmp_path: Path) -> None:
    root = tree(tmp_path, {"nn/_utils.py": "", "common/matrix.py": "", "nn/stn.py": "x = 1\n" * (LONGEST + 1)})
    assert vague_names(root) == ["torch_stn/common/__init__.py", "torch_stn/common/matrix.py", "torch_stn/nn/_utils.py"]
    assert long_files(root, {}) == [f"torch_stn/nn/stn.py: over {LONGEST} lines"]
    assert long_files(root, {"torch_stn/nn/stn.py": "it is a table", "torch_stn/gone.py": "?"}) == [
        "torch_stn/gone.py: needs no excuse any more"
    ]
