"""The ways of an image gradient: gathered through a matrix's inverse, sorted, or scattered; no map is too wild.

As test_triton.py, on a GPU (`pytest -m gpu`) or interpreted on the CPU.
"""

import importlib

import pytest
import torch
from cases import PADDINGS, draw, pictures, points_off_kinks, thetas
from triton_checks import FAMILIES, INTERPRETED, ON_DEVICE, at, check, outcome, through

from torch_stn import Affine, Projective

# No point of these falls on a pixel, where a rounded coordinate takes the slope of the other side.
EXTREME = {
    "all on one point": [[0, 0, 0.11], [0, 0, 0.23]],
    "all on a line": [[1, 0.5, 0], [2, 1, 0]],
    "nearly all on a line": [[1, 0.5, 0], [2, 1.000001, 0]],
    "a hundredfold zoom": [[0.01, 0, 0.1], [0, 0.01, 0.2]],
    "a fivefold zoom, turned": [[0.1513, 0.1037, 0.1171], [-0.1029, 0.1517, 0.2093]],
    "far away": [[1, 0, 50], [0, 1, 0.2]],
    "four times as much": [[4, 0.3, 0.1], [0, 4, 0.2]],
    "a quarter turn": [[0.001, -1, 0.03], [1, 0.001, 0.02]],
    "mirrored": [[-1.01, 0.02, 0.03], [0.01, 0.97, 0.02]],
}


@ON_DEVICE
@pytest.mark.parametrize("name", EXTREME)
def test_no_affine_map_is_too_wild(name: str, device: str) -> None:
    """The second sample is an ordinary one: each goes its own way, chosen on the device."""
    theta = torch.tensor([EXTREME[name], [[0.9, 0.2, 0.1], [-0.1, 1.1, 0.05]]], dtype=torch.float64)
    check(through(Affine(), (15, 18)), pictures(2, (12, 13), 2), theta, device)


# Rows of a homography; w is the last.
BENT = {
    "leaning": ([[1, 0.1, 0.05], [-0.1, 0.9, 0.02], [0.15, -0.2, 1]], False),
    "leaning far, but within sight": (
        [[0.8137, 0.3071, 0.1013], [-0.3113, 0.7973, 0.0537], [0.2939, 0.2571, 1]],
        False,
    ),
    "the other way, mirrored": ([[-1.103, 0.107, 0.053], [0.109, 0.911, 0.023], [-0.203, 0.107, 1.1]], False),
    "turned by a quarter": ([[0.02, -1, 0.05], [1, 0.01, 0.02], [0.1, 0.15, 1]], False),
    "the horizon in the picture": ([[1, 0.1, 0.05], [-0.1, 0.9, 0.02], [0.9, 0.7, 1]], True),
    "behind the camera": ([[1, 0.1, 0.05], [-0.1, 0.9, 0.02], [0.1, 0.2, -1]], True),
    "singular": ([[1.013, 0.507, 0.11], [2.026, 1.014, 0.22], [0.103, 0.207, 1]], True),
    "a hundredfold zoom": ([[0.01, 0, 0.1], [0, 0.01, 0.2], [0.01, 0.02, 1]], True),
}


@ON_DEVICE
@pytest.mark.parametrize("name", BENT)
def test_no_projective_map_is_too_wild(name: str, device: str) -> None:
    """Ordinary ones are gathered, the others left to the kernels that serve any map; beside an ordinary one each."""
    rows, wild = BENT[name]
    theta = torch.tensor([rows, [[0.9, 0.2, 0.1], [-0.1, 1.1, 0.05], [0.05, -0.1, 1]]], dtype=torch.float64)
    family = Projective()  # full matrices serve as well
    check(through(family, (15, 18)), pictures(2, (12, 13), 2), theta, device)
    check(through(family, (21, 80)), pictures(2, (19, 70), 1), theta, device)
    facts = importlib.import_module("torch_stn.sampling.backends.triton_kernels.facts")
    flags = torch.full((2,), 7, dtype=torch.int32, device=device)
    made = torch.empty(2, facts.NUMBERS.value, device=device)
    scales = (13 / 18, 12 / 15, 6.5, 6.0, 2 / 18, 2 / 15)
    facts.facts_kernel[(1,)](
        theta.float().to(device), made, flags, *scales, 2, 13, 12, 18, 15, BENT=True, BLOCK=128, num_warps=4
    )
    assert flags.tolist() == [int(wild), 0]


SPACE = {
    "turned": (
        [[0.9137, 0.2071, -0.1033, 0.05], [-0.2117, 0.8531, 0.1519, 0.02], [0.1013, -0.1307, 0.9541, 0.03]],
        False,
    ),
    "axes exchanged": ([[0.01, 0.02, 1.1, 0.05], [0.9, 0.015, 0.03, 0.02], [0.02, -1.05, 0.01, 0.03]], False),
    "four times as much": (
        [[3.9137, 0.3071, 0.1093, 0.1], [0.2039, 4.1117, 0.1071, 0.037], [0.1033, 0.2071, 3.7139, 0.0293]],
        False,
    ),
    "flat": ([[0.9137, 0.2071, 0.1033, 0.05], [0.2093, 0.8117, 0.3071, 0.02], [1.123, 1.0188, 0.4104, 0.03]], True),
    "all on one point": ([[0, 0, 0, 0.11], [0, 0, 0, 0.23], [0, 0, 0, 0.31]], True),
    "a hundredfold zoom": ([[0.01, 0, 0, 0.1], [0, 0.011, 0, 0.2], [0, 0, 0.012, 0.3]], True),
}


@ON_DEVICE
@pytest.mark.parametrize("name", SPACE)
def test_volumes_are_gathered_and_no_map_of_them_is_too_wild(name: str, device: str) -> None:
    rows, wild = SPACE[name]
    second = [[1.1, 0.05, 0.1, 0.02], [0.1, 0.9, 0.05, -0.1], [-0.05, 0.1, 1.05, 0.07]]
    theta = torch.tensor([rows, second], dtype=torch.float64)
    out = (5, 7, 6) if INTERPRETED else (11, 10, 12)
    check(through(Affine(3), out), pictures(2, (5, 7, 6), 3), theta, device)
    if not wild and (name == "turned" or not INTERPRETED):
        check(through(Affine(3), (3, 5, 60)), pictures(2, (3, 5, 67), 1), theta, device)
    kernels = importlib.import_module("torch_stn.sampling.backends.triton_kernels.volume")
    flags, facts = torch.full((2,), 7, dtype=torch.int32, device=device), torch.empty(2, 32, device=device)
    scales = (6 / 12, 7 / 10, 5 / 11, 3.0, 3.5, 2.5, 2 / 12, 2 / 10, 2 / 11)
    kernels.volume_facts_kernel[(1,)](
        theta.float().to(device), facts, flags, *scales, 2, 6, 7, 5, 12, 10, 11, BLOCK=128, num_warps=4
    )
    assert flags.tolist() == [int(wild), 0]


@ON_DEVICE
@pytest.mark.parametrize("rows", [[[0.01, 0, 0.1], [0, 0.011, 0.2]], [[0.01, 1, 0.1], [-1, 0.011, 0.2]]])
def test_few_points_are_gathered_however_near_they_lie(rows: list[list[float]], device: str) -> None:
    """A zoom of an output so small that no map is flagged: all of its points may read one block."""
    check(through(Affine(), (12, 13)), pictures(1, (12, 13), 2), torch.tensor([rows], dtype=torch.float64), device)


@ON_DEVICE
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5), (1, 6)])
def test_points_of_many_channels_are_sorted(size: tuple[int, ...], padding: str, device: str) -> None:
    """Sorted by the cell that they read; some lie outside, some nowhere, and many on one another."""
    points = points_off_kinks(2, 40, size, beyond=3)
    points[0, :12] = points[0, 0]
    points[1, 3] = float("nan")
    points[1, 4] = float("inf")
    check(at(padding_mode=padding, fill=0.3), pictures(2, size, 16), points, device)
    if size != (5, 7) and INTERPRETED:
        return
    check(at(padding_mode=padding), pictures(3, size, 16), points[:1], device, torch.float64)
    if len(size) == 2:
        image = pictures(2, size, 16).contiguous(memory_format=torch.channels_last)
        check(through(FAMILIES["tps"], (4, 70), padding_mode=padding), image, thetas(FAMILIES["tps"]), device)


@ON_DEVICE
def test_gathering_over_several_tiles_and_groups_of_channels(device: str) -> None:
    theta = thetas(Affine(), 1, spread=0.2)
    check(through(Affine(), (20, 90)), pictures(1, (36, 150), 1), theta, device)
    check(through(Affine(), (9, 8)), pictures(1, (8, 9), 20), theta, device)
    only = through(Affine(), (6, 7))
    image = pictures(2, (5, 7), dtype=torch.float32).to(device).requires_grad_()
    theta = thetas(Affine()).float().to(device)
    only(image, theta, "triton").sum().backward()
    alone, image.grad = image.grad, None
    only(image, theta.requires_grad_(), "triton").sum().backward()
    torch.testing.assert_close(alone, image.grad, rtol=0, atol=0)


@ON_DEVICE
@pytest.mark.parametrize("family", ["affine", "projective"])
@pytest.mark.parametrize(("size", "out"), [((8, 8), (8, 8)), ((32, 32), (16, 16)), ((16, 70), (12, 15))])
def test_a_plain_picture_pulls_at_no_map(size: tuple[int, int], out: tuple[int, int], family: str, device: str) -> None:
    """Wherever its points fall, on pixels and between them: the slopes of one point's four pixels sum to 0."""
    maps = [[[z, 0, t], [0, z, -t]] for z, t in ((1 / 3, 0), (0.6, 0), (0.7, 0.1), (0.2, 0.1), (0.5, 0))]
    maps += [[[0, -0.5, 0], [0.5, 0, 0]], [[0, 1 / 3, 0.1], [-1 / 3, 0, 0]]]
    theta = torch.tensor(maps)
    if family == "projective":
        theta = torch.cat([theta.flatten(1), torch.zeros(len(maps), 2)], dim=1)
    theta = theta.to(device).requires_grad_()
    image = torch.ones(len(maps), 1, *size, device=device, requires_grad=True)
    values = through(FAMILIES[family], out)(image, theta, "triton")
    values.backward(draw(*values.shape, seed=3).to(values))
    assert theta.grad is not None
    assert theta.grad.abs().max() < 1e-4 * max(size) * out[0] * out[1] * 0.1
    assert (values.detach() - 1).abs().max() < 1e-5


@ON_DEVICE
@pytest.mark.parametrize("worst", [float("nan"), float("inf")])
def test_a_pixel_that_no_point_reads_spoils_nothing(worst: float, device: str) -> None:
    image, theta = pictures(2, (9, 10), dtype=torch.float32), thetas(Affine(), 2, spread=0.05).float()
    theta[:, :, :2] *= 0.3
    clean = image.clone()
    image[:, :, 0, 0] = image[:, :, -1, 3] = worst
    clean[:, :, 0, 0] = clean[:, :, -1, 3] = 0.0
    gradients = []
    for picture in (image, clean):
        u, t = picture.to(device).requires_grad_(), theta.to(device).requires_grad_()
        through(Affine(), (5, 6))(u, t, "triton").pow(2).sum().backward()
        gradients.append((u.grad, t.grad))
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)


@ON_DEVICE
def test_near_the_horizon_every_point_is_found(device: str) -> None:
    """A map that leans so far that a hundred points of a row crowd on one block, on an image cut into patches."""
    theta = torch.zeros(2, 3, 3)
    theta[:, 0, 0] = 1.2285011970840272 * 200 / 70
    theta[:, 1, 1] = 2.0
    theta[:, 2, 1] = 0.06484853648180257 * 20
    theta[:, 2, 2] = 1.0
    theta[1, 0, 2] = 1 / 6 * 2 / 70
    read, image = through(Projective(), (40, 200)), draw(2, 1, 20, 70)
    _, wanted, _ = outcome(read, image, theta.double(), "reference")
    _, got, _ = outcome(read, image.float().to(device), theta.to(device), "triton")
    assert (got.cpu().double() - wanted).abs().max() < 2e-5 * wanted.abs().max()
