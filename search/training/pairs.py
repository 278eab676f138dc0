"""From objects to (lost, found, label) pairs: positives, twins, hard negatives, edited twins."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import numpy as np

from search.encoder import BiEncoder
from search.text import item_text
from search.training.corpus import LostObject, StrayReport


class Origin(StrEnum):
    """Where a pair comes from."""

    MATCH = "match"
    """A report and a description of one object."""
    TWIN = "twin"
    """Of two objects of one group."""
    HARD = "hard"
    """The description is near the report by the bi-encoder, of another group."""
    RANDOM = "random"
    """Of another group, by chance."""
    STRAY = "stray"
    """The report is of no object of the corpus."""
    EDITED = "edited"
    """A match whose description had one detail exchanged by rule; for training only."""
    SHORTENED = "shortened"
    """A match or a hard negative whose description lost some of its clauses by rule; for training only."""
    EMBELLISHED = "embellished"
    """A match or a hard negative whose report was given a mark of another thing by rule; for training only."""


@dataclass(frozen=True)
class Pair:
    """A lost report, a found description, and whether they are of one object (1) or not (0)."""

    lost: str
    found: str
    label: int
    origin: Origin


@dataclass(frozen=True)
class Mix:
    """How many pairs of each origin are made per lost report; the matches are always all made."""

    twin: int = 3
    hard: int = 3
    random: int = 1
    stray: int = 1
    """Descriptions per stray report: the report's group where it has one, else the nearest."""
    edited: int = 0
    shortened: int = 0
    """Matches, and as many hard negatives. A finder leaves out much that an owner tells: that is no contradiction."""
    embellished: int = 0
    """Likewise: an owner may tell a detail that no finder notes."""
    with_category: float = 0.0
    """Share of the descriptions that carry the item's category, as `item_text` puts it."""


MIXED = Mix()
"""About 23 % positive, the original's share: 2 matches to 7 others per report."""

HARD_POOL = 30
"""Hard negatives are drawn from this many nearest descriptions; the very nearest alone would repeat."""


def build_pairs(
    objects: Sequence[LostObject], strays: Sequence[StrayReport], encoder: BiEncoder, mix: Mix, seed: int
) -> list[Pair]:
    """The pairs of some objects, shuffled; the same for the same arguments.

    Args:
        objects: The objects of one split.
        strays: The stray reports of the same split.
        encoder: Finds the hard negatives.
        mix: How many of each origin.
        seed: Of the draw.
    """
    rng = random.Random(seed)  # noqa: S311  no secret
    descriptions = [(found, entry) for entry in objects for found in entry.found]
    reports = [(lost, entry) for entry in objects for lost in entry.lost]
    nearest = _nearest(encoder, [lost for lost, _ in reports], [found for found, _ in descriptions])
    all_marks = [mark for text, _ in (*descriptions, *reports) for mark in marks(text)]
    pairs: list[Pair] = []
    for (lost, entry), row in zip(reports, nearest, strict=True):
        others = [candidate for candidate in objects if candidate.group == entry.group and candidate != entry]
        pool = [descriptions[index][0] for index in row if descriptions[index][1].group != entry.group][:HARD_POOL]
        far = [
            found for found, owner in rng.sample(descriptions, min(50, len(descriptions))) if owner.group != entry.group
        ]
        twins = [found for other in others for found in other.found]
        pairs += [Pair(lost, found, 1, Origin.MATCH) for found in entry.found]
        pairs += [Pair(lost, found, 0, Origin.TWIN) for found in rng.sample(twins, min(mix.twin, len(twins)))]
        pairs += [Pair(lost, found, 0, Origin.HARD) for found in rng.sample(pool, min(mix.hard, len(pool)))]
        pairs += [Pair(lost, found, 0, Origin.RANDOM) for found in far[: mix.random]]
        pairs += [
            Pair(lost, shorten(found, rng), label, Origin.SHORTENED)
            for choices, label in ((entry.found, 1), (pool, 0))
            for found in rng.sample(choices, min(mix.shortened, len(choices)))
        ]
        pairs += [
            Pair(f"{lost.rstrip(' .!?')} {rng.choice(all_marks)}.", rng.choice(choices), label, Origin.EMBELLISHED)
            for _ in range(mix.embellished if all_marks else 0)
            for choices, label in ((entry.found, 1), (pool, 0))
            if choices
        ]
        whole_and_short = [*entry.found, *(shorten(found, rng) for found in entry.found)]
        edits = [edited for found in whole_and_short for edited in edited_details(lost, found, rng)]
        pairs += [Pair(lost, found, 0, Origin.EDITED) for found in rng.sample(edits, min(mix.edited, len(edits)))]
    pairs += _stray_pairs(strays, descriptions, encoder, mix.stray, rng)
    category_of = {found: entry.category for found, entry in descriptions}
    pairs = [
        replace(pair, found=item_text(pair.found, category_of.get(pair.found), None, None))
        if rng.random() < mix.with_category
        else pair
        for pair in pairs
    ]
    rng.shuffle(pairs)
    return pairs


def twin_pairs(objects: Sequence[LostObject]) -> list[Pair]:
    """Every report with every description of its group, the hardest of tests; about 20 % are matches."""
    return [
        Pair(lost, found, int(other == entry), Origin.MATCH if other == entry else Origin.TWIN)
        for entry in objects
        for other in objects
        if other.group == entry.group
        for lost in entry.lost
        for found in other.found
    ]


def _stray_pairs(
    strays: Sequence[StrayReport],
    descriptions: Sequence[tuple[str, LostObject]],
    encoder: BiEncoder,
    per_report: int,
    rng: random.Random,
) -> list[Pair]:
    if not strays or not per_report:
        return []
    nearest = _nearest(encoder, [stray.report for stray in strays], [found for found, _ in descriptions])
    pairs = []
    for stray, row in zip(strays, nearest, strict=True):
        siblings = [found for found, entry in descriptions if entry.group == stray.group]
        pool = siblings or [descriptions[index][0] for index in row[:HARD_POOL]]
        pairs += [Pair(stray.report, found, 0, Origin.STRAY) for found in rng.sample(pool, min(per_report, len(pool)))]
    return pairs


def _nearest(encoder: BiEncoder, reports: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
    """Indices of the descriptions, the nearest first; shape (reports, up to 100)."""
    similarities = encoder.encode(reports) @ encoder.encode(descriptions).T
    count = min(100, len(descriptions))
    part = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(similarities, part, axis=1), axis=1, kind="stable")
    return np.take_along_axis(part, order, axis=1)


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
