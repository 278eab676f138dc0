"""Files of rows, CSV and JSON Lines, read row by row, a bad row apart from the good ones."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from search.errors import InputFileError
from search.line_reader import LineReader, LineTooLongError
from search.validation import reasons

RECORD_LIMIT = 32_768
"""Characters of one CSV row. A longer one is taken for a quotation mark that is not closed."""

LEAST_LIMIT = 512
"""Of a row after many that went on for longer and were none; with every good row it rises by as much."""

IGNORED_LIMIT = 100
"""Columns that are named as no field, at most."""

SUFFIXES = (".csv", ".jsonl", ".ndjson")
DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Reject:
    """A row that was not stored."""

    line: int
    """Where the row begins; the first line of the file is 1."""
    reason: str
    row: str
    """Its text as it stands in the file, bytes that are not UTF-8 as \\x.., cut to 4,000 characters."""


Row = TypeVar("Row", bound=BaseModel)


@dataclass
class RowFile(Generic[Row]):
    """A file of rows of one model, whose fields are the columns; those without a default must be there.

    Iterating yields a row or a `Reject` each, in the order of the file, and leaves in `ignored` the columns that are no
    field, and in `position` how many bytes have been read.
    """

    path: Path
    model: type[Row]
    ignored: set[str] = field(default_factory=set)
    position: int = 0
    size: int = field(init=False)
    """Bytes."""

    def __post_init__(self) -> None:
        """Check that there is such a file.

        Raises:
            InputFileError: There is none, or it is named by another kind.
        """
        if self.path.suffix.lower() not in SUFFIXES:
            raise InputFileError(f"{self.path} is named neither *.csv nor *.jsonl; rename it by what is in it")
        try:
            self.size = self.path.stat().st_size
        except OSError as error:
            raise InputFileError(f"{self.path} cannot be read: {error.strerror}") from error

    def __iter__(self) -> Iterator[Row | Reject]:
        """Read the file.

        Raises:
            InputFileError: It cannot be read, or is neither CSV with the needed columns nor JSON Lines.
        """
        reader = self._csv_rows if self.path.suffix.lower() == ".csv" else self._json_rows
        try:
            file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise InputFileError(f"{self.path} cannot be read: {error.strerror}") from error
        with file:
            lines = LineReader(file, self.path)
            for row in reader(lines):
                self.position = lines.position
                if isinstance(row, str):
                    yield Reject(lines.record_line, row, lines.record_text())
                else:
                    yield self._row(row, lines)
            self.position = lines.position

    def _row(self, row: dict[str, Any], lines: LineReader) -> Row | Reject:
        columns = self.model.model_fields
        unknown = {ascii(name)[1:-1] for name in row if name not in columns} - self.ignored
        self.ignored.update(sorted(unknown)[: IGNORED_LIMIT - len(self.ignored)])
        try:
            return self.model.model_validate({name: value for name, value in row.items() if name in columns})
        except ValidationError as error:
            return Reject(lines.record_line, reasons(error), lines.record_text())

    def _json_rows(self, lines: LineReader) -> Iterator[dict[str, Any] | str]:
        """The fields of each row, or why it has none."""
        while True:
            lines.begin_record()
            try:
                line = next(lines)
                if not line.strip():
                    continue
                # Numbers stay as they are written: a reference 007.50 is no float.
                row = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
            except StopIteration:
                return
            except (ValueError, RecursionError, LineTooLongError) as error:
                yield f"is not JSON: {error}"
                continue
            yield row if isinstance(row, dict) else "is not a JSON object"

    def _csv_rows(self, lines: LineReader) -> Iterator[dict[str, Any] | str]:
        """The fields of each row, or why it has none."""
        header, delimiter = self._header(lines)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        limit = RECORD_LIMIT
        while True:
            lines.begin_record(limit)
            try:
                values = next(reader)
            except StopIteration:
                return
            except (csv.Error, LineTooLongError) as error:
                # What follows the first line may be good rows that an open quotation mark has swallowed.
                # A file full of such would be read thousands of times.
                if lines.resume_after_first_line() > LEAST_LIMIT:
                    limit = max(LEAST_LIMIT, limit // 2)
                reader = csv.reader(lines, delimiter=delimiter, strict=True)
                yield f"is not CSV: {error}"
                continue
            limit = min(RECORD_LIMIT, limit + LEAST_LIMIT)
            if not values:
                continue
            if len(values) == len(header):
                yield {name: value for name, value in zip(header, values, strict=True) if name}
            else:
                yield f"has {len(values)} values for {len(header)} columns"

    def _header(self, lines: LineReader) -> tuple[list[str], str]:
        """The column names, "" for a column without one, and the delimiter that separates them."""
        lines.begin_record()
        try:
            line = next((line for line in lines if line.strip()), "")
            if line.lower().startswith("sep="):  # Excel's note to itself
                line = next(lines, "")
            headers = {delimiter: _names(line, delimiter) for delimiter in DELIMITERS}
        except (csv.Error, LineTooLongError) as error:
            raise InputFileError(f"{self.path} has no first line that names the columns: {error}") from error
        required = {name for name, field in self.model.model_fields.items() if field.is_required()}
        for delimiter, header in headers.items():
            if set(header) >= required:
                named = [name for name in header if name]
                if len(set(named)) < len(named):
                    raise InputFileError(f"{self.path} names a column twice: {line.strip()[:200]!a}")
                return header, delimiter
        header = max(headers.values(), key=len)
        raise InputFileError(
            f"{self.path} has no column {' and no column '.join(sorted(required - set(header)))}; its first line must "
            f"name the columns, it is {line.strip()[:100]!a}"
        )


def _names(line: str, delimiter: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter), [])]
