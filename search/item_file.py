"""Files of items: CSV and JSON Lines, read row by row, a bad row apart from the good ones."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from search.errors import InputFileError, InvalidItemError
from search.item_input import ImportedItem, parse

LINE_LIMIT = 1 << 20
"""Bytes. No item is as long; a longer line is cut and its row rejected."""

COLUMNS = frozenset(ImportedItem.model_fields)
REQUIRED = frozenset({"reference", "description"})


@dataclass(frozen=True)
class Reject:
    """A row that was not stored, why, and the row itself, to be mended and imported again."""

    line: int
    """Where the row begins; the first line of the file is 1."""
    reason: str
    row: Any


@dataclass
class ItemFile:
    """A file of items.

    Iterating yields a `ImportedItem` or a `Reject` per row, in the order of the file, and leaves in `ignored` the
    columns that are no field of an item, and in `position` how many bytes have been read.
    """

    path: Path
    ignored: set[str] = field(default_factory=set)
    position: int = 0

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return self.path.stat().st_size

    def __iter__(self) -> Iterator[ImportedItem | Reject]:
        """Read the file.

        Raises:
            InputFileError: It cannot be read, or is neither CSV with the needed columns nor JSON Lines.
        """
        readers = {".csv": self._csv_rows, ".jsonl": self._json_rows, ".ndjson": self._json_rows}
        reader = readers.get(self.path.suffix.lower())
        if reader is None:
            raise InputFileError(f"{self.path} is named neither *.csv nor *.jsonl; rename it by what is in it")
        try:
            with self.path.open("rb") as file:
                for line, row in reader(file):
                    yield row if isinstance(row, Reject) else self._item(line, row)
        except OSError as error:
            raise InputFileError(f"{self.path} cannot be read: {error.strerror}") from error

    def _item(self, line: int, row: dict[str, Any]) -> ImportedItem | Reject:
        self.ignored.update(str(name) for name in row if name not in COLUMNS)
        try:
            return parse(ImportedItem, row)
        except InvalidItemError as error:
            return Reject(line, str(error), row)

    def _json_rows(self, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | Reject]]:
        for number, line in enumerate(self._lines(file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, Reject(number, f"is not JSON: {error}", _printable(line))
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                yield number, Reject(number, "is not a JSON object", row)

    def _csv_rows(self, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | Reject]]:
        lines = self._lines(file)
        header_line = next(lines, "")
        delimiter = max(",;\t", key=header_line.count)
        header = [name.strip().lower() for name in next(csv.reader([header_line], delimiter=delimiter), [])]
        if missing := REQUIRED - set(header):
            raise InputFileError(
                f"{self.path} has no column {' and no column '.join(sorted(missing))}; its first line must name "
                f"the columns, it is {header_line.strip()[:100]!r}"
            )
        if len(set(header)) < len(header):
            raise InputFileError(f"{self.path} names a column twice: {header_line.strip()[:200]!r}")
        reader = csv.reader(lines, delimiter=delimiter)
        while True:
            line = reader.line_num + 2
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Reject(line, f"is not CSV: {error}; look for a quotation mark that is not closed", None)
                continue
            if not values:
                continue
            row: dict[str, Any] = dict(zip(header, values, strict=False))
            if len(values) != len(header):
                reason = f"has {len(values)} values for {len(header)} columns"
                yield line, Reject(line, reason, [_printable(value) for value in values])
                continue
            if not row.get("status", "").strip():
                row.pop("status", None)
            yield line, row

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        """The lines as text; bytes that are not UTF-8 stay visible as surrogates, for their row to be rejected."""
        if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):  # type: ignore[attr-defined]
            raise InputFileError(f"{self.path} is UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")
        first = True
        while raw := file.readline(LINE_LIMIT):
            whole = raw
            while not whole.endswith(b"\n") and (more := file.readline(LINE_LIMIT)):
                whole = more  # the rest of a line over the limit is passed over
            self.position = file.tell()
            text = raw.decode("utf-8-sig" if first else "utf-8", errors="surrogateescape")
            first = False
            # Without quotes: one that is never closed would swallow the rows that follow.
            yield text if whole is raw else text.replace('"', " ") + "\n"


@contextmanager
def rejects_writer(path: Path) -> Iterator[Callable[[Reject], None]]:
    """Write rejects as JSON Lines; the file appears complete at the end of the block, or not at all.

    Without any reject the file that an earlier import left is removed.

    Raises:
        InputFileError: The file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:

            def write(reject: Reject) -> None:
                file.write(json.dumps(asdict(reject)) + "\n")

            yield write
        if partial.stat().st_size:
            partial.replace(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputFileError(f"{path} cannot be written: {error.strerror}; name another file with --rejects") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _printable(text: str) -> str:
    return text.strip("\r\n")[:4000]
