"""Every Triton kernel compiles for an H100, with the arguments that calls really give it; that needs no GPU.

What the interpreter forgives, the compiler does not: mixed types, values that change their type in a loop.
"""

import importlib
import os
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from cases import draw
from torch import Tensor

from torch_stn.sampling.backends.triton_kernels.words import How

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(
    INTERPRETED or find_spec("triton") is None, reason="needs triton, and not its interpreter"
)
WORDS = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip


class Compiler:
    """Takes the place of JITFunction.run: compiles what would be launched, once for each signature."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}  # kernel and signature -> bytes of machine code
        self.grids: list[tuple[int, ...]] = []

    def run(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **words: Any) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile

        self.grids.append(grid)
        options = {name: words.pop(name) for name in ("num_warps", "maxnreg") if name in words}
        given = dict(zip(kernel.arg_names, args, strict=False)) | words
        assert given.keys() == set(kernel.arg_names)
        signature, constants = {}, {}
        for parameter in kernel.params:
            value = given[parameter.name]
            if parameter.is_constexpr:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[parameter.name] = WORDS[value.dtype]
            elif isinstance(value, int):
                assert parameter.do_not_specialize, f"{kernel.__name__}: {parameter.name} would be specialised"
                signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
            else:
                signature[parameter.name] = "fp32"
        name = f"{kernel.__name__} {signature} {constants} {options}"
        if name not in self.done:
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
            self.done[name] = len(made.asm["cubin"])


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # what an unset one means up to Triton 3.9, which warns of it
    jit = importlib.import_module("triton.runtime.jit")
    made = Compiler()
    monkeypatch.setattr(jit.JITFunction, "run", lambda kernel, *args, **how: made.run(kernel, *args, **how))
    return made


def call(
    form: str, dims: int, mode: str, padding: str, dtype: torch.dtype, last: bool, fixed: bool, channels: int = 3
) -> None:
    """Forward and backward on numbers of no meaning: nothing runs."""
    from torch_stn.sampling.backends.triton_kernels import call as triton_call

    size, n = (6, 70) if dims == 2 else (3, 4, 70), 2
    format = (torch.channels_last if dims == 2 else torch.channels_last_3d) if last else torch.contiguous_format
    image = draw(n, channels, *size, dtype=dtype).contiguous(memory_format=format)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = {
        "affine": (n, dims, dims + 1),
        "projective": (n, dims + 1, dims + 1),
        "basis": (n, 5, dims),
        "field": (n, *size, dims),
        "points": (n, *size, dims),
    }
    source = draw(*shapes[form], dtype=compute)
    basis = draw(*size, 5, dtype=compute) if form == "basis" else None
    how = How(form, size, mode, padding, 0.0 if fixed else 0.5, not fixed, fixed)
    values = triton_call.forward(image, source, basis, how)
    to_image, to_source = triton_call.backward(values, image, source, basis, how, (True, True))
    assert to_image is not None
    assert to_source is not None
    assert (to_image.shape, to_source.shape) == (image.shape, source.shape)


F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("form", "dims", "mode", "padding", "dtype", "last", "fixed", "kernels"),
    [
        ("affine", 2, "bilinear", "zeros", F32, False, True, 7),  # facts, gather and the five for any map
        ("affine", 2, "bilinear", "zeros", BF16, False, False, 7),
        ("affine", 2, "bicubic", "reflection", F16, True, True, 5),
        ("affine", 3, "bilinear", "zeros", F32, False, True, 7),
        ("projective", 2, "bilinear", "zeros", F32, False, True, 7),
        ("projective", 2, "bilinear", "border", F64, False, True, 5),
        ("projective", 3, "nearest", "zeros", F32, True, False, 3),
        ("basis", 2, "bilinear", "zeros", F32, False, True, 6),
        ("basis", 3, "bilinear", "reflection", F64, True, False, 4),
        ("field", 2, "nearest", "reflection", F64, True, True, 5),
        ("points", 3, "bilinear", "border", F32, False, False, 3),
    ],
)
def test_kernels_compile_without_a_gpu(
    form: str, dims: int, mode: str, padding: str, dtype: torch.dtype, last: bool, fixed: bool, kernels: int,
    compiler: Compiler,
) -> None:  # fmt: skip
    call(form, dims, mode, padding, dtype, last, fixed)
    assert len(compiler.done) == kernels
    assert all(size > 0 for size in compiler.done.values())


def test_kernels_of_sorted_points_compile(compiler: Compiler) -> None:
    call("points", 2, "bilinear", "reflection", F32, False, True, channels=16)
    call("basis", 3, "bilinear", "zeros", BF16, True, True, channels=32)
    assert sum("collect_kernel" in name for name in compiler.done) == 2
    assert all(size > 0 for size in compiler.done.values())


def test_no_launch_is_larger_than_a_gpu_takes(compiler: Compiler) -> None:
    """Very long axes: 65,535 programs along the second and third axis of a launch are the most."""
    from torch_stn.sampling.backends.triton_kernels import call as triton_call

    with torch.device("meta"):
        for form, shape in (
            ("affine", (2, 1, 1_100_000, 66)),
            ("projective", (70_000, 3, 66, 70)),
            ("points", (1, 3, 600_000, 66)),
        ):
            image, n = torch.empty(shape), shape[0]
            source = torch.empty({"affine": (n, 2, 3), "projective": (n, 3, 3), "points": (n, *shape[2:], 2)}[form])
            how = How(form, shape[2:], "bilinear", "zeros", 0.0, False, True)
            triton_call.backward(triton_call.forward(image, source, None, how), image, source, None, how, (True, True))
    assert len(compiler.grids) > 20
    assert all(max(grid[1:], default=1) <= 65_535 for grid in compiler.grids)
