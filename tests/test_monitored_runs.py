"""Runs of the lab record what their transformer does, and say when it has collapsed."""

from pathlib import Path

import pytest
from tiny_run import tiny_train

from torch_stn.lab.console import watching


def test_a_run_records_what_its_transformer_does(tmp_path: Path) -> None:
    rows = [row for row in tiny_train(tmp_path / "a", "model=st-fcn", "data=rts").metrics() if "loss" in row]
    assert rows
    for row in rows:
        assert row["finite"] == 1
        assert row["residual_rotation_deg"] > 5
    fcn = tiny_train(tmp_path / "b", "model=fcn").metrics()
    assert not any("scale" in row for row in fcn)


def test_a_run_whose_net_collapses_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_train(
        tmp_path / "a", "model=st-fcn", "data=rts", "learning_rate=30", "steps=200", "log_every=50", "evaluations=0"
    )
    (row,) = [row for row in folder.metrics() if "warning" in row]
    assert row["warning"].startswith("transformer: the localisation net has collapsed, since step ")
    with watching("ST-FCN", lambda row: 0.5) as watch:
        watch(row)
    assert "ST-FCN: transformer: the localisation net has collapsed" in capsys.readouterr().err.replace("\n", " ")
