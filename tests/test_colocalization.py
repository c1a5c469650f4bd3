"""Co-localisation: its scenes, its loss, its boxes, and a table that is run class by class."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import tiny_digits

from torch_stn.lab import colocalization, experiments
from torch_stn.lab.colocalization import ENCODER, colocalize, contrast, overlap, run
from torch_stn.lab.config import Config
from torch_stn.lab.data.colocalization import SCENE_PATCHES, draw_nudged, draw_scenes
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.errors import UserError
from torch_stn.lab.jobs import plan
from torch_stn.lab.models import build, count_parameters
from torch_stn.lab.models.colocalizer import BoundedAttention, Encoder, colocalizer
from torch_stn.lab.report.scenes import scenes_picture
from torch_stn.lab.reproduce import result
from torch_stn.lab.run_folder import RunFolder
from torch_stn.lab.train import Interrupted

DIGITS = torch.from_numpy(tiny_digits().train_images)
LABELS = torch.from_numpy(tiny_digits().train_labels)
CONFIG = replace(experiments.table("colocalization").cells[1].config, steps=3, accelerator="cpu", digits="embedded")


def test_a_scene_holds_its_digit_in_its_frame_and_nothing_else() -> None:
    images, frames = draw_scenes(DIGITS, LABELS, 4, SCENE_PATCHES["t84"], 5)
    assert images.shape == (24, 1, 84, 84)  # there are no more of the class
    left, top = (frames[:, :2] + 0.5).round().to(torch.int64).unbind(1)
    assert (frames[:, 2:] - frames[:, :2]).allclose(torch.tensor(28.0), atol=1e-4)
    crops = torch.stack([image[0, y : y + 28, x : x + 28] for image, x, y in zip(images, left, top, strict=True)])
    seen = {tuple((255 * crop).round().byte().flatten().tolist()) for crop in crops}
    assert seen == {tuple(digit.flatten().tolist()) for digit in DIGITS[LABELS == 4]}
    assert images.sum().allclose(crops.sum())


def test_clutter_is_added_and_the_frames_stay() -> None:
    plain, cluttered = (draw_scenes(DIGITS, LABELS, 7, patches, 5) for patches in (0, 16))
    assert plain.frames.equal(cluttered.frames)
    assert (cluttered.images >= plain.images).all()
    assert cluttered.images.max() <= 1
    assert cluttered.images.sum() > 1.5 * plain.images.sum()
    assert not draw_scenes(DIGITS, LABELS, 7, 0, 6).images.equal(plain.images)


def test_nudged_digits_move_by_at_most_four_pixels() -> None:
    dot = torch.zeros(1, 28, 28, dtype=torch.uint8)
    dot[0, 13, 14] = 255
    samples = torch.arange(2000)
    both = torch.cat([dot, torch.zeros_like(dot)])  # the clutter is cut from the black one
    images, labels = draw_nudged(both, torch.tensor([3, 0]), torch.zeros_like(samples), samples, 0)
    places = torch.nonzero(images[:, 0])
    assert len(places) == len(samples)
    assert places[:, 1].unique().tolist() == list(range(9, 18))
    assert places[:, 2].unique().tolist() == list(range(10, 19))
    assert (labels == 3).all()


@pytest.mark.parametrize("kind", ["nudged", "t84", "tc84"])
def test_the_sets_can_be_learned_from(kind: str) -> None:
    data = DigitSet(tiny_digits(), kind, 0)
    batch = data.training_batch(0, 4)
    assert batch.images.shape == (4, *data.facts.shape)
    assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1
    assert data.posed == (kind != "nudged")


def test_overlap_is_intersection_over_union() -> None:
    frames = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).expand(4, -1)
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [1.0, 1.0, 3.0, 3.0], [5.0, 0.0, 9.0, 4.0]])
    assert overlap(boxes, frames).tolist() == pytest.approx([1.0, 8 / 24, 4 / 16, 0.0])


def test_the_contrast_is_the_papers() -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    compared = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]], [[3.0, 0.0]]])
    # |e_0 - e_1|^2 - |e_0 - r_0|^2 + 1 = 1 - 2 + 1; (0, 2): 4 - 2 + 1; (1, 0): 1 - 1 + 1; (1, 2): 5 - 1 + 1;
    # (2, 0): 4 - 13 + 1 < 0; (2, 1): 5 - 13 + 1 < 0.
    assert contrast(codes, compared)[:, :, 0].tolist() == [[0.0, 0.0, 3.0], [1.0, 0.0, 5.0], [0.0, 0.0, 0.0]]
    assert contrast(codes, compared, agreement=0.0)[1, 2, 0] == 0.0  # -1 + 1


def test_the_transformer_starts_in_the_middle_and_has_the_papers_size() -> None:
    transformer = colocalizer(3)
    assert count_parameters(transformer) == 93_179
    images = torch.rand(2, 1, 84, 84)
    boxes = transformer.boxes(transformer.theta(images), (84, 84))
    assert boxes.allclose(torch.tensor([27.5, 27.5, 55.5, 55.5]), atol=1e-4)
    with torch.no_grad():
        assert transformer(images).allclose(images[:, :, 28:56, 28:56], atol=1e-5)
    other = colocalizer(4)
    assert not torch.equal(transformer.features.fc1.weight, other.features.fc1.weight)


def test_the_bounds_hold() -> None:
    far = BoundedAttention()(torch.tensor([[9e9, -9e9, 9e9], [-9e9, 0.0, 0.0]]))
    assert far.sources(torch.zeros(1, 1, 2))[0].tolist() == [pytest.approx([-2 / 3, 2 / 3])]
    reach = far.sources(torch.tensor([[[1.0, 1.0]]])) - far.sources(torch.zeros(1, 1, 2))
    assert reach[:, 0, 0].tolist() == pytest.approx([1.25 / 3, 0.8 / 3])


def _encoder() -> Encoder:
    net = build(replace(ENCODER, width=4))
    return Encoder(net, DIGITS[:50, None].float() / 255)


def test_a_code_has_unit_length_and_does_not_learn() -> None:
    encoder = _encoder()
    codes = encoder(DIGITS[:5, None].float() / 255)
    assert codes.square().sum(dim=1).allclose(torch.ones(5), atol=1e-5)
    assert codes.shape[1] == 4 * 10 * 10 + 4 * 2 * 2 + 10
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_one_class_is_optimised_the_same_twice() -> None:
    scenes = draw_scenes(DIGITS, LABELS, 1, 0, 0)
    first, second = (colocalize(scenes, _encoder(), CONFIG, 1) for _ in range(2))
    assert first.losses == second.losses
    assert first.boxes.equal(second.boxes)
    assert len(first.losses) == 3
    assert first.record()["localised"] == 100 * float((overlap(first.boxes, scenes.frames) > 0.5).double().mean())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colocalization, "load", lambda config: tiny_digits())
    monkeypatch.setattr(colocalization, "ENCODER", replace(ENCODER, steps=2, width=4, batch_size=8))


def test_a_table_is_run_class_by_class_and_goes_on(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = plan(
        experiments.table("colocalization"), ["steps=3", "digits=embedded", "accelerator=cpu"], "ours", 1, "t"
    )
    path = tmp_path / "t-0"
    run(replace(job.config, steps=3), tmp_path / "other")  # a whole one
    done: list[int] = []
    original = colocalization.colocalize

    def until_third(scenes: object, encoder: object, config: Config, digit: int, attempt: int = 0) -> object:
        if digit == 2 and not done:
            done.append(digit)
            monkeypatch.setattr(time, "monotonic", lambda: 1e12)
        return original(scenes, encoder, config, digit, attempt)

    monkeypatch.setattr(colocalization, "colocalize", until_third)
    with pytest.raises(Interrupted):
        run(job.config, path, 1e11)
    assert sorted(each.name for each in path.glob("class-*.json")) == [f"class-{digit}.json" for digit in range(3)]
    folder = run(job.config, path)
    record = result(job, folder)
    assert record["evaluation"]["measures"] == result(job, RunFolder.open(tmp_path / "other"))["evaluation"]["measures"]
    measures = record["evaluation"]["measures"]
    assert measures["localised"] == pytest.approx(sum(measures[f"digit {digit}"] for digit in range(10)) / 10)
    assert job.table.number(record["evaluation"]) == pytest.approx(100 - record["evaluation"]["error"])
    json.dumps(record)
    assert scenes_picture(path, [0, 3], tmp_path / "scenes.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_a_digit_that_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has not finished digit 4"):
        scenes_picture(tmp_path, [4], tmp_path / "a.png")


@pytest.mark.parametrize(("change", "word"), [({"data": "rts"}, "data"), ({"optimizer": "sgd"}, "recipe")])
def test_what_is_not_taken(change: dict[str, str], word: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{word}: wanted|^{word}: "):
        run(replace(CONFIG, **change), tmp_path / "a")
    assert not (tmp_path / "a").exists()
