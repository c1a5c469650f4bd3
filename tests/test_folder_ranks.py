"""A folder trained by two processes: the loss curve and the weights of one."""

import os
from pathlib import Path

import pytest
from photo_folder import WORDS, photo_folder
from shard_folder import shard_folder
from test_ranks import stn

from torch_stn.lab.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: two processes are refused"),
]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in RunFolder.open(run).metrics() if "loss" in row]


# crop=7, not 8: windows of half the side would start with every reading on a pixel, where rounding chooses the slope.
@pytest.mark.parametrize("words", [(), ("balance=weights", "transform=attention", "count=2", "crop=7")])
def test_two_processes_have_the_loss_curve_of_one_with_the_doubled_batch(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    photo_folder(tmp_path / "photos", 8)
    call = ("train", "folder", "data=photos", *WORDS, "steps=20", "optimizer=sgd", "learning_rate=0.05", *words)
    for devices, run in ((1, "one"), (2, "two")):
        code, _, err = stn(*call, f"devices={devices}", "--run", run, folder=tmp_path)
        assert code == 0, err
        assert err.count("data: 24 images") == 1
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 20
    curve = max(abs(a - b) for a, b in zip(one, two, strict=True))
    weights = [RunFolder.open(tmp_path / run).load_weights() for run in ("one", "two")]
    final = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    print(f"largest difference: loss curve {curve:.1e}, final weights {final:.1e}")
    assert curve < 1e-5
    assert final < 1e-5


def test_two_processes_stream_what_one_would(tmp_path: Path) -> None:
    shard_folder(tmp_path / "s", 3, 12)
    call = ("train", "folder", "data=s", *WORDS, "optimizer=sgd", "learning_rate=0.05")
    for devices, run in ((1, "one"), (2, "two")):
        code, _, err = stn(*call, f"devices={devices}", "--run", run, folder=tmp_path)
        assert code == 0, err
    one, two = (RunFolder.open(tmp_path / run).load_weights() for run in ("one", "two"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5
