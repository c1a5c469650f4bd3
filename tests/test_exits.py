"""How a command ends: alone by typer's exit, as one of several processes at once, whatever became of its streams."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from torch_stn.lab import exits
from torch_stn.lab.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# A group of one process stands for several; atexit would be torch's clearing up.
SEVERAL = """
import atexit, sys, torch
from torch_stn.lab import exits
from torch_stn.lab.errors import UserError
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
atexit.register(lambda: print("cleared up"))
@exits.one_line_errors
def command():
    print("said", end="")
    {what}
command()
"""


def end(what: str, **streams: object) -> subprocess.CompletedProcess[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    call = [sys.executable, "-c", SEVERAL.format(what=what)]
    return subprocess.run(call, cwd=ROOT, text=True, check=False, **given)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [("raise UserError('seed: wanted 1')", 2, "stn: seed: wanted 1\n"), ("pass", 0, ""), ("exits.fail('x', 1)", 1, "stn: x\n")],
)  # fmt: skip
def test_one_of_several_processes_leaves_at_once(what: str, code: int, line: str) -> None:
    done = end(what)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said", line)


@pytest.mark.parametrize("close", ["stdout", "stderr"])
def test_it_leaves_with_its_code_where_a_stream_is_closed(close: str) -> None:
    done = end(f"sys.{close}.close(); raise UserError('seed: wanted 1')")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_it_leaves_with_its_code_where_a_disk_is_full() -> None:
    with Path("/dev/full").open("w") as full:
        done = end("raise UserError('seed: wanted 1')", stdout=full)
        assert (done.returncode, done.stderr) == (1, "stn: No space left on device; nothing written so far is lost\n")
        assert end("raise UserError('seed: wanted 1')", stderr=full).returncode == 2


def test_alone_it_is_typer_that_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    @exits.one_line_errors
    def command() -> None:
        raise UserError("seed: wanted 1")

    with pytest.raises(typer.Exit) as left:
        command()
    assert left.value.exit_code == exits.MISTAKE
    assert capsys.readouterr().err == "stn: seed: wanted 1\n"
