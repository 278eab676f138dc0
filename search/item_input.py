"""The rules for what may be stored of an item."""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from search.errors import InvalidItemError
from storage.models import Item, Status

EARLIEST = date(1900, 1, 1)


def _clean(value: Any) -> Any:
    """Text in one Unicode form, without white space at the ends and without what would garble a terminal or a file."""
    if not isinstance(value, str):
        return value
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("is not UTF-8")
    value = unicodedata.normalize("NFC", value).strip()
    for character in value:
        if unicodedata.category(character) == "Cc" and character not in "\n\r\t":
            raise ValueError(f"has the control character {character!r}")
    return value


def _blank_to_none(value: Any) -> Any:
    return _clean(value) or None


def _plain_date(value: Any) -> Any:
    """Only YYYY-MM-DD: 03/04/2026 is another day on the other side of an ocean."""
    if value is None or isinstance(value, date):
        return value
    text = str(value).strip()
    if not text:
        return None
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(f"{text[:40]!r} is not a date in the form YYYY-MM-DD")
    found_on = date.fromisoformat(text)
    if not EARLIEST <= found_on <= datetime.now(UTC).date() + timedelta(days=1):
        raise ValueError(f"{text} is before {EARLIEST} or in the future")
    return found_on


def _not_none(value: Any) -> Any:
    if value is None:
        raise ValueError("must not be empty")
    return value


Description = Annotated[str, Field(min_length=1, max_length=4000), BeforeValidator(_clean), BeforeValidator(_not_none)]
Reference = Annotated[str, Field(min_length=1, max_length=64), BeforeValidator(_clean), BeforeValidator(_not_none)]
OptionalReference = Annotated[str | None, Field(max_length=64), BeforeValidator(_blank_to_none)]
Short = Annotated[str | None, Field(max_length=100), BeforeValidator(_blank_to_none)]
Place = Annotated[str | None, Field(max_length=200), BeforeValidator(_blank_to_none)]
FoundOn = Annotated[date | None, BeforeValidator(_plain_date)]


class ItemUpdate(BaseModel):
    """New values for some fields of an item; a field that was not given keeps its value."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    description: Description = ""
    category: Short = None
    colour: Short = None
    brand: Short = None
    office: Short = None
    place: Place = None
    found_on: FoundOn = None
    status: Status = Status.HELD

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


Fields = TypeVar("Fields", bound=ItemUpdate)


def parse(model: type[Fields], values: dict[str, Any]) -> Fields:
    """Checked fields.

    Raises:
        InvalidItemError: A field breaks a rule; the message names each such field, the rule and the value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidItemError(_reasons(error)) from None


def item_fields(item: Item) -> dict[str, Any]:
    """The fields of a stored item, by name."""
    return {column.key: getattr(item, column.key) for column in Item.__table__.columns}


def _reasons(error: ValidationError) -> str:
    return "; ".join(f"{details['loc'][0]}: {_reason(details)}" for details in error.errors())


def _reason(details: Any) -> str:
    match details["type"]:
        case "missing":
            return "is missing"
        case "string_too_short":
            return "is empty"
        case "string_too_long":
            return f"is longer than {details['ctx']['max_length']} characters"
        case "value_error":
            return str(details["ctx"]["error"])
        case _:
            return f"{repr(details['input'])[:40]}: {details['msg'][0].lower()}{details['msg'][1:]}"
