"""The training kit where it is easily wrong: what is on a line or in space, starts, nested transformers, messages."""

import pytest
import torch
from torch import Tensor, nn

from torch_stn import (
    CPAB,
    Affine,
    LocalizationFC,
    Polar,
    PolyharmonicSpline,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
)
from torch_stn.nn import Monitor, parameter_groups, prepend
from torch_stn.nn.penalties import negative_determinants


def test_determinants_on_a_line() -> None:
    family = CPAB((2,))
    assert negative_determinants(family(torch.full((1, 3, 1), 0.2))) == 0
    # v = x / 2 stretches by e^(1/2); cells of [-1, 1] read e^(1/2) as wide.
    stretched = family(torch.tensor([[[-0.5], [0.0], [0.5]]]))
    found = negative_determinants(stretched, margin=2.0)
    assert abs(found.item() - (2 - torch.tensor(0.5).exp().item())) < 0.2
    model = SpatialTransformer(LocalizationFC((1, 8)), family)
    monitor = Monitor(model, every=1)
    model(torch.rand(2, 1, 8))
    assert monitor.metrics()["determinant_min"] == 1


def test_a_known_pose_is_one_of_the_plane() -> None:
    monitor = Monitor(SpatialTransformer(LocalizationFC((1, 4, 4, 4)), Translation(3)))
    with pytest.raises(ValueError, match=r"^truth: wanted a model of 2-D transformers"):
        monitor.know(Translation(3)(torch.zeros(1, 3)))


@pytest.mark.parametrize("family", [ThinPlateSpline(3), PolyharmonicSpline(3, order=3)])
@pytest.mark.parametrize("iterations", [1, 2])
def test_prepended_splines_start_as_the_identity(family: ThinPlateSpline, iterations: int) -> None:
    image = torch.rand(2, 1, 9, 9)
    model = prepend(nn.Identity(), family, (1, 9, 9), iterations=iterations)
    torch.testing.assert_close(model(image), image, rtol=0, atol=1e-6)
    own = prepend(nn.Identity(), family, (1, 9, 9), init=family.identity() + 0.25)
    assert not torch.allclose(own(image), image, atol=0.1)


def test_without_an_identity_there_is_one_look() -> None:
    with pytest.raises(ValueError, match=r"^iterations: wanted 1, since Polar has no identity"):
        SpatialTransformer(LocalizationFC((1, 9, 9)), Polar(), iterations=2)
    assert prepend(nn.Identity(), "polar", (1, 9, 9))(torch.rand(2, 1, 9, 9)).shape == (2, 1, 9, 9)


def test_a_start_is_a_tensor() -> None:
    with pytest.raises(TypeError, match=r"^init: wanted a torch\.Tensor, got list"):
        SpatialTransformer(LocalizationFC((1, 9, 9)), Affine(), init=[1, 0, 0, 0, 1, 0])  # type: ignore[arg-type]


def test_families_whose_constructor_is_wrapped_take_their_dimension() -> None:
    for name in ("affine", "tps"):
        assert prepend(nn.Flatten(), name, (1, 8, 8, 8)).transformer.transform.dims == 3


def test_heads_inside_features_do_not_decay() -> None:
    inner = SpatialTransformer(LocalizationFC((1, 8, 8)), Affine())
    outer = SpatialTransformer(nn.Sequential(inner, LocalizationFC((1, 8, 8))), Affine(), in_shape=(1, 8, 8))
    groups = parameter_groups(outer, lr=1.0, weight_decay=0.1)
    still = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert id(inner.head.weight) in still
    assert id(outer.head.weight) in still


def test_the_crop_of_an_affine_frame_takes_its_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    model = SpatialTransformer(LocalizationFC((1, 8, 8)), Affine())
    theta = torch.tensor([[0.5, 0.2, 0.1, -0.1, 0.6, 0.0]])
    sources = type(model.maps(theta)[0]).sources

    def counted(self: object, xy: Tensor) -> Tensor:
        seen.append(xy.shape[1])
        return sources(self, xy)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.maps(theta)[0]), "sources", counted)
    found = model.boxes(theta, (8, 8))
    assert seen == [4]
    wide, high = 0.7, 0.7
    wanted = torch.tensor([[0.1 - wide, -high, 0.1 + wide, high]])
    torch.testing.assert_close(found, (wanted + 1) * 4 - 0.5)
