"""Several looks with one localisation net: maps compose, the original is read; and the crops that are looked at."""

import math
from typing import Any

import pytest
import torch
from cases import FAMILIES, pictures
from torch import Tensor, nn

from torch_stn import Affine, Attention, Projective, SpatialTransformer, ThinPlateSpline, Transform, Translation, warp


def looking(
    transform: Transform, iterations: int = 1, size: tuple[int, ...] = (9, 7), **how: Any
) -> SpatialTransformer:
    """A transformer whose theta differs from picture to picture and from look to look."""
    torch.manual_seed(3)
    features = nn.Sequential(nn.Flatten(), nn.Linear(2 * math.prod(size), 6), nn.Tanh())
    stn = SpatialTransformer(features, transform, in_shape=(2, *size), iterations=iterations, **how)
    nn.init.normal_(stn.head.weight, std=0.1)
    return stn


def square(theta: Tensor) -> Tensor:
    """Affine thetas (N, 6) as 3 x 3 matrices."""
    last = torch.tensor([0.0, 0.0, 1.0], dtype=theta.dtype).expand(len(theta), 1, 3)
    return torch.cat([theta.unflatten(1, (2, 3)), last], dim=1)


def test_one_look_is_the_plain_transformer() -> None:
    x = pictures(3, (9, 7), dtype=torch.float32)
    plain, once = looking(Affine()), looking(Affine(), iterations=1)
    assert torch.equal(once(x), plain(x))
    assert torch.equal(once.theta(x), plain.theta(x))
    assert once.state_dict().keys() == plain.state_dict().keys() == looking(Affine(), 4).state_dict().keys()


@pytest.mark.parametrize("iterations", [2, 3, 5])
def test_the_map_is_the_product_of_the_matrices(iterations: int) -> None:
    stn = looking(Affine(), iterations).double()
    x = pictures(3, (9, 7))
    theta = stn.theta(x)
    assert theta.shape == (3, iterations, 6)
    assert not torch.equal(theta[:, 0], theta[:, 1])
    product = torch.linalg.multi_dot([square(theta[0, i, None])[0] for i in range(iterations)])
    (map,) = stn.maps(theta)
    points = torch.rand(3, 20, 2, dtype=torch.float64) * 2 - 1
    wanted = points[0] @ product[:2, :2].mT + product[:2, 2]
    torch.testing.assert_close(map.sources(points)[0], wanted, rtol=0, atol=1e-12)
    matrix = torch.stack([torch.linalg.multi_dot([square(t[None])[0] for t in each])[:2] for each in theta])
    torch.testing.assert_close(stn(x), warp(x, Affine()(matrix)), rtol=0, atol=1e-12)


def test_each_look_sees_the_original_as_warped_so_far() -> None:
    stn, x = looking(Projective(), 3).double(), pictures(3, (9, 7))
    theta = stn.theta(x)

    def look(seen: Tensor) -> Tensor:
        return stn.features(seen) @ stn.head.weight.mT + stn.head.bias

    first = Projective()(theta[:, 0])
    torch.testing.assert_close(theta[:, 0], look(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(theta[:, 1], look(warp(x, first)), rtol=0, atol=1e-12)
    both = first.then(Projective()(theta[:, 1]))
    torch.testing.assert_close(theta[:, 2], look(warp(x, both)), rtol=0, atol=1e-12)
    twice = look(warp(warp(x, first), Projective()(theta[:, 1])))
    assert (theta[:, 2] - twice).abs().max() > 1e-3, "a picture read twice is another, blurred one"


def test_a_later_look_brings_back_what_an_earlier_one_cut_off() -> None:
    stn = looking(Translation(), 2)
    x = pictures(1, (9, 7), dtype=torch.float32)
    away_and_back = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    torch.testing.assert_close(stn.read(x, away_and_back), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family().has_identity])
def test_it_starts_as_the_identity(name: str) -> None:
    family = FAMILIES[name]()
    size = (9, 7) if family.dims == 2 else (3, 4, 5)
    features = nn.Sequential(nn.Flatten(), nn.Linear(2 * math.prod(size), 6))
    stn = SpatialTransformer(features, family, in_shape=(2, *size), iterations=3)
    with torch.no_grad():
        stn.head.bias.copy_(family.identity().flatten())  # of families that start a little beside it
    x = torch.rand(3, 2, *size)
    torch.testing.assert_close(stn(x), x, rtol=0, atol=2e-5)
    assert torch.equal(stn.theta(x), family.identity().flatten().expand(3, 3, -1))


@pytest.mark.parametrize("family", [Affine(), Projective(), ThinPlateSpline(3)], ids=["affine", "projective", "tps"])
def test_gradients_flow_through_every_look(family: Transform) -> None:
    stn, x = looking(family, 3).double(), pictures(2, (9, 7)).requires_grad_()

    def last(weight: Tensor) -> Tensor:
        state = {"features.1.weight": weight}
        return torch.func.functional_call(stn, state, (x,), {"return_theta": True})[1][:, 2]

    weight = stn.features[1].weight.detach()
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    analytic = torch.autograd.grad(last(weight.requires_grad_()).sum(), weight)[0]
    step = 1e-6
    with torch.no_grad():
        numeric = (last(weight + step * direction).sum() - last(weight - step * direction).sum()) / (2 * step)
    torch.testing.assert_close((analytic * direction).sum(), numeric, rtol=1e-5, atol=1e-7)
    stn(x).square().sum().backward()
    for name, parameter in [*stn.named_parameters(), ("x", x)]:
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_the_start_is_one_map_however_often_it_looks() -> None:
    half = torch.tensor([0.5, 0.25, 0.0])
    x = pictures(2, (9, 7), dtype=torch.float32)
    features = nn.Sequential(nn.Flatten(), nn.Linear(126, 6))
    stn = SpatialTransformer(features, Attention(), in_shape=(2, 9, 7), iterations=4, init=half)
    torch.testing.assert_close(stn(x), warp(x, Attention()(half[None])), rtol=0, atol=1e-6)
    once = SpatialTransformer(features, Attention(), in_shape=(2, 9, 7), init=half)
    torch.testing.assert_close(stn(x), once(x), rtol=0, atol=1e-6)
    assert "head.start" not in stn.state_dict()
    assert stn.bfloat16().head.start.dtype == torch.float32


def test_localise_on_a_small_picture_and_read_a_large_one() -> None:
    stn, x, large = looking(Affine(), 3, size=(9, 7)), torch.rand(2, 2, 9, 7), torch.rand(2, 3, 40, 30)
    stn.size = (20, 20)
    assert torch.equal(stn(x, large), warp(large, stn.maps(stn.theta(x))[0], (20, 20)))


def test_autocast_leaves_the_composition_alone() -> None:
    stn, x = looking(Affine(), 3), torch.rand(2, 2, 9, 7)
    with torch.autocast("cpu", torch.bfloat16):
        values, theta = stn(x, return_theta=True)
    assert values.dtype == theta.dtype == torch.float32
    assert torch.equal(values, warp(x, stn.maps(theta)[0]))


def test_its_state_goes_to_another(tmp_path: Any) -> None:
    stn, x = looking(Affine(), 3), torch.rand(2, 2, 9, 7)
    torch.save(stn.state_dict(), tmp_path / "state.pt")
    other = SpatialTransformer(
        nn.Sequential(nn.Flatten(), nn.Linear(126, 6), nn.Tanh()), Affine(), in_shape=(2, 9, 7), iterations=3
    )
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other(x), stn(x))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"iterations": 0}, "iterations: wanted at least 1, and 1 with count > 1, got 0 and count=1"),
        ({"iterations": 2, "count": 2}, "iterations: wanted at least 1, and 1 with count > 1, got 2 and count=2"),
    ],
    ids=["none", "side by side"],
)
def test_what_is_refused(how: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        SpatialTransformer(nn.Flatten(), Affine(), in_shape=(1, 4, 4), **how)


class TestCrops:
    def test_all_of_the_picture(self) -> None:
        stn = SpatialTransformer(nn.Flatten(), Affine(), in_shape=(1, 9, 7))
        theta = stn.theta(torch.rand(2, 1, 9, 7))
        assert stn.boxes(theta, (9, 7)).tolist() == [[-0.5, -0.5, 6.5, 8.5]] * 2
        stn.align_corners = True
        assert stn.boxes(theta, (9, 7)).tolist() == [[0, 0, 6, 8]] * 2

    def test_a_crop_in_pixels(self) -> None:
        stn = SpatialTransformer(nn.Flatten(), Attention(), in_shape=(1, 8, 16))
        # A quarter of the picture, its middle at three quarters of the width: x from 8 to 16, y from 2 to 6, in edges.
        theta = torch.tensor([[0.5, 0.5, 0.0]])
        assert stn.boxes(theta, (8, 16)).tolist() == [[7.5, 1.5, 15.5, 5.5]]

    def test_side_by_side_in_three_dimensions(self) -> None:
        stn = SpatialTransformer(nn.Flatten(), Attention(3), in_shape=(1, 4, 6, 8), count=2)
        theta = torch.tensor([[[1.0, 0, 0, 0], [0.5, 0, 0, 0.5]]])
        wanted = [[[-0.5, -0.5, -0.5, 7.5, 5.5, 3.5], [1.5, 1.0, 1.5, 5.5, 4.0, 3.5]]]
        assert stn.boxes(theta, (4, 6, 8)).tolist() == wanted

    def test_a_turned_frame_after_two_looks(self) -> None:
        stn = looking(Affine(), 2)
        eighth = math.sqrt(0.5)
        turn = torch.tensor([eighth, -eighth, 0.0, eighth, eighth, 0.0])
        theta = torch.stack([turn, torch.tensor([0.5, 0, 0, 0, 0.5, 0])])[None]
        reach = 8 * math.sqrt(2) / 2  # half the diagonal of half a picture of 16 pixels
        box = stn.boxes(theta, (16, 16))
        torch.testing.assert_close(box, torch.tensor([[7.5 - reach, 7.5 - reach, 7.5 + reach, 7.5 + reach]]))

    def test_gradients_reach_theta(self) -> None:
        stn = SpatialTransformer(nn.Flatten(), Attention(), in_shape=(1, 8, 8))
        theta = torch.tensor([[0.5, 0.25, 0.0]], requires_grad=True)
        stn.boxes(theta, (8, 8))[0, 2].backward()  # x_max = 4 (s + t_x) + 3.5
        assert theta.grad is not None
        assert theta.grad.tolist() == [[4.0, 4.0, 0.0]]

    def test_a_wrong_size(self) -> None:
        stn = SpatialTransformer(nn.Flatten(), Affine(), in_shape=(1, 4, 4))
        with pytest.raises(ValueError, match=r"^size: wanted \(h, w\), got \(4, 4, 4\)$"):
            stn.boxes(torch.eye(2, 3)[None], (4, 4, 4))


@pytest.mark.slow  # the exporter takes some ten seconds
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_it_runs_in_onnxruntime(tmp_path: Any) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, which torch's exporter needs, is not installed")
    stn, x = looking(Affine(), 3).eval(), torch.rand(2, 2, 9, 7)
    torch.onnx.export(stn, (x,), str(tmp_path / "stn.onnx"), dynamo=True, opset_version=20)
    session = runtime.InferenceSession(str(tmp_path / "stn.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), stn(x).detach(), rtol=0, atol=1e-5)
