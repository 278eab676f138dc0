"""Variants of a text made by rule, for training only."""

import random
import re


def shorten(found: str, rng: random.Random) -> str:
    """The first clause and each of the others by an even chance, in their order.

    >>> shorten("Rucksack, black, Eastpak, torn. Found on a bench.", random.Random(3))
    'Rucksack, black, torn'
    """
    first, *others = _CLAUSE_END.split(found.strip())
    kept = [first, *(clause for clause in others if rng.random() < 0.5)]  # noqa: PLR2004
    return ", ".join(clause.strip() for clause in kept if clause.strip()).rstrip(".")


def marks(text: str) -> list[str]:
    """What a text says that its thing is with.

    >>> marks("A bottle with a small hand logo, with ice; found with care")
    ['with a small hand logo']
    """
    return [match.group().strip() for match in _MARK.finditer(text)]


_MARK = re.compile(r"\bwith (?:a|an|one|two|three|some)\b[^,.;]+", re.IGNORECASE)

_CLAUSE_END = re.compile(r"[,;]\s|\.\s+(?=[A-Z0-9])")
