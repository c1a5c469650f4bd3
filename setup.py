"""Builds the C++ kernels with `pip install`; everything else about the package stands in pyproject.toml.

Without a compiler, or where it fails, the package installs without them: `stn doctor` says so, torch_stn works, slower.
    CXX              the compiler; c++, g++ or clang++ where it is not set
    TORCH_STN_BUILD  one instruction set of X86 alone; "native": this processor's, a third of the time
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path("torch_stn/sampling/backends/csrc")
# No -ffast-math, at the link least of all: it would switch denormal numbers off for the whole process.
FLAGS = [
    "-std=c++17",
    "-O2",
    "-fpeel-loops",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
]
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"]
# The last is for Intel from Sapphire Rapids on, where gathering beats loads and shuffles (0.8 to 0.9 of the time).
# Chosen as a build, not by a branch: the branch alone cost a twelfth.
X86 = {
    "sse4": ["-msse4.1"],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
    "avx512_gathers": [*AVX512, "-DSTN_GATHERS"],
}


def builds() -> dict[str, list[str]]:
    """The instruction sets to build for, with the flags of each."""
    if sys.platform != "linux":
        return {}  # nobody has tried
    every = X86 if platform.machine().lower() in ("x86_64", "amd64") else {"portable": []}
    only = os.environ.get("TORCH_STN_BUILD")
    if only == "native":
        only = native() if every is X86 else None
    return {name: flags for name, flags in every.items() if only in (None, "", name)}


def native() -> str:
    """The instruction set that this processor will be served by."""
    processor = Path("/proc/cpuinfo").read_text()
    flags = set(processor.partition("flags")[2].partition("\n")[0].split())
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags:
        return "avx512_gathers" if "avx512_fp16" in flags and "GenuineIntel" in processor else "avx512"
    return "avx2" if {"avx2", "fma"} <= flags else "sse4"


class BuildKernels(build_ext):
    """Plain shared libraries for ctypes, one an instruction set, that know no Python."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        library = Path(self.get_ext_fullpath(ext.name))
        work = Path(self.build_temp) / library.name
        for folder in (library.parent, work.parent):
            folder.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
        if compiler is None:
            raise CompileError("no C++ compiler: torch_stn will use PyTorch's own sampler, which is slower")
        words = compiler.split()
        # Linked without -fopenmp: the kernels must use the OpenMP library that torch has loaded, not a second one.
        for command in (
            [*words, *FLAGS, *ext.extra_compile_args, "-c", ext.sources[0], "-o", f"{work}.o"],
            [*words, "-shared", f"{work}.o", "-o", str(library)],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                raise CompileError(f"{compiler}: {error}") from error
            if done.returncode:
                raise CompileError(f"{' '.join(command)}\n{done.stderr}")


class PlatformWheel(bdist_wheel):
    """One wheel for every Python: the kernels know the processor, not the interpreter."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            f"torch_stn.sampling.backends._kernels_{name}",
            [str(SOURCES / "kernels.cpp")],
            depends=[str(path) for path in sorted(SOURCES.glob("*.h"))],
            extra_compile_args=flags,
            optional=True,
        )
        for name, flags in builds().items()
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
