"""`make wheel`: one wheel in dist/ for every Python, tried in a clean environment in which no compiler can be found.

The wheel brings no OpenMP library along: the kernels use the one that torch has loaded.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
TRIAL = """
import torch
from torch_stn import Affine, warp
from torch_stn.sampling.backends import cpu_library
assert cpu_library.missing() is None, cpu_library.missing()
image, theta = torch.rand(2, 3, 9, 8), torch.eye(2, 3).repeat(2, 1, 1).requires_grad_()
values = warp(image, Affine()(theta), backend="cpu")
values.sum().backward()
assert torch.equal(values, image) and theta.grad is not None
print("the wheel's kernels serve:", cpu_library.path())
"""


def main() -> None:
    """Builds, looks inside, installs without dependencies beside this environment's torch, and runs."""
    for old in DIST.glob("*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(DIST), str(ROOT)], check=True)
    (wheel,) = DIST.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    kernels = [name for name in names if name.endswith(".so")]
    if not kernels or "-py3-none-" not in wheel.name or any("gomp" in name for name in names):
        sys.exit(f"make: {wheel.name} is not what it should be: kernels {kernels}, wanted py3-none and no libgomp")
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
        # -P and an own folder: not the checkout, whose kernels are built in place.
        environment = {**os.environ, "PYTHONPATH": str(site), "PATH": folder}
        subprocess.run([sys.executable, "-P", "-c", TRIAL], check=True, cwd=folder, env=environment)
    print(f"dist/{wheel.name}")


if __name__ == "__main__":
    main()
