"""Variants of a text made by rule, for training only."""

import random
import re
from functools import partial


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

# One detail exchanged makes of a match a near twin. Only words that the report names too: else it would still match.
_ALTERNATIVES: tuple[tuple[str, ...], ...] = (
    ("black", "white", "red", "blue", "green", "yellow", "brown", "grey", "pink", "purple", "orange", "beige"),
    ("navy", "maroon", "turquoise", "olive", "cream", "burgundy", "teal", "mustard", "lilac", "khaki"),
    ("silver", "gold", "copper", "rose gold"),
    ("leather", "canvas", "plastic", "metal", "wooden", "wool", "suede", "nylon", "cotton", "velvet"),
    ("left", "right"),
    ("small", "large"),
    ("round", "square", "oval"),
    ("striped", "checked", "floral", "spotted", "plain"),
    ("Nike", "Adidas", "Puma", "Reebok", "Asics", "New Balance"),
    ("Samsung", "Apple", "Sony", "Huawei", "Xiaomi", "Nokia", "Google"),
    ("one", "two", "three", "four", "five", "six"),
)
_GROUP_OF = {word.casefold(): group for group in _ALTERNATIVES for word in group}
_WORD = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _GROUP_OF), key=len, reverse=True)) + r")\b", re.IGNORECASE)


def edited_details(lost: str, found: str, rng: random.Random) -> list[str]:
    """`found` with one detail exchanged that `lost` names too, once per such detail.

    >>> edited_details("my left glove", "A glove, left hand.", random.Random(0))
    ['A glove, right hand.']
    """
    named = {match.group().casefold() for match in _WORD.finditer(lost)}
    edits = []
    for word in sorted({match.group().casefold() for match in _WORD.finditer(found)} & named):
        others = [choice for choice in _GROUP_OF[word] if choice.casefold() not in named]
        if others:
            put = partial(_like, word=rng.choice(others))
            edits.append(re.sub(rf"\b{re.escape(word)}\b", put, found, flags=re.IGNORECASE))
    return edits


def _like(match: re.Match[str], word: str) -> str:
    """`word` in place of the match, with a capital if that has one."""
    return word[0].upper() + word[1:] if match.group()[0].isupper() else word
