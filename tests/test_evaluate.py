"""What a run leaves on the disk, and its evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from tiny_run import tiny_digits, tiny_train, weights

from torch_stn.lab import models
from torch_stn.lab.class_sums import ClassSums
from torch_stn.lab.data.sets import DigitSet
from torch_stn.lab.evaluate import evaluate, quick_error
from torch_stn.nn.monitor import NAMES

TEST = 60  # digits


def load(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


@pytest.mark.parametrize("name", ["fcn", "st-fcn"])
@pytest.mark.parametrize("data", ["rts", "plain"])
def test_a_run_folder_has_everything_that_its_page_lists(tmp_path: Path, name: str, data: str) -> None:
    words = (f"model={name}", f"data={data}", "steps=6", "checkpoint_every=2", "log_every=2", "evaluations=3")
    folder = tiny_train(tmp_path / "run", *words, "tensorboard=yes")
    record = evaluate(folder, "cpu", tiny_digits())
    transformer, side = name == "st-fcn", 42 if data == "rts" else 28

    made = {"config.json", "environment.json", "metrics.jsonl", "checkpoints", "tensorboard"}
    made |= {"evaluation.json", "evaluation.safetensors"} | ({"snapshots"} if transformer else set())
    assert {entry.name for entry in folder.path.iterdir()} == made
    assert len(list((folder.path / "tensorboard").iterdir())) == 1

    # Checkpoints: the last two, each whole.
    assert [path.name for path in folder.checkpoints()] == ["step-00000004", "step-00000006"]
    for path in folder.checkpoints():
        assert {entry.name for entry in path.iterdir()} == {"model.safetensors", "state.pt"}

    # Metrics: a loss every two steps, an error at each of three moments: 0, 1/4 and all of the run.
    rows = folder.metrics()
    losses = [row for row in rows if "loss" in row]
    errors = [row for row in rows if "test_error" in row]
    assert len(losses) + len(errors) == len(rows)
    assert [row["step"] for row in losses] == [2, 4, 6]
    assert [row["step"] for row in errors] == [0, 2, 6]
    monitored = {*NAMES, "residual_rotation_deg", "residual_shift", "residual_log_scale"} if transformer else set()
    for row in losses:
        assert row.keys() == {"step", "seconds", "loss", "learning_rate", "images_per_second"} | monitored
        assert row["loss"] > 0
        assert row["images_per_second"] > 0
    for row in errors:
        assert row.keys() == {"step", "seconds", "test_error"}
        assert 0 <= row["test_error"] <= 100
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)

    # Snapshots: what a dozen digits look like behind the transformer, and where it reads them.
    if transformer:
        paths = sorted((folder.path / "snapshots").iterdir())
        assert [path.name for path in paths] == [f"step-{step:08d}.safetensors" for step in (0, 2, 6)]
        for path, step in zip(paths, (0, 2, 6), strict=True):
            arrays = load(path)
            check_pictures(arrays, side)
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata()
            assert int(metadata["step"]) == step
            assert float(metadata["seconds"]) >= 0

    # The evaluation.
    assert json.loads((folder.path / "evaluation.json").read_text()) == record
    keys = {"error", "error_sd", "distortions", "test_images", "parameters", "train_seconds", "train_steps"}
    assert record.keys() >= keys | {"pose", "variance", "digits", "set", "label"}
    distortions = 1 if data == "plain" else 2  # a plain digit is the same every time
    assert record["distortions"] == distortions
    assert record["test_images"] == distortions * TEST
    assert record["train_steps"] == 6
    assert record["train_seconds"] == rows[-1]["seconds"] > 0
    assert record["digits"] == tiny_digits().name
    assert record["set"] == ("RTS" if data == "rts" else "plain")
    assert record["label"] == ("ST-FCN affine" if transformer else "FCN")
    assert record["parameters"] == models.count_parameters(models.build(folder.config()))
    arrays = load(folder.path / "evaluation.safetensors")
    check_evaluation(arrays, record, side=side, transformer=transformer, posed=data == "rts")


def check_pictures(arrays: dict[str, torch.Tensor], side: int) -> None:
    assert arrays["outputs"].shape == (12, side, side)
    assert arrays["outputs"].dtype == torch.float32
    assert 0 <= arrays["outputs"].min() < arrays["outputs"].max() <= 1 + 1e-5
    assert arrays["lines"].shape[:2] == (12, 10)
    assert arrays["lines"].shape[3] == 2
    assert arrays["lines"].dtype == torch.float32


def check_evaluation(
    arrays: dict[str, torch.Tensor], record: dict[str, Any], *, side: int, transformer: bool, posed: bool
) -> None:
    wanted = {"confusion", "mean_inputs", "inputs", "labels", "predictions"}
    wanted |= {"mistakes", "mistake_labels", "mistake_predictions", "mistake_confidence"}
    if transformer:
        wanted |= {"outputs", "lines", "mean_outputs", "mistake_outputs"}
        check_pictures(arrays, side)
    if transformer and posed:
        wanted |= {"true_pose", "predicted_pose", "pose_labels"}
    assert arrays.keys() == wanted

    confusion = arrays["confusion"]
    assert confusion.dtype == torch.int64
    assert confusion.shape == (10, 10)
    assert confusion.sum() == record["test_images"]
    assert (confusion.sum(dim=1) == record["test_images"] / 10).all()  # rows are the true classes
    wrong = confusion.sum() - confusion.diagonal().sum()
    assert record["error"] == pytest.approx(100 * wrong.item() / record["test_images"])

    assert arrays["labels"].tolist() == [*range(10), 2, 4]
    assert arrays["inputs"].shape == (12, side, side)
    assert arrays["predictions"].shape == (12,)
    assert arrays["mean_inputs"].shape == (10, side, side)
    count = min(24, int(wrong)) if record["distortions"] == 1 else len(arrays["mistakes"])
    assert 0 < count <= 24
    assert arrays["mistakes"].shape == (count, side, side)
    assert arrays["mistake_labels"].shape == arrays["mistake_predictions"].shape == (count,)
    assert (arrays["mistake_labels"] != arrays["mistake_predictions"]).all()
    confidence = arrays["mistake_confidence"]
    assert confidence.equal(confidence.sort(descending=True).values)
    assert 0.1 <= confidence.min() <= confidence.max() <= 1

    if not transformer:
        assert record["pose"] is record["variance"] is record["variance_share"] is None
        return
    assert arrays["mean_outputs"].shape == (10, side, side)
    assert arrays["mistake_outputs"].shape == (count, side, side)
    assert 0 < record["variance"]["after"] < 1
    for pair in (record["variance"], record["variance_share"]):
        assert pair["after"] == pytest.approx(pair["before"], rel=0.3)
    if not posed:
        assert record["pose"] is None
        return
    assert record["pose"].keys() == {"rotation_deg", "shift_px", "log_scale"}
    for pair in record["pose"].values():
        assert pair.keys() == {"before", "after"}
        # Six steps teach nothing: what is left is what there was, and never nothing.
        assert pair["after"] == pytest.approx(pair["before"], rel=0.3)
    assert 15 < record["pose"]["rotation_deg"]["before"] < 30
    assert arrays["true_pose"].shape == arrays["predicted_pose"].shape == (TEST, 4)
    assert arrays["pose_labels"].equal(torch.from_numpy(tiny_digits().test_labels))


def test_the_same_config_makes_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = tiny_train(tmp_path / "a", "model=st-cnn")
    torch.manual_seed(2)
    second = tiny_train(tmp_path / "b", "model=st-cnn")
    other = tiny_train(tmp_path / "c", "model=st-cnn", "seed=1")
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_what_is_watched_and_written_changes_no_weight(tmp_path: Path) -> None:
    quiet = tiny_train(tmp_path / "a", "model=tutorial", "evaluations=0", "log_every=100", "checkpoint_every=100")
    busy = tiny_train(tmp_path / "b", "model=tutorial", "evaluations=6", "log_every=1", "checkpoint_every=1")
    assert weights(quiet) == weights(busy)


def test_evaluating_twice_says_the_same_and_leaves_the_model_training(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "model=bn-cnn")
    first = evaluate(folder, "cpu", tiny_digits())
    assert evaluate(folder, "cpu", tiny_digits()) == first
    model = models.build(folder.config()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quick_error(model, DigitSet(tiny_digits(), "r", 0))
    assert model.training
    assert torch.is_grad_enabled()
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())  # batch statistics too


def test_learning_lowers_the_loss(tmp_path: Path) -> None:
    folder = tiny_train(tmp_path / "a", "data=plain", "width=32", "steps=60", "learning_rate=0.01", "evaluations=2")
    rows = [row for row in folder.metrics() if "loss" in row]
    assert sum(row["loss"] for row in rows[-10:]) < 0.5 * sum(row["loss"] for row in rows[:10])
    errors = [row["test_error"] for row in folder.metrics() if "test_error" in row]
    assert errors[-1] < 60 < errors[0]


def test_means_and_variance_within_a_class() -> None:
    images, labels = torch.rand(300, 1, 4, 5), torch.randint(0, 9, (300,))  # no nines
    sums = ClassSums()
    for part in torch.arange(300).split(70):
        sums.add(images[part], labels[part])
    means = sums.means()
    variances = []
    for digit in range(9):
        chosen = images[labels == digit, 0]
        torch.testing.assert_close(means[digit], chosen.mean(dim=0))
        variances.append(chosen.double().var(dim=0, unbiased=False).mean())
    assert means[9].abs().max() == 0
    variance, share = sums.variance()
    assert variance == pytest.approx(float(torch.stack(variances).mean()))
    squares = [images[labels == digit].double().square().mean() for digit in range(9)]
    assert share == pytest.approx(variance / float(torch.stack(squares).mean()))
