"""The command line, `lostfound`. Commands import what they need when they run, so `--help` is instant."""

import sys

from search.cli import items, searching, training  # noqa: F401  they register their commands
from search.cli.app import app
from search.errors import LostfoundError


def main() -> None:
    """Run the command line: 0 done, 1 an error in one line on stderr, 2 wrong usage."""
    try:
        app()
    except LostfoundError as error:
        from search.console import fail

        fail(str(error))
        sys.exit(1)
    except Exception as error:  # a defect of ours: the user gets a line, the log the traceback
        from search.console import fail
        from search.defects import log_defect

        fail(f"unexpected {type(error).__name__}: {error}; {log_defect(error)}")
        sys.exit(1)
