"""The one text of an item that both models read, and its hash."""

import hashlib

from storage.models import Item

TEXT_FORM = "description, then category, colour and brand where it lacks them / 1"
"""Part of every model fingerprint: vectors and thresholds of another form are not compared."""


def item_text(description: str, category: str | None, colour: str | None, brand: str | None) -> str:
    """The description, with what the structured fields know beyond it.

    >>> item_text("Rucksack, front pocket torn.", "backpack", "black", "Eastpak")
    'Rucksack, front pocket torn. Backpack, black, Eastpak.'
    >>> item_text("A black Eastpak backpack", "backpack", "black", "Eastpak")
    'A black Eastpak backpack'
    """
    lowered = description.casefold()
    added = [value for value in (category, colour, brand) if value and value.casefold() not in lowered]
    if not added:
        return description
    sentence = ", ".join(added)
    end = "" if description.endswith((".", "!", "?")) else "."
    return f"{description}{end} {sentence[0].upper()}{sentence[1:]}."


def text_of(item: Item) -> str:
    """`item_text` of a stored item."""
    return item_text(item.description, item.category, item.colour, item.brand)


def text_hash(text: str) -> str:
    """SHA-256 of the UTF-8 text, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()
