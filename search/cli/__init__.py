"""The command line, `lostfound`. Commands import what they need when they run, so `--help` is instant."""

import errno
import io
import os
import signal
import sys

from search.cli import items, measuring, searching, training, upkeep  # noqa: F401  they register their commands
from search.cli.app import app
from search.errors import LostfoundError


def main() -> None:
    """Run the command line: 0 done, 1 an error in one line on stderr, 2 wrong usage."""
    if sys.stdout is None or sys.stderr is None:  # closed by the caller: there is nowhere to answer to
        sys.exit("error: standard output is closed" if sys.stderr else 1)
    if not os.environ.get("COLUMNS", "").strip("0"):
        os.environ.pop("COLUMNS", None)  # rich would show nothing in no columns
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 is no reason to fail
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that open files are closed
    try:
        _run()
    except LostfoundError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            _defect(error)
        _fail(f"the answer cannot be written: {error.strerror}")
    except Exception as error:  # a defect of ours: the user gets a line, the log the traceback
        _defect(error)


def _run() -> None:
    """The command. What it has written is delivered, or it is told that it was not, before the process ends."""
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries once more
            if error.errno != errno.EPIPE:  # who reads no further has seen enough
                raise


def _defect(error: Exception) -> None:
    from search.defects import log_defect

    _fail(f"unexpected {type(error).__name__}: {error}; {log_defect(error)}")


def _fail(message: str) -> None:
    from search.console import fail

    fail(message)
    sys.exit(1)
