"""What a newcomer writes in a few lines, a family or a kernel, passes the tests of the built-in ones."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import MODES, draw, inner_points, pictures, thetas
from family_contract import FamilyContract, close
from interpolation_contract import InterpolationContract
from torch import Tensor, nn

from torch_stn import Basis, Interpolation, LocalizationFC, SpatialTransformer, Transform, lowered, sample, warp
from torch_stn.sampling.choose import BACKENDS
from torch_stn.sampling.interpolation import INTERPOLATIONS, Cubic


class Swirl(Transform):
    """Turns the middle of the picture and leaves the outside: theta = (turns, reach)."""

    theta_shape = (2,)

    def identity(self) -> Tensor:
        return torch.tensor([0.0, 0.5])

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        turns, reach = theta[:, None, 0], theta[:, None, 1]
        turn = 2 * math.pi * turns * torch.exp(-xy.square().sum(dim=-1) / reach.square())
        x, y = xy.unbind(-1)
        # cos(turn) - 1 as a sine, so that the identity is exactly 0 and small turns are exact.
        less, sin = -2 * torch.sin(turn / 2) ** 2, torch.sin(turn)
        return torch.stack([less * x - sin * y, sin * x + less * y], dim=-1)


class Twist(Transform):
    """Turns the slices of a volume about its z axis: turns a unit of z."""

    dims = 3
    theta_shape = (1,)

    def identity(self) -> Tensor:
        return torch.zeros(1)

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        x, y, z = xy.unbind(-1)
        turn = 2 * math.pi * theta * z
        less, sin = -2 * torch.sin(turn / 2) ** 2, torch.sin(turn)
        return torch.stack([less * x - sin * y, sin * x + less * y, torch.zeros_like(sin * x)], dim=-1)


class Drift(Transform):
    """A displacement at 4 x 4 places, smooth in between: read by a sampler, which has every derivative."""

    theta_shape = (2, 4, 4)

    def identity(self) -> Tensor:
        return torch.zeros(2, 4, 4)

    def displacement(self, theta: Tensor, xy: Tensor) -> Tensor:
        n = max(len(theta), len(xy))
        grid = xy.expand(n, -1, -1)[:, None]
        field = theta.expand(n, -1, -1, -1)
        return sample(field, grid, mode="bicubic", padding_mode="border", align_corners=True)[:, :, 0].mT


class TestFamily(FamilyContract):
    @pytest.fixture(params=[Swirl, Twist, Drift])
    def family(self, request: pytest.FixtureRequest) -> Transform:
        transform = request.param()
        assert isinstance(transform, Transform)
        return transform


def test_a_family_of_ones_own_takes_the_way_of_a_displacement_field_and_learns() -> None:
    torch.manual_seed(0)
    family = Swirl()
    assert isinstance(family(thetas(family)).lower((4, 4)), lowered.Field)
    stn = SpatialTransformer(LocalizationFC((1, 16, 16), (8,)), family)
    turned = torch.tensor([[0.13, 0.6]])
    image = pictures(4, (8, 8), channels=1, dtype=torch.float32)
    image = F.interpolate(image, (16, 16), mode="bilinear", align_corners=False)
    target = warp(image, family(turned))
    optimizer = torch.optim.Adam(stn.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(stn(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_basis_may_be_any_net() -> None:
    """A B made of linear layers, in the dtypes in which a model is trained."""

    class Bumps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))

        def forward(self, xy: Tensor) -> Tensor:
            return torch.cat([xy, self.net(xy)], dim=-1)

    family = Basis(Bumps(), torch.eye(5, 2))
    xy = inner_points(2, 7, 2).float()
    theta = thetas(family).float()
    wanted = family(theta).sources(xy)
    assert family.identity().dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        close(family(theta).sources(xy), wanted, 0)
    close(family.double()(theta.double()).sources(xy.double()).float(), wanted, 1e-6)
    half = family.float().bfloat16()
    assert half(theta).sources(xy).dtype == torch.float32
    close(half(theta).sources(xy), wanted, 0.02)


class Tent(Interpolation):
    """A tent of learnable width."""

    support = 2

    def __init__(self, width: float = 0.9) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(width))

    def kernel(self, distance: Tensor) -> Tensor:
        return (1 - distance.abs() / self.width).clamp(min=0)


class Gauss(Interpolation):
    """A bell of learnable width over an odd number of taps."""

    support = 3

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.2))

    def kernel(self, distance: Tensor) -> Tensor:
        return torch.exp(-self.rate * distance.square())


class Box(Interpolation):
    """One tap whose weight falls off with its distance, and is not the same on both sides."""

    support = 1

    def kernel(self, distance: Tensor) -> Tensor:
        return 1 - 0.5 * distance


class Leaning(Interpolation):
    """Two learnable slopes, one for each side: not symmetric."""

    support = 4

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([0.9, 0.6]))

    def kernel(self, distance: Tensor) -> Tensor:
        left, right = self.slopes
        return torch.exp(torch.where(distance < 0, left * distance, -right * distance))


KERNELS = {"tent": Tent, "gauss": Gauss, "box": Box, "leaning": Leaning, "keys, a = -0.5": lambda: Cubic(-0.5)}


# The other splines differ from these in nothing but their weights and response: tests/test_interpolation.py.
BUILT_IN = {name: make for name, make in INTERPOLATIONS.items() if name not in {f"bspline{n}" for n in (0, 1, 4, 6, 7)}}


class TestKernel(InterpolationContract):
    @pytest.fixture(params=[*KERNELS.values(), *BUILT_IN.values()], ids=[*KERNELS, *BUILT_IN])
    def kernel(self, request: pytest.FixtureRequest) -> Interpolation:
        interpolation = request.param().double()
        assert isinstance(interpolation, Interpolation)
        return interpolation


def test_other_backends_decline_a_kernel_of_ones_own() -> None:
    image, points = pictures(1, (4, 5)), draw(1, 6, 2)
    for name in BACKENDS.keys() - {"reference"}:
        with pytest.raises(ValueError, match=rf"^backend: '{name}' cannot serve this call: .*bilinear"):
            sample(image, points, mode=Tent(), backend=name)


def test_a_tent_of_width_one_is_bilinear() -> None:
    image, points = pictures(2, (5, 6)), inner_points(2, 30, 2, reach=1.4)
    for padding in ("zeros", "border", "reflection"):
        got = sample(image, points, mode=Tent(1.0).double(), padding_mode=padding)
        torch.testing.assert_close(got, sample(image, points, mode=MODES[1], padding_mode=padding))
