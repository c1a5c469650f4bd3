"""compat: torch's two functions, called in torch's way, give torch's answers."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from cases import MODES, PADDINGS, TOLERANCE, draw, pictures
from torch import Tensor

from torch_stn import compat

CORNERS = pytest.mark.parametrize("align_corners", [False, True])


@pytest.mark.parametrize("name", ["grid_sample", "affine_grid"])
def test_the_signatures_are_torchs(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)) for module in (compat, F))
    assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.default, p.kind) for p in theirs.parameters.values()
    ]


@CORNERS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(3, 2, 4, 5), (2, 1, 1, 1), (1, 2, 3, 4, 5)], ids=str)
def test_affine_grid(size: tuple[int, ...], dtype: torch.dtype, align_corners: bool) -> None:
    if align_corners and 1 in size[2:]:
        pytest.skip("torch warns about one-pixel outputs with align_corners=True; test_coordinates.py has them")
    d = len(size) - 2
    theta = torch.randn(size[0], d, d + 1, dtype=torch.float64).to(dtype)
    got = compat.affine_grid(theta, list(size), align_corners)
    assert got.dtype == dtype
    assert got.shape == (size[0], *size[2:], d)
    wanted = F.affine_grid(theta.double(), list(size), align_corners)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=4 * TOLERANCE[dtype])
    assert torch.equal(got, compat.affine_grid(theta, torch.Size(size), align_corners))


@CORNERS
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [2, 3])
def test_grid_sample(dims: int, mode: str, padding: str, align_corners: bool) -> None:
    if dims == 3 and mode == "bicubic":
        pytest.skip("F.grid_sample has no tricubic")
    in_size, size = ((4, 5), (3, 6)) if dims == 2 else ((3, 4, 5), (2, 3, 4))
    results = []
    for function in (compat.grid_sample, F.grid_sample):
        image = pictures(2, in_size).requires_grad_()
        grid = (3 * draw(2, *size, dims) - 1.5).requires_grad_()
        values = function(image, grid, mode, padding, align_corners)
        values.backward(draw(*values.shape, seed=1))
        results.append((values.detach(), image.grad, grid.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_by_keyword_and_with_defaults() -> None:
    image, theta = pictures(1, (4, 5)), torch.tensor([[[0.9, 0.1, 0], [-0.2, 1.1, 0.3]]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="affine_grid: align_corners was not given"):
        grid = compat.affine_grid(theta, [1, 2, 4, 5])
    with pytest.warns(UserWarning, match="grid_sample: align_corners was not given") as caught:
        values = compat.grid_sample(input=image, grid=grid, mode="bilinear", padding_mode="zeros")
    assert caught[0].filename == __file__
    wanted = F.grid_sample(image, F.affine_grid(theta, [1, 2, 4, 5], False), align_corners=False)
    torch.testing.assert_close(values, wanted)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_nan_point_reads_zero(padding: str) -> None:
    grid = torch.tensor([[[[math.nan, 0.0], [0.0, 0.0]]]], requires_grad=True)
    values = compat.grid_sample(torch.ones(1, 1, 3, 3), grid, padding_mode=padding, align_corners=False)
    assert values.flatten().tolist() == [0.0, 1.0]
    values.sum().backward()
    assert isinstance(grid.grad, Tensor)
    assert torch.isfinite(grid.grad).all()


def test_bad_arguments_are_named() -> None:
    theta = torch.eye(2, 3)[None]
    with pytest.raises(ValueError, match=r"^theta: wanted the batch size of size, 4, got \(1, 2, 3\) float32"):
        compat.affine_grid(theta, [4, 1, 4, 5], False)  # as torch, which takes no batch of one for any
    with pytest.raises(ValueError, match=r"^size: wanted \(N, C, H, W\) or"):
        compat.affine_grid(theta, [1, 4, 5], False)
    with pytest.raises(ValueError, match=r"^theta: "):
        compat.affine_grid(theta, [1, 1, 4, 5, 6], False)
    with pytest.raises(ValueError, match=r"^(theta|size): .*3.*2|^(theta|size): .*2.*3"):
        compat.affine_grid(theta.expand(2, -1, -1), [3, 1, 4, 5], False)
    with pytest.raises(ValueError, match=r"^input: wanted \(N, C, H, W\) or .*, got \(1, 3, 3\) float32"):
        compat.grid_sample(torch.ones(1, 3, 3), torch.zeros(1, 2, 2, 2), align_corners=False)
    with pytest.raises(ValueError, match=r"^padding_mode: "):
        compat.grid_sample(torch.ones(1, 1, 3, 3), torch.zeros(1, 2, 2, 2), padding_mode="wrapped", align_corners=False)
