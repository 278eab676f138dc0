"""Lines of a text file of any origin, with a way back to the start of a row that went wrong."""

from collections import deque
from pathlib import Path
from typing import BinaryIO

from search.errors import InputFileError

LINE_LIMIT = 1 << 20
"""Bytes of one line. No item is as long."""

BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16 or UTF-32", b"\xfe\xff": "UTF-16"}

SHOWN = 4000
"""Characters of a bad row that are kept."""


class LineTooLongError(Exception):
    """A line or a row is longer than any item can be."""


class LineReader:
    """An iterator over the lines of a file, as text.

    Bytes that are not UTF-8 come as surrogates, for their row to be rejected. `begin_record` marks where a row begins;
    `resume_after_first_line` goes back there and on to the line after it.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.position = 0
        """Bytes read so far."""
        self.record_line = 1
        """The number of the line at which the present row begins."""
        self._file = file
        self._path = path
        self._next_line = 1
        self._record: list[str] = []
        self._record_length = 0
        self._ahead: deque[str] = deque()
        self._limit: int | None = None

    def begin_record(self, limit: int | None = None) -> None:
        """The next line begins a row, of `limit` characters at most."""
        self.record_line = self._next_line
        self._record = []
        self._record_length = 0
        self._limit = limit

    def resume_after_first_line(self) -> int:
        """Give out the lines after the first of the present row once more; how many characters those are."""
        given_back = self._record[1:]
        self._ahead.extendleft(reversed(given_back))
        self._next_line -= len(given_back)
        self._record = self._record[:1]
        self._record_length = sum(map(len, self._record))
        return sum(map(len, given_back))

    def record_text(self) -> str:
        """The present row as it was read, cut to what is worth keeping."""
        text = "".join(self._record).rstrip("\r\n")[:SHOWN]
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def __iter__(self) -> "LineReader":
        """Itself."""
        return self

    def __next__(self) -> str:
        """The next line with its end.

        Raises:
            LineTooLongError: The line, or the row so far, is too long.
            InputFileError: The file cannot be read, or is not UTF-8 at all.
        """
        line = self._ahead.popleft() if self._ahead else self._read()
        if not line:
            raise StopIteration
        self._next_line += 1
        self._record.append(line)
        self._record_length += len(line)
        if len(line) >= LINE_LIMIT // 4 and len(line.encode("utf-8", "surrogateescape")) > LINE_LIMIT - 4:
            raise LineTooLongError(f"a line is longer than {LINE_LIMIT:,} bytes")
        if self._limit and len(self._record) > 1 and self._record_length > self._limit:
            raise LineTooLongError("a quotation mark is not closed")
        return line

    def _read(self) -> str:
        try:
            raw = self._file.readline(LINE_LIMIT)
            size = len(raw)
            rest = raw
            while rest and not rest.endswith(b"\n"):  # of a line over the limit the rest is passed over
                rest = self._file.readline(LINE_LIMIT)
                size += len(rest)
        except OSError as error:
            raise InputFileError(f"{self._path} cannot be read: {error.strerror}") from error
        if self.position == 0 and (encoding := BYTE_ORDER_MARKS.get(raw[:2])):
            raise InputFileError(f"{self._path} is {encoding}; save it as UTF-8 (in Excel: CSV UTF-8)")
        encoding = "utf-8" if self.position else "utf-8-sig"
        self.position += size
        return raw.decode(encoding, errors="surrogateescape")
