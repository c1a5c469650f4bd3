"""How a command ends: a line on stderr and an exit code."""

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from torch_stn.lab.errors import LostProcessError, UserError

FOREIGN = 1  # exit codes: a fault of the machine
MISTAKE = 2  # a fault of the call
INTERRUPTED = 130


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A user's mistake is one line on stderr and an exit code, never a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            if _one_of_several():
                end(0)
        except UserError as error:
            fail(str(error), MISTAKE)
        except LostProcessError as error:
            typer.echo(f"stn: {error}", err=True)
            end(FOREIGN)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except BrokenPipeError:
            sys.stderr.close()
            end(FOREIGN)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            hint = "; nothing written so far is lost" if error.errno == errno.ENOSPC else ""
            fail(f"{where}{error.strerror or error}{hint}", FOREIGN)

    return wrapped


def fail(line: str, code: int) -> NoReturn:
    """Say why, and leave."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes the first speaks
        with contextlib.suppress(OSError, ValueError):  # nobody listens
            typer.echo(f"stn: {line}", err=True)
    end(code)


def end(code: int) -> NoReturn:
    """Leave. One of several processes leaves at once: where another is gone, torch's clearing up may hang or abort."""
    if _one_of_several():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or on a full disk
                stream.flush()
        os._exit(code)
    raise typer.Exit(code)


def _one_of_several() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
