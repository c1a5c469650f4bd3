"""`make sanitize`: the tests of the backends on kernels built with AddressSanitizer and UndefinedBehaviorSanitizer.

python scripts/sanitize.py [pytest arguments]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = [
    "tests/test_cpu_kernels.py",
    "tests/test_cpu_empty.py",
    "tests/test_backends.py",
    "tests/test_sample_inputs.py",
]
SANITIZERS = "-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -g"


def main() -> int:
    """Builds one set of kernels elsewhere, has torch_stn take it, and runs the tests."""
    sys.path.insert(0, str(ROOT))
    from torch_stn.sampling.backends import cpu_library

    serves = cpu_library.instruction_set()
    name = serves.removesuffix("_gathers")  # no sanitizer looks into a gather; loads and shuffles read the same places
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CXX": f"g++ {SANITIZERS}", "TORCH_STN_KERNELS": folder, "TORCH_STN_BUILD": name}
        build = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", folder, "--build-temp", f"{folder}/work"]
        subprocess.run(build, check=True, cwd=ROOT, env=environment)
        (library,) = Path(folder).rglob(f"_kernels_{name}.so")
        library.rename(Path(folder) / f"_kernels_{serves}.so")
        # The sanitizer must be the first library of the process, and must find libstdc++ beside it, whose throw it
        # wraps: without it the first C++ exception ends the process. Python's own leaks are not ours to report.
        runtimes = [
            subprocess.run(
                ["g++", f"-print-file-name={lib}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for lib in ("libasan.so", "libubsan.so", "libstdc++.so.6")
        ]
        environment["LD_PRELOAD"] = " ".join(runtimes)
        environment["ASAN_OPTIONS"] = "detect_leaks=0"
        environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
        return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
