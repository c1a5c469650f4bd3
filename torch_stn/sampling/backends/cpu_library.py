"""The compiled kernels of this machine's processor: found, loaded once, called with one packed record."""

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
SYMBOLS = ("stn_forward", "stn_backward", "stn_packs")
# struct Call of csrc/call.h, field by field.
HEAD = struct.Struct("@7q 4q 3q 3q q 3q 3q q")  # what is asked
TAIL = struct.Struct("@4Q 3Q d")  # where the tensors lie, and the fill
LAYOUT = struct.Struct(f"{HEAD.format}{TAIL.format[1:]}")


@cache
def missing() -> str | None:
    """Why the kernels cannot be used here; None where they can."""
    try:
        _load()
    except OSError as error:
        return f"the C++ kernels did not load: {error}"
    return None


@cache
def function(name: str) -> Callable[[bytes], int]:
    """One of SYMBOLS: takes a record packed by LAYOUT."""
    found = getattr(_load(), name)
    found.argtypes = [ctypes.c_char_p]
    found.restype = ctypes.c_int64 if name == "stn_packs" else None
    return found


@cache
def instruction_set() -> str:
    """Which build serves: "avx512_gathers", "avx512", "avx2", "sse4" or "portable".

    ATEN_CPU_CAPABILITY limits it, as it does torch. Gathers are fast on Intel from Sapphire Rapids on, which
    half-precision arithmetic tells; a microcode update slowed those before, and AMD's are slow.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "portable"
    capability = torch.backends.cpu.get_cpu_capability()
    if capability.startswith("AVX512"):
        processor = _processor_flags()
        return "avx512_gathers" if "avx512_fp16" in processor and "GenuineIntel" in processor else "avx512"
    return "avx2" if capability == "AVX2" else "sse4"


def path() -> Path:
    """Where the build for this processor lies; TORCH_STN_KERNELS names another folder (`make sanitize`)."""
    return Path(os.environ.get("TORCH_STN_KERNELS") or HERE) / f"_kernels_{instruction_set()}.so"


@cache
def _load() -> ctypes.CDLL:
    if not path().exists():
        raise OSError(f"{path().name} was not built; install a C++ compiler (g++) and run pip install again")
    if instruction_set() == "sse4" and "sse4_1" not in _processor_flags():
        raise OSError("this processor is older than SSE4.1")
    # The kernels name no OpenMP library of their own: torch's serves, so that there is one set of threads.
    folder = Path(torch.__file__).parent / "lib"
    own = sorted([*folder.glob("libgomp*.so*"), *folder.glob("libiomp5*.so*")])
    ctypes.CDLL(str(own[0]) if own else "libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path()), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    library.stn_call_bytes.restype = ctypes.c_int64
    if library.stn_call_bytes() != LAYOUT.size:
        raise OSError(f"{path().name} was built from another version; run pip install again")
    return library


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return "sse4_1"  # no list to look at; every x86-64 processor since 2008 has it
