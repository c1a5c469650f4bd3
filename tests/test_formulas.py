"""The paper's formulas, written down once more as loops and dense solves in float64 (Jaderberg et al. 2015, section 3).

Points keep 0.05 pixel off the kinks, where the paper's sub-gradients and F.grid_sample's right-hand slopes may differ.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
import torch
from cases import ON_CPU, inner_points, pictures, points_off_kinks, thetas
from torch import Tensor

from torch_stn import Affine, Attention, Projective, ThinPlateSpline, sample

Rule = Callable[[list[float], list[float]], list[float]]


def by_hand(theta: Tensor, xy: Tensor, rule: Rule) -> Tensor:
    """One point at a time, in Python floats."""
    return torch.tensor([[rule(t, p) for p in points] for t, points in zip(theta.tolist(), xy.tolist(), strict=True)])


@pytest.fixture(autouse=True)
def float64_by_default() -> Iterator[None]:
    """Lists of Python floats become float64 tensors."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def affine(t: list[float], p: list[float]) -> list[float]:
    """Equation 1; in 3-D, appendix A.3."""
    d = len(p)
    return [sum(t[i * (d + 1) + j] * p[j] for j in range(d)) + t[i * (d + 1) + d] for i in range(d)]


def attention(t: list[float], p: list[float]) -> list[float]:
    """Equation 2."""
    return [t[0] * coordinate + shift for coordinate, shift in zip(p, t[1:], strict=True)]


def projective(t: list[float], p: list[float]) -> list[float]:
    """The plane homography, its ninth entry 1."""
    w = t[6] * p[0] + t[7] * p[1] + 1
    return [(t[0] * p[0] + t[1] * p[1] + t[2]) / w, (t[3] * p[0] + t[4] * p[1] + t[5]) / w]


@pytest.mark.parametrize(
    ("family", "rule"),
    [
        (Affine(), affine),
        (Affine(3), affine),
        (Attention(), attention),
        (Attention(3), attention),
        (Projective(), projective),
    ],
)
def test_matrix_families(family: Affine | Attention | Projective, rule: Rule) -> None:
    theta = thetas(family, 3, spread=0.3 if not isinstance(family, Projective) else 0.15)
    xy = inner_points(3, 20, family.dims, reach=1.2)
    torch.testing.assert_close(family(theta).sources(xy), by_hand(theta.flatten(1), xy, rule), rtol=0, atol=1e-12)


def bend(r: float) -> float:
    """phi(r) = r^2 log r^2."""
    return r * r * math.log(r * r) if r > 0 else 0.0


@pytest.mark.parametrize("regularization", [0.0, 0.1])
def test_the_sixteen_point_spline_is_the_solution_of_its_linear_system(regularization: float) -> None:
    family = ThinPlateSpline(4, span=0.9, regularization=regularization)
    axis = np.array([-0.9, -0.3, 0.3, 0.9])
    p = np.array([[x, y] for y in axis for x in axis], dtype=np.float64)  # x runs first
    np.testing.assert_allclose(family.control_points.double(), p, rtol=0, atol=1e-7)
    p = family.control_points.double().numpy()
    theta, xy = thetas(family, 2, spread=0.2), inner_points(2, 25, 2, reach=1.3)
    system = np.zeros((19, 19))
    for i, j in product(range(16), range(16)):
        system[i, j] = bend(math.dist(p[i], p[j])) + regularization * (i == j)
    for i in range(16):
        system[i, 16:] = system[16:, i] = [1, *p[i]]
    got = family(theta).sources(xy).numpy()
    for n in range(2):
        weights = np.linalg.solve(system, np.concatenate([theta[n].numpy(), np.zeros((3, 2))]))
        for g, source in zip(xy[n].numpy(), got[n], strict=True):
            terms = np.array([*(bend(math.dist(g, q)) for q in p), 1, *g])
            np.testing.assert_allclose(source, terms @ weights, rtol=0, atol=1e-11)


def integer(x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 4 and its slope: delta(floor(x + 0.5) - m), flat between the kinks."""
    return ((x + 0.5).floor() == m).double(), 0 * (x - m)


def bilinear(x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 5 and its slope as equation 7 has it: 0 beyond one pixel, +1 for m >= x, -1 for m < x."""
    slope = torch.where((m - x).abs() >= 1, 0.0, torch.where(m >= x, 1.0, -1.0))
    return (1 - (x - m).abs()).clamp(min=0), slope


def bicubic(x: Tensor, m: Tensor, a: float = -0.75) -> tuple[Tensor, Tensor]:
    """Keys' cubic convolution and its slope."""
    s, sign = (x - m).abs(), (x - m).sign()
    near = ((a + 2) * s - (a + 3)) * s**2 + 1, (3 * (a + 2) * s - 2 * (a + 3)) * s
    far = a * (((s - 5) * s + 8) * s - 4), a * ((3 * s - 10) * s + 8)
    value, slope = (torch.where(s < 1, n, torch.where(s < 2, f, 0.0)) for n, f in zip(near, far, strict=True))
    return value, slope * sign


RULES = {"nearest": integer, "bilinear": bilinear, "bicubic": bicubic}


def weigh(factors: list[Tensor]) -> Tensor:
    """The product of one factor (N, M, pixels) per axis (x, y[, z]): (N, M, *in), for every pixel of the image."""
    if len(factors) == 2:
        return torch.einsum("nmx,nmy->nmyx", *factors)
    return torch.einsum("nmx,nmy,nmz->nmzyx", *factors)


@pytest.mark.parametrize("backend", [*ON_CPU, None])
@pytest.mark.parametrize("in_size", [(5, 7), (1, 6), (4, 3, 5)])
@pytest.mark.parametrize("mode", RULES)
def test_the_sampler_is_the_double_sum_over_all_pixels(
    mode: str, in_size: tuple[int, ...], backend: str | None
) -> None:
    """Equation 3 and its sub-gradients, equations 6 and 7; the formula has no pixels outside, hence zero padding."""
    if backend == "aten" and mode == "bicubic" and len(in_size) == 3:
        pytest.skip("F.grid_sample has no tricubic")
    image = pictures(2, in_size, channels=3).requires_grad_()
    points = points_off_kinks(2, 60, in_size, beyond=2.5).requires_grad_()
    pull = pictures(2, (60,), channels=3, seed=1)
    values = sample(image, points, mode=mode, units="pixel", backend=backend)
    assert isinstance(values, Tensor)
    values.backward(pull)

    pairs = [RULES[mode](points.detach()[..., i, None], torch.arange(n)) for i, n in enumerate(reversed(in_size))]
    weights = weigh([value for value, _ in pairs])
    flat = image.detach().flatten(2)
    wanted = torch.einsum("ncp,nmp->ncm", flat, weights.flatten(2))
    torch.testing.assert_close(values.detach(), wanted, rtol=0, atol=1e-12)
    pulled = torch.einsum("ncm,nmp->ncp", pull, weights.flatten(2))
    torch.testing.assert_close(image.grad, pulled.reshape(image.shape), rtol=0, atol=1e-12)
    slopes = []
    for axis in range(len(in_size)):
        steep = weigh([slope if i == axis else value for i, (value, slope) in enumerate(pairs)])
        slopes.append(torch.einsum("ncm,ncp,nmp->nm", pull, flat, steep.flatten(2)))
    wanted_slope = torch.stack(slopes, dim=-1)
    got_slope = torch.zeros_like(points) if points.grad is None else points.grad
    torch.testing.assert_close(got_slope, wanted_slope, rtol=0, atol=2e-12)
