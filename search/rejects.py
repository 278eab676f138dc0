"""The file of rejected rows."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from search.errors import InputFileError
from search.row_file import Reject
from search.whole_file import sync

KEYS = {"file", "line", "reason", "row"}


class RejectsFile:
    """Rejected rows of one import as JSON Lines; replaces at once, and only, a file of rejects.

    Used as a context: at its end, also after an error, the rows so far are published. Without any, and without an
    error, the file that an earlier import of the same source left is removed. Where it cannot be written, that is told
    at the end: the good rows are stored all the same.
    """

    def __init__(self, path: Path, source: Path, remedy: str = "name another file with --rejects") -> None:
        """Check the target before anything is imported.

        Args:
            path: The file of rejects.
            source: The file that is imported.
            remedy: What to do where the file cannot be written.

        Raises:
            InputFileError: The path is something else than a file of rejects.
        """
        self.path = path
        self.count = 0
        self._source = source
        self._remedy = remedy
        self._file: TextIO | None = None
        self._write_error: OSError | None = None
        self._partial = path
        self._earlier = self._read_earlier()

    def __enter__(self) -> "RejectsFile":
        """Itself."""
        return self

    def write(self, reject: Reject) -> None:
        """Add a row."""
        self.count += 1
        if self._write_error:
            return
        line = {"file": self._source.name, "line": reject.line, "reason": reject.reason, "row": reject.row}
        try:
            if self._file is None:
                handle, name = tempfile.mkstemp(".partial", f"{self.path.name}.", self.path.parent)
                self._partial = Path(name)
                self._file = open(handle, "w", encoding="utf-8")  # noqa: PTH123, SIM115  closed by __exit__
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            self._fail(error)

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """Publish.

        Raises:
            InputFileError: The file cannot be written.
        """
        try:
            if self._file is not None:
                self._file.close()
                with suppress(FileNotFoundError):  # of a source that was moved it stays for this user alone
                    self._partial.chmod(self._source.stat().st_mode & 0o666 | 0o600)  # as private as what it quotes
                sync(self._partial)
                self._partial.replace(self.path)
            elif not self.count and self._earlier == self._source.name and failed is None:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            self._fail(error)
        if self._write_error and failed is None:  # what ended the import is the greater trouble
            raise InputFileError(
                f"{self.path} cannot be written: {self._write_error.strerror}; {self._remedy}"
            ) from self._write_error

    def _fail(self, error: OSError) -> None:
        """Keep no half of a file."""
        self._write_error = self._write_error or error
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)
            self._file = None

    def _read_earlier(self) -> str | None:
        """The name of the source of the rejects that are there, None where there are none."""
        try:
            if not self.path.exists():
                return None
            first = json.loads(_first_line(self.path)) if self.path.is_file() else None
        except (OSError, ValueError, RecursionError):
            first = None
        if not isinstance(first, dict) or set(first) != KEYS:
            raise InputFileError(f"{self.path} is there and no file of rejects; {self._remedy}")
        return str(first["file"])


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline(1 << 20)
