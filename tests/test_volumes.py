"""Extruded digits in 3-D: the set, and the two networks that look at it."""

from pathlib import Path

import pytest
import torch
from tiny_run import tiny_config, tiny_digits, tiny_train

from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.data.volumes import THICK, VOLUME, draw_volumes
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.models import build, count_parameters
from torch_stn.lab.models.volumes import REDUCED, START, Projection
from torch_stn.lab.report.page import build_report
from torch_stn.lab.report.runs import read_run
from torch_stn.lab.volume_views import solid_view, volumes_picture
from torch_stn.transforms import Affine
from torch_stn.warping import warp

DIGITS = torch.from_numpy(tiny_digits().train_images)
LABELS = torch.from_numpy(tiny_digits().train_labels)


def test_a_volume_holds_all_of_its_digit() -> None:
    indices = torch.arange(0, 240, 15)
    volumes, labels = draw_volumes(DIGITS, LABELS, indices, indices + 500, 3)
    assert volumes.shape == (16, 1, VOLUME, VOLUME, VOLUME)
    assert labels.equal(LABELS[indices])
    assert 0 <= float(volumes.min()) <= float(volumes.max()) <= 1
    # Turning keeps volume: what is there is the digit's ink times its thickness, to the blur of its faces.
    mass = volumes.flatten(1).sum(dim=1)
    ink = DIGITS[indices].float().div(255).flatten(1).sum(dim=1) * THICK
    torch.testing.assert_close(mass, ink, rtol=0.03, atol=0.0)


def test_digits_are_turned_in_space_and_placed_anywhere() -> None:
    indices = torch.zeros(64, dtype=torch.int64)
    volumes, _ = draw_volumes(DIGITS, LABELS, indices, torch.arange(64), 0)
    mass = volumes[:, 0].flatten(1).sum(dim=1)
    steps = torch.arange(VOLUME, dtype=torch.float32)
    place = torch.stack(
        [(volumes[:, 0].sum(dim=axes) * steps).sum(dim=1) / mass for axes in ((1, 2), (1, 3), (2, 3))], dim=1
    )
    assert (place.amax(dim=0) - place.amin(dim=0) > 15).all()  # of 20 voxels of room, on every axis
    # How deep the digit reaches tells whether its plane is turned out of the picture's.
    deep = (volumes[:, 0].amax(dim=(2, 3)) > 0.5).sum(dim=1)
    assert int(deep.max()) > THICK + 6
    assert int(deep.min()) < THICK + 6


def test_a_batch_of_volumes_is_a_function_of_seed_and_step() -> None:
    a, b = (DigitSet(tiny_digits(), "volumes", 3).training_batch(2, 4) for _ in range(2))
    assert a.images.equal(b.images)
    assert not a.images.equal(DigitSet(tiny_digits(), "volumes", 4).training_batch(2, 4).images)


def test_the_twin_has_as_many_parameters() -> None:
    with_transformer, twin = (
        build(tiny_config("data=volumes", f"model={name}", "width=0")) for name in ("st-cnn", "cnn")
    )
    counts = count_parameters(with_transformer), count_parameters(twin)
    assert counts[0] <= counts[1] < 1.03 * counts[0]
    x = torch.rand(2, 1, VOLUME, VOLUME, VOLUME)
    assert with_transformer(x).shape == twin(x).shape == (2, 10)


def test_a_second_look_is_at_the_volume_as_the_first_has_moved_it() -> None:
    net = build(tiny_config("data=volumes", "model=st-cnn", "looking=resnet", "iterations=2"))
    assert isinstance(net, Projection)
    assert net.transformer is not None
    small = torch.rand(2, 1, *[VOLUME // REDUCED] * 3)
    transformer = net.transformer
    with torch.no_grad():
        transformer.head.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
        first, second = transformer.theta(small).unbind(1)
        assert (second - first).abs().max() > 1e-3  # it sees another picture
        start = torch.cat([START * torch.eye(3), torch.zeros(3, 1)], dim=1)[None]
        moved = warp(small, Affine(dims=3)(start).then(Affine(dims=3)(first)), small.shape[2:])
        torch.testing.assert_close(second, transformer.head(transformer.features(moved)), rtol=1e-5, atol=1e-5)


def test_pictures_are_sums_over_depth() -> None:
    net, twin = (build(tiny_config("data=volumes", f"model={name}")) for name in ("st-cnn", "cnn"))
    assert isinstance(net, Projection)
    assert isinstance(twin, Projection)
    x = torch.zeros(1, 1, VOLUME, VOLUME, VOLUME)
    x[..., 20:40, 20:40, 20:40] = 1
    # Without a transformer: 2 x 2 pixels of 20 voxels each are one.
    assert twin.picture(x)[0, 0, 15, 15] == pytest.approx(20 / THICK)
    assert twin.picture(x)[0, 0, 5, 5] == 0
    # At its start it reads the middle of the volume, a voxel of its 28^3 standing for 60 START / 28 of the volume's.
    seen = net.picture(x).detach()
    assert seen[0, 0, 14, 14] == pytest.approx(20 / (60 * START / 28) / THICK, rel=0.06)
    assert seen[0, 0, 0, 0] == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model=resnet"], "model: wanted cnn or st-cnn with data=volumes, got 'resnet'"),
        (["model=st-cnn", "transform=tps"], "transform: wanted affine with data=volumes, got 'tps'"),
        (["model=st-cnn", "count=2"], "count: wanted 1 with data=volumes, got 2"),
        (["model=st-cnn", "looking=lin-lucey"], "looking: wanted conv or resnet with data=volumes, got 'lin-lucey'"),
    ],
)
def test_other_networks_are_refused(words: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        build(tiny_config("data=volumes", *words))


@pytest.mark.parametrize("model", ["cnn", "st-cnn"])
def test_a_run_on_volumes_is_evaluated_and_reported(tmp_path: Path, model: str) -> None:
    folder = tiny_train(tmp_path / "run", "data=volumes", f"model={model}", "steps=2", "test_distortions=1")
    record = evaluate(folder, source=tiny_digits())
    assert record["distortions"] == 1
    assert read_run(folder.path).arrays["inputs"].shape[1:] == (VOLUME, VOLUME)
    assert build_report([folder.path], tmp_path / "report.html").is_file()


def test_a_solid_view_is_lit_where_the_body_is() -> None:
    """A cube in the middle: white around it, shaded inside, and brighter where it faces the light from the left."""
    cube = torch.zeros(20, 20, 20)
    cube[5:15, 5:15, 5:15] = 1
    view = solid_view(cube, side=60)
    assert view.shape == (60, 60)
    assert view[0, 0] == 1
    assert view[30, 30] < 0.95
    assert float(view.min()) >= 0.1
    share = float((view < 1).float().mean())
    assert 0.1 < share < 0.4
    assert solid_view(torch.zeros(4, 4, 4), side=8).eq(1).all()


def test_only_volumes_with_a_transformer_are_pictured(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "run", "data=r", "model=fcn", "steps=1")
    with pytest.raises(UserError, match="wanted a run on volumes with a transformer, it is FCN"):
        volumes_picture(folder.path, tmp_path / "a.png")
