"""Makes `.venv` whole, for the Makefile: `python3 scripts/environment.py lab` or `... lab,dev`.

Says nothing and takes a tenth of a second when there is nothing to do. What it knows of a whole environment stands in
`.venv/whole.json`, written last and taken away first: an environment without it was left half-made and is made again.
    TORCH        a pip requirement that pins torch ("torch==2.13.0"); empty: whatever pip takes
    TORCH_STN_BUILD  see setup.py; here the kernels are built for this processor alone, since a demo waits for them
    TORCH_INDEX  an extra package index for torch's builds (PyTorch's CPU index); once given, kept until `make clean`
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
WHOLE = VENV / "whole.json"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "pip.log"


def main(wanted: str) -> None:
    """Brings `.venv` to hold the package, editable, with the wanted extras ("lab" or "lab,dev")."""
    torch, index = os.environ.get("TORCH", "").strip(), os.environ.get("TORCH_INDEX", "").strip()
    with one_at_a_time():
        found = read(WHOLE)
        # `make test` after `make demo TORCH_INDEX=...` must not bring several GB of CUDA.
        index = index or found.get("ground", {}).get("index", "")
        # What an environment is built on: when one of these moves, it is made from nothing.
        ground = {"python": sys.version, "base": sys.base_prefix, "folder": str(ROOT), "torch": torch, "index": index}
        project = fingerprint()
        whole = found.get("ground") == ground and runs(PYTHON)
        extras = sorted(set(wanted.split(",")) | set(found.get("extras", []) if whole else []))
        if whole and found == {"ground": ground, "project": project, "extras": extras}:
            return
        if not whole:
            make(torch, index)
        WHOLE.unlink(missing_ok=True)
        install(extras, torch, index)
        project = fingerprint()
        WHOLE.write_text(json.dumps({"ground": ground, "project": project, "extras": extras}, indent=1) + "\n")


def fingerprint() -> str:
    """Changes when pip has something to do: other requirements, or kernels to be built anew."""
    kernels = ROOT / "torch_stn" / "sampling" / "backends"
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", ROOT / "setup.py", *sorted((kernels / "csrc").glob("*"))):
        digest.update(path.read_bytes())
    built = sorted(path.name for path in kernels.glob("*.so"))
    return digest.hexdigest() + " " + " ".join(built)


def make(torch: str, index: str) -> None:
    """An empty environment, of the Python below a virtual environment that may be active (it may be this very one)."""
    origin = f" from {index}" if index else ""
    print(
        f"make: .venv for Python {sys.version.split()[0]}, {torch or 'the newest torch'}{origin}: some minutes",
        flush=True,
    )
    if VENV.exists():
        shutil.rmtree(VENV)
    base = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([base, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        stop(f"'{base} -m venv .venv' failed (Debian and Ubuntu: apt install python3-venv): {reason[0]}")


def install(extras: list[str], torch: str, index: str) -> None:
    """Runs pip once; on a terminal its last line is shown in place, everything is kept in `.venv/pip.log`."""
    constraint = VENV / "constraint.txt"
    constraint.write_text(torch + "\n")
    # A build of the extra index is taken before PyPI's of the same version: "2.13.0+cpu" sorts after "2.13.0".
    # --no-compile: Python compiles what it imports, at first use; compiling all of torch costs more than it saves.
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
    command += ["--prefer-binary", "--constraint", str(constraint)] + ["--extra-index-url", index] * bool(index)
    command += ["--editable", f".[{','.join(extras)}]"]
    pip = subprocess.Popen(
        command,
        cwd=ROOT,
        env={"TORCH_STN_BUILD": "native", **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with LOG.open("w") as log, pip:
        errors = follow(pip.stdout, log) if pip.stdout else []
    if pip.returncode:
        stop(
            f"pip could not install .[{','.join(extras)}]; {' '.join(errors) or 'why'}; all it said is in .venv/pip.log"
        )


def follow(lines: IO[str], log: IO[str]) -> list[str]:
    """Copies pip's lines to the log, shows the newest on a terminal, returns those that are errors."""
    terminal, errors = sys.stdout.isatty(), []
    for line in lines:
        log.write(line)
        if terminal:
            print(f"\r\033[K{line.strip()[:78]}", end="", flush=True)
        if line.startswith("ERROR"):
            errors.append(line.strip())
    if terminal:
        print("\r\033[K", end="", flush=True)
    return errors


def read(path: Path) -> dict[str, Any]:
    """A JSON object from a file that may be missing or cut short."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def runs(python: Path) -> bool:
    """Whether the environment's Python still starts: its base may have been removed."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """`make -j demo test` starts two of us: the second waits. The kernel drops the lock of a killed one."""
    with Path(__file__).open() as here:
        fcntl.flock(here, fcntl.LOCK_EX)
        yield


def stop(reason: str) -> None:
    """Ends with one line on stderr."""
    sys.exit(f"make: {reason}")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        stop("stopped; the next make makes .venv anew")
    except OSError as error:
        stop(f".venv could not be written: {error}")
