"""JSON Lines of queries and of pairs: what `search --queries` and `score` read."""

import json
import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from search.errors import InputFileError, QueryError
from search.line_reader import BYTE_ORDER_MARKS
from search.text import clean_query

TEXT_LIMIT = 1 << 20
"""Characters. The models read a small part of this."""


def _as_query(text: str) -> str:
    try:
        return clean_query(text)
    except QueryError as error:
        raise ValueError(str(error)) from None


class QueryRecord(BaseModel):
    """One query of a file."""

    query_id: StrictStr | StrictInt
    text: Annotated[str, Field(max_length=TEXT_LIMIT), AfterValidator(_as_query)]


class PairRecord(BaseModel):
    """One pair to be scored; other keys of the line are kept."""

    model_config = ConfigDict(extra="allow")

    lost: str = Field(min_length=1, max_length=TEXT_LIMIT)
    found: str = Field(min_length=1, max_length=TEXT_LIMIT)


Record = TypeVar("Record", bound=BaseModel)


def read_records(model: type[Record], path: Path) -> list[Record]:
    """Every record of a file, blank lines left out; `-` is standard input.

    Raises:
        InputFileError: The file cannot be read, or a line is no such record; the message names the line.
    """
    try:
        content = _standard_input() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}") from error
    if content[:2] in BYTE_ORDER_MARKS:
        raise InputFileError(f"{path} is {BYTE_ORDER_MARKS[content[:2]]}; save it as UTF-8")
    records = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = model.model_validate_json(line)
            json.dumps(record.model_dump(), allow_nan=False)
            records.append(record)
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{first['loc'][0]}: " if first["loc"] else ""
            keys = ", ".join(f'"{name}"' for name in model.model_fields)
            raise InputFileError(
                f"{path}, line {number}: {where}{first['msg']}; each line must be a JSON object with {keys}"
            ) from None
        except ValueError:
            raise InputFileError(f"{path}, line {number}: a number is not finite, no JSON could hold it") from None
    return records


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise InputFileError("standard input is closed; name a file")
    return sys.stdin.buffer.read()
