"""The rules for what may be stored of an item."""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from search.errors import InvalidItemError
from search.text import has_content, is_utf8
from search.validation import reasons
from storage.models import Item, Status

EARLIEST = date(1900, 1, 1)

DIRECTION_OVERRIDES = "\u202d\u202e"
"""They would show a text in another order than it is stored."""


LONGEST = 16_384
"""Characters of a field as it is given. The time of normalisation grows with the square of what can be combined."""


def clean(value: Any) -> Any:
    """Text in one Unicode form, without white space at the ends; "" where nothing can be seen.

    Raises:
        ValueError: It is too long, not UTF-8, or has characters that would garble a terminal or a file.
    """
    if not isinstance(value, str):
        return value
    if len(value) > LONGEST:
        raise ValueError(f"is longer than {LONGEST:,} characters")
    if not is_utf8(value):
        raise ValueError("is not UTF-8")
    value = unicodedata.normalize("NFC", value).strip()
    for character in value:
        if character in DIRECTION_OVERRIDES or (unicodedata.category(character) == "Cc" and character not in "\n\r\t"):
            raise ValueError(f"has the control character {character!a}")
    return value if has_content(value) else ""


def _clean_reference(value: Any) -> Any:
    cleaned = clean(value)
    if isinstance(cleaned, str) and not cleaned.isprintable():
        raise ValueError("must be one line of printable characters")
    return cleaned


def _none_if_blank(value: Any) -> Any:
    return None if value == "" else value


def parse_day(value: Any) -> date | None:
    """A day from YYYY-MM-DD alone: 03/04/2026 is another day on the other side of an ocean.

    Raises:
        ValueError: It has another form, or there is no such day.
    """
    if value is None or isinstance(value, date):
        return value
    text = str(value).strip()
    if not text:
        return None
    try:
        # fromisoformat alone would take 20260102 and 2026-W01-5 too
        return date.fromisoformat(text if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) else "")
    except ValueError:
        raise ValueError(f"{text[:40]!a} is not a date in the form YYYY-MM-DD") from None


def _plausible_day(value: Any) -> date | None:
    day = parse_day(value)
    if day is not None and not EARLIEST <= day <= datetime.now(UTC).date() + timedelta(days=1):
        raise ValueError(f"{day} is before {EARLIEST} or in the future")
    return day


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _not_none(value: Any) -> Any:
    if value is None:
        raise ValueError("must not be empty")
    return value


# pydantic runs the last BeforeValidator first
Description = Annotated[str, Field(min_length=1, max_length=4000), BeforeValidator(clean), BeforeValidator(_not_none)]
Reference = Annotated[
    str, Field(min_length=1, max_length=64), BeforeValidator(_clean_reference), BeforeValidator(_not_none)
]
OptionalReference = Annotated[
    str | None, Field(max_length=64), BeforeValidator(_none_if_blank), BeforeValidator(_clean_reference)
]
Short = Annotated[str | None, Field(max_length=100), BeforeValidator(_none_if_blank), BeforeValidator(clean)]
Place = Annotated[str | None, Field(max_length=200), BeforeValidator(_none_if_blank), BeforeValidator(clean)]
FoundOn = Annotated[date | None, BeforeValidator(_plausible_day)]
StatusField = Annotated[Status, BeforeValidator(_lower)]


class ItemUpdate(BaseModel):
    """New values for some fields of an item; a field that was not given keeps its value."""

    model_config = ConfigDict(extra="ignore")

    description: Description = ""
    category: Short = None
    colour: Short = None
    brand: Short = None
    office: Short = None
    place: Place = None
    found_on: FoundOn = None
    status: StatusField = Status.HELD

    def given(self) -> dict[str, Any]:
        """The fields that were given, by name."""
        return self.model_dump(exclude_unset=True)


class NewItem(ItemUpdate):
    """An item as it is handed in; without a reference the office gives it one."""

    description: Description
    reference: OptionalReference = None


class ImportedItem(NewItem):
    """A row of an import; its reference says whether it is a new item or an update."""

    reference: Reference

    @model_validator(mode="before")
    @classmethod
    def _blank_status_is_none(cls, values: dict[str, Any]) -> dict[str, Any]:
        status = values.get("status")
        is_blank = status is None or (isinstance(status, str) and not status.strip())
        return {name: value for name, value in values.items() if name != "status" or not is_blank}


Fields = TypeVar("Fields", bound=ItemUpdate)


def parse(model: type[Fields], values: dict[str, Any]) -> Fields:
    """Checked fields.

    Raises:
        InvalidItemError: A field breaks a rule; the message names each such field, the rule and the value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidItemError(reasons(error)) from None


def item_fields(item: Item) -> dict[str, Any]:
    """The fields of a stored item, by name."""
    return {column.key: getattr(item, column.key) for column in Item.__table__.columns}
