"""The one table of the library's tests: families, sizes, dtypes with tolerances, and pictures with exact answers."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from torch_stn import (
    Affine,
    Attention,
    Basis,
    BoundedAffine,
    ExponentialAffine,
    LogPolar,
    Projective,
    Rigid,
    Sequence,
    Similarity,
    ThinPlateSpline,
    Transform,
    Translation,
)
from torch_stn.coordinates import base_grid
from torch_stn.sampling.choose import BACKENDS
from torch_stn.transforms import TRANSFORMS
from torch_stn.transforms.cpab import CPAB
from torch_stn.transforms.displacement import DisplacementField
from torch_stn.transforms.free_form import FreeFormDeformation
from torch_stn.transforms.spline_map import LandmarkSpline
from torch_stn.transforms.thin_plate import PolyharmonicSpline
from torch_stn.transforms.velocity import VelocityField


class LearnedBasis(nn.Module):
    """(x, y, 1) and two learned bumps: a B that the user trains."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.tensor([[1.0, 2.0], [-1.5, 0.5]]))

    def forward(self, xy: Tensor) -> Tensor:
        bumps = torch.tanh((xy[..., None, :] * self.rates).sum(dim=-1))
        return torch.cat([xy, torch.ones_like(xy[..., :1]), bumps], dim=-1)


def learned_basis() -> Transform:
    """Basis with a learned B; the bumps count for nothing in the identity."""
    return Basis(LearnedBasis(), torch.eye(5, 2))


def scattered_spline() -> Transform:
    """Control points on no grid."""
    points = torch.tensor([[-0.9, -0.8], [0.85, -0.9], [0.1, -0.2], [-0.4, 0.5], [0.9, 0.7], [-0.8, 0.9]])
    return ThinPlateSpline(points)


# Every family of the package, and variants of them. A family is tested by being listed.
FAMILIES: dict[str, Callable[[], Transform]] = {
    **TRANSFORMS,
    "translation 3-D": lambda: Translation(3),
    "attention 3-D": lambda: Attention(3),
    "attention 3-D, fixed scale": lambda: Attention(3, scale=0.5),
    "affine 3-D": lambda: Affine(3),
    "affine-bounded 3-D": lambda: BoundedAffine(3, aspect=(3, 1, 2)),
    "affine-exp 3-D": lambda: ExponentialAffine(3),
    "projective 3-D": lambda: Projective(3),
    "rigid 3-D": lambda: Rigid(3),
    "rigid 3-D, quaternion": lambda: Rigid(3, aspect=(2, 3, 1), rotation="quaternion"),
    "similarity, wide image": lambda: Similarity(aspect=2),
    "similarity 3-D, quaternion": lambda: Similarity(3, rotation="quaternion"),
    "log-polar, wide image": lambda: LogPolar(radius=0.9, inner=0.1, aspect=1.5),
    "sequence of matrices": lambda: Sequence(Similarity(), Translation(), Projective()),
    "sequence, global then local": lambda: Sequence(Affine(), ThinPlateSpline(3)),
    "sequence, three kinds": lambda: Sequence(ThinPlateSpline(2), Rigid(), Attention()),
    "tps 3 x 5, smoothed": lambda: ThinPlateSpline((3, 5), regularization=0.1),
    "tps 2 x 2, to the corners": lambda: ThinPlateSpline(2, span=1.0),
    "tps, scattered points": scattered_spline,
    "tps 3-D": lambda: ThinPlateSpline((2, 3, 3), dims=3),
    "polyharmonic 3-D, order 2": lambda: PolyharmonicSpline(3, dims=3, order=2, regularization=0.01),
    "landmarks": LandmarkSpline,
    "landmarks 3-D": lambda: LandmarkSpline((2, 2, 3)),
    "basis, learned": learned_basis,
    "displacement 3-D, to the corners": lambda: DisplacementField((3, 4, 5), align_corners=True),
    "free form, two levels": lambda: FreeFormDeformation((4, 5), levels=2),
    "free form 3-D": lambda: FreeFormDeformation((4, 5, 4)),
    "cpab, kept border and area": lambda: CPAB((4, 3), zero_boundary=True, volume_preserving=True),
    "cpab 3-D": lambda: CPAB((2, 2, 1)),
    "velocity 3-D": lambda: VelocityField((4, 3, 4), squarings=5, integration_size=(5, 5, 5)),
}
# Those that serve CPU tensors. The Triton kernels have tests of their own, on a GPU or interpreted: test_triton.py.
ON_CPU = {name: backend for name, backend in BACKENDS.items() if name != "triton"}
MODES = ("nearest", "bilinear", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
# Input and output: odd and even, one pixel, not square, down and up.
SIZES: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {
    2: [((8, 8), (8, 8)), ((5, 7), (5, 7)), ((6, 9), (11, 4)), ((1, 6), (3, 6)), ((6, 1), (6, 1)), ((4, 5), (1, 1))],
    3: [((4, 4, 4), (4, 4, 4)), ((3, 5, 4), (2, 6, 5)), ((1, 4, 3), (1, 4, 3)), ((3, 1, 1), (2, 3, 1))],
}
# The largest difference from float64 that rounding explains, for values in [0, 1]; half precision rounds the result.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform numbers in [0, 1), the same in every test that asks."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pictures(
    n: int, size: tuple[int, ...], channels: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Noise (n, channels, *size): the hardest picture to read right, every pixel differs from its neighbour."""
    return draw(n, channels, *size, seed=seed, dtype=dtype)


def thetas(transform: Transform, n: int = 2, spread: float = 0.08, seed: int = 0) -> Tensor:
    """(n, *theta_shape) float64 around the identity, or where a head starts: strong enough to be seen, too weak to fold."""
    noise = torch.randn(n, *transform.theta_shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if isinstance(transform, DisplacementField | VelocityField):
        noise = _long_waves(noise.flatten(1, -2), base_grid(transform.size, dtype=noise.dtype))
    elif isinstance(transform, CPAB):
        noise = _long_waves(noise, transform.vertices)
    return (transform.identity() if transform.has_identity else transform.initial()).double() + spread * noise


def _long_waves(noise: Tensor, nodes: Tensor) -> Tensor:
    """Noise (n, K, d) -> vectors at the nodes (*S, d) of one long wave along each axis: neighbours hardly differ."""
    waves = torch.cat([torch.ones_like(nodes[..., :1]), torch.sin(1.5 * nodes)], dim=-1)
    return torch.einsum("nkd,...k->n...d", noise[:, : waves.shape[-1]], waves)


def inner_points(n: int, count: int, dims: int, reach: float = 0.9, seed: int = 0) -> Tensor:
    """Normalised points (n, count, dims) in [-reach, reach], float64."""
    return reach * (2 * draw(n, count, dims, seed=seed) - 1)


def points_off_kinks(n: int, count: int, in_size: tuple[int, ...], beyond: float = 1.5, seed: int = 0) -> Tensor:
    """Pixel points (n, count, d), at most about ``beyond`` pixels outside and at least 0.05 from all kinks.

    Kinks of all modes and paddings lie at whole pixels and half-way between."""
    axes = []
    for axis, pixels in enumerate(reversed(in_size)):
        cells = int(2 * (pixels - 1 + 2 * beyond))
        cell = (draw(n, count, seed=seed + 2 * axis) * cells).floor()
        axes.append(cell / 2 - beyond + 0.05 + 0.4 * draw(n, count, seed=seed + 2 * axis + 1))
    return torch.stack(axes, dim=-1)


def kink_points(in_size: tuple[int, ...]) -> Tensor:
    """Every pixel point (1, M, d) whose coordinates are whole or half, up to one pixel outside."""
    axes = [[i / 2 for i in range(-2, 2 * pixels + 1)] for pixels in reversed(in_size)]
    return torch.tensor(list(product(*axes)), dtype=torch.float64)[None]


def ramp(size: tuple[int, ...], *, dtype: torch.dtype = torch.float64) -> Tensor:
    """(1, d, *size): channel i holds the pixel coordinate i (x, y[, z]); linear, so bilinear reading is exact."""
    axes = [torch.arange(pixels, dtype=dtype) for pixels in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1])[None]


def waves(size: tuple[int, ...]) -> Tensor:
    """(1, 1, *size): a smooth picture in (0, 1), long waves that differ along the axes, dark towards the border."""
    axes = [torch.linspace(-1, 1, pixels, dtype=torch.float64) for pixels in size]
    grids = torch.meshgrid(*axes, indexing="ij")
    phase = torch.stack([(1.0 + 0.5 * i) * grid for i, grid in enumerate(grids)]).sum(dim=0)
    fade = torch.stack([(torch.pi / 2 * grid).cos() ** 2 for grid in grids]).prod(dim=0)
    return ((1 + torch.sin(1.5 * phase)) / 2 * fade)[None, None]


@dataclass(frozen=True)
class ExactWarp:
    """An affine warp of which every output pixel is an input pixel."""

    theta: list[list[float]]  # of a square picture of 8 (2-D) or 4 (3-D) pixels a side, align_corners=False
    expected: Callable[[Tensor], Tensor]


def shifted(image: Tensor, by: int, axis: int) -> Tensor:
    """What a picture reads ``by`` pixels further on; 0 where nothing is left to read."""
    moved = torch.zeros_like(image)
    length = image.shape[axis] - abs(by)
    moved.narrow(axis, max(-by, 0), length).copy_(image.narrow(axis, max(by, 0), length))
    return moved


EXACT: dict[int, dict[str, ExactWarp]] = {
    2: {
        "identity": ExactWarp([[1, 0, 0], [0, 1, 0]], lambda u: u),
        "read 1 to the right": ExactWarp([[1, 0, 2 / 8], [0, 1, 0]], lambda u: shifted(u, 1, -1)),
        "read 3 above": ExactWarp([[1, 0, 0], [0, 1, -6 / 8]], lambda u: shifted(u, -3, -2)),
        "all outside": ExactWarp([[1, 0, 4], [0, 1, 0]], torch.zeros_like),
        "flip x": ExactWarp([[-1, 0, 0], [0, 1, 0]], lambda u: u.flip(-1)),
        "flip y": ExactWarp([[1, 0, 0], [0, -1, 0]], lambda u: u.flip(-2)),
        "quarter turn": ExactWarp([[0, -1, 0], [1, 0, 0]], lambda u: u.rot90(1, (-2, -1))),
        "half turn": ExactWarp([[-1, 0, 0], [0, -1, 0]], lambda u: u.flip(-1, -2)),
        "x and y change places": ExactWarp([[0, 1, 0], [1, 0, 0]], lambda u: u.mT),
    },
    3: {
        "identity": ExactWarp([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], lambda u: u),
        "read 1 deeper": ExactWarp([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2 / 4]], lambda u: shifted(u, 1, -3)),
        "flip z": ExactWarp([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]], lambda u: u.flip(-3)),
        "x, y, z take turns": ExactWarp([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], lambda u: u.permute(0, 1, 3, 4, 2)),
    },
}
