"""Variants of a text made by rule, for training only."""

import random
import re
from collections.abc import Sequence


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


def lot(descriptions: Sequence[str], rng: random.Random) -> str:
    """Two to four things as one item, as a clerk notes what was handed in together; half of the lots in brief.

    >>> lot(["A black umbrella, torn.", "Two caps, red"], random.Random(7))
    '2 things: a black umbrella; two caps.'
    """
    if rng.random() < 0.5:  # noqa: PLR2004
        descriptions = [_CLAUSE_END.split(description.strip())[0] for description in descriptions]
        descriptions = [_ARTICLE.sub(lambda match: match.group().lower(), brief) for brief in descriptions]
    opening = rng.choice(_LOT_OPENINGS).format(rng.choice(_COUNT_WORDS[len(descriptions)]))
    link = rng.choice(_LOT_LINKS)
    text = opening + link.join(description.strip().rstrip(".") for description in descriptions) + "."
    return text[0].upper() + text[1:]


_LOT_OPENINGS = (
    "",
    "",
    "{} things: ",
    "{} items in one bag: ",
    "The image shows {} things, including ",
    "Lot of {}: ",
    "{} handed in together: ",
    "There are {}: ",
)

_LOT_LINKS = ("; ", ", and ", ". ", ", ")

_ARTICLE = re.compile(r"^(?:An?|The|One|Two|Some)\b")

_COUNT_WORDS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}

_MARK = re.compile(r"\bwith (?:a|an|one|two|three|some)\b[^,.;]+", re.IGNORECASE)

_CLAUSE_END = re.compile(r"[,;]\s|\.\s+(?=[A-Z0-9])")
