"""Text rules: the one text of an item that both models read, its hash, and what a query may be."""

import hashlib
import re
import unicodedata
from typing import Protocol

from search.errors import QueryError

TEXT_FORM = "description, then category, colour and brand where it lacks them / 1"
"""Part of every model fingerprint: vectors and thresholds of another form are not compared."""


LONGEST_QUERY = 65_536
"""Characters. The time of normalisation grows with the square of what can be combined."""


class Described(Protocol):
    """What the models read of an item."""

    @property
    def description(self) -> str:
        """What was found, in words."""

    @property
    def category(self) -> str | None:
        """Kind of thing."""

    @property
    def colour(self) -> str | None:
        """Main colour."""

    @property
    def brand(self) -> str | None:
        """Brand, if it can be seen."""


def text_of(item: Described) -> str:
    """`item_text` of an item."""
    return item_text(item.description, item.category, item.colour, item.brand)


def item_text(description: str, category: str | None, colour: str | None, brand: str | None) -> str:
    """The description, with what the structured fields know beyond it.

    >>> item_text("Rucksack, front pocket torn.", "backpack", "black", "Eastpak")
    'Rucksack, front pocket torn. Backpack, black, Eastpak.'
    >>> item_text("A black Eastpak backpack", "backpack", "black", "Eastpak")
    'A black Eastpak backpack'
    >>> item_text("A scarred leather bag", None, "red", None)
    'A scarred leather bag. Red.'
    """
    added = [value for value in (category, colour, brand) if value and not _names(description, value)]
    if not added:
        return description
    sentence = ", ".join(added)
    end = "" if description.endswith((".", "!", "?")) else "."
    return f"{description}{end} {sentence[0].upper()}{sentence[1:]}."


def text_hash(text: str) -> str:
    """SHA-256 of the UTF-8 text, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def has_content(text: str) -> bool:
    """Whether anything in the text can be seen."""
    return any(character.isprintable() and not character.isspace() for character in text)


def is_utf8(text: str) -> bool:
    """False for what came from bytes that are not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def clean_query(query: str) -> str:
    """A query in one Unicode form, control characters as spaces, without white space at its ends.

    It is cut where it is far longer than any model reads.

    Raises:
        QueryError: Nothing to be seen is left, or it is not UTF-8.
    """
    if not is_utf8(query):
        raise QueryError(f"the query is not UTF-8 text: {query[:40]!a}; type it again")
    read = query[:LONGEST_QUERY]
    spaced = "".join(" " if unicodedata.category(character) == "Cc" else character for character in read)
    cleaned = unicodedata.normalize("NFC", spaced).strip()
    if not has_content(cleaned):
        raise QueryError('the query is empty; describe what was lost, e.g. `lostfound search "black umbrella"`')
    return cleaned


def _names(description: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", description, re.IGNORECASE) is not None
