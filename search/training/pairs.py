"""From objects to (lost, found, label) pairs: matches, twins, hard negatives, stray reports, variants by rule."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TypeVar

from search.encoder import BiEncoder
from search.model_folder import BASE
from search.text import item_text
from search.training.augmentation import lot, marks, shorten
from search.training.corpus import Corpus, LostObject, Split, StrayReport, VagueReport, by_group, load_corpus
from search.training.mining import Near, Neighbourhood
from search.types import Vectors


class Origin(StrEnum):
    """Where a pair comes from."""

    MATCH = "match"
    """A report and a description of one object."""
    TWIN = "twin"
    """Of two objects of one group."""
    HARD = "hard"
    """The description is near the report by the bi-encoder, of another group."""
    FOREIGN = "foreign"
    """Of the hundred nearest descriptions, of another category; by chance where all of them are of the same."""
    RANDOM = "random"
    """Of another group, by chance."""
    UNLIKE = "unlike"
    """The description was written to contradict the report in one plain point."""
    STRAY = "stray"
    """The report is of no object of the corpus."""
    VAGUE = "vague"
    """The report fits several objects of the group, this one may be it: labelled one half."""
    SHORTENED = "shortened"
    """A match or a hard negative whose description lost some of its clauses by rule; for training only."""
    EMBELLISHED = "embellished"
    """A match or a hard negative whose report was given a mark of another thing by rule; for training only."""
    LOT = "lot"
    """The description is of several others of the group at once, put together by rule; for training only."""
    GIVEN = "given"
    """From a user's own file."""


@dataclass(frozen=True)
class Pair:
    """A lost report, a found description, and whether they are of one object."""

    lost: str
    found: str
    label: float
    """1 for one object, 0 for two; a user's own pairs may be in doubt."""
    origin: Origin
    group: str
    """The group of the report. Pairs of one group are no independent cases."""

    @property
    def is_match(self) -> bool:
        """Whether a decision is right to call it one: a label of 0.5 or more."""
        return self.label >= 0.5  # noqa: PLR2004


@dataclass(frozen=True)
class Mix:
    """How many pairs of each origin are made per lost report; the matches are always all made."""

    twin: int = 3
    hard: int = 3
    hard_below: float | None = None
    """A hard or foreign negative's similarity to the report is at most this share of its own description's: what is
    nearer may well be what the report tells of (positive-aware mining, Moreira et al. 2024, arXiv:2407.15831)."""
    foreign: int = 0
    random: int = 1
    stray: int = 1
    """Descriptions per stray report: the report's group where it has one, else the nearest."""
    unlike: int = 0
    """Of the descriptions that were written to contradict the report, as many as there are up to this."""
    shortened: int = 0
    """Matches, and as many hard negatives. A finder leaves out much that an owner tells: that is no contradiction."""
    embellished: int = 0
    """Likewise: an owner may tell a detail that no finder notes."""
    lot: int = 0
    """Descriptions of two to four others of the group at once, also for every vague report; half of the other reports
    lose some of their clauses. A short report is the likeliest to be taken for one of a part of a lot."""
    with_category: float = 0.0
    """Share of the descriptions that carry the item's category, as `item_text` puts it."""


MIXED_SEED = 42

MIXED = Mix()
"""2 matches to 7 others per report, about the original's 23 %; with the stray reports 21 %."""

HARD_POOL = 30
"""Hard negatives are drawn from this many nearest descriptions; the very nearest alone would repeat."""

VAGUE_LABEL = 0.5


def build_pairs(
    objects: Sequence[LostObject],
    strays: Sequence[StrayReport],
    encoder: BiEncoder,
    mix: Mix,
    seed: int,
    draws: int = 1,
    vague: Sequence[VagueReport] = (),
    others: Sequence[LostObject] = (),
) -> list[Pair]:
    """The pairs of some objects, shuffled; the same for the same arguments.

    Args:
        objects: The objects of one split.
        strays: The stray reports of the same split.
        encoder: Finds the hard negatives.
        mix: How many of each origin.
        seed: Of the draw.
        draws: How often every report gets its pairs: the same matches, other negatives.
        vague: Vague reports of the objects' groups; each is paired with a description of every object it may fit.
        others: Objects of other groups whose descriptions serve as hard and foreign negatives too.
    """
    rng = random.Random(seed)  # noqa: S311  no secret
    descriptions = [(found, entry) for entry in objects for found in entry.found]
    reports = [(lost, entry) for entry in objects for lost in entry.lost]
    group_of = by_group(objects)
    neighbourhood = Neighbourhood([*objects, *others], encoder)
    near_reports = [
        _not_too_near(neighbourhood, vector, entry, mix.hard_below)
        for vector, (_, entry) in zip(encoder.encode_queries([lost for lost, _ in reports]), reports, strict=True)
    ]
    near_strays = [neighbourhood.of(vector) for vector in encoder.encode_queries([stray.report for stray in strays])]
    all_marks = [mark for text, _ in (*descriptions, *reports) for mark in marks(text)]
    pairs: list[Pair] = []
    for _ in range(draws):
        for (lost, entry), near in zip(reports, near_reports, strict=True):
            twins = [other.found for other in group_of[entry.group] if other != entry]
            hard = [one.found for one in near if one.owner.group != entry.group][:HARD_POOL]
            foreign = [one.found for one in near if one.owner.category != entry.category]
            sample = _sample(descriptions, 50, rng)
            far = [found for found, owner in sample if owner.group != entry.group]
            foreign = foreign or [found for found, owner in sample if owner.category != entry.category]
            pairs += _pairs_of_report(lost, entry, Negatives(twins, hard, foreign, far), mix, all_marks, rng)
        for stray, near in zip(strays, near_strays, strict=True):
            siblings = [found for entry in group_of.get(stray.group or "", []) for found in entry.found]
            pool = siblings or [one.found for one in near[:HARD_POOL]]
            pairs += [
                Pair(stray.report, found, 0, Origin.STRAY, stray.group or stray.report)
                for found in _sample(pool, mix.stray, rng)
            ]
    for report in vague:
        group = group_of.get(report.group, [])
        pairs += [
            Pair(report.report, rng.choice(entry.found), VAGUE_LABEL, Origin.VAGUE, report.group) for entry in group
        ]
        pairs += [
            Pair(report.report, _lot([entry.found for entry in group], rng), 0, Origin.LOT, report.group)
            for _ in range(mix.lot if len(group) > 1 else 0)
        ]
    # All descriptions carry a category as often, those that contradict too, or its want would speak against a match.
    category_of = {text: entry.category for entry in (*objects, *others) for text in (*entry.found, *entry.unlike)}
    pairs = [
        replace(pair, found=item_text(pair.found, category_of.get(pair.found), None, None))
        if rng.random() < mix.with_category
        else pair
        for pair in pairs
    ]
    rng.shuffle(pairs)
    return pairs


@dataclass(frozen=True)
class Negatives:
    """Descriptions of other objects, from which the negatives of one report are drawn."""

    twins: Sequence[Sequence[str]]
    """Those of each object of the group."""
    hard: Sequence[str]
    foreign: Sequence[str]
    far: Sequence[str]


def _pairs_of_report(
    lost: str, entry: LostObject, negatives: Negatives, mix: Mix, all_marks: Sequence[str], rng: random.Random
) -> list[Pair]:
    pair = partial(Pair, group=entry.group)
    own_and_hard = ((entry.found, 1), (negatives.hard, 0))
    twins = [found for twin in negatives.twins for found in twin]
    pairs = [pair(lost, found, 1, Origin.MATCH) for found in entry.found]
    pairs += [pair(lost, found, 0, Origin.TWIN) for found in _sample(twins, mix.twin, rng)]
    pairs += [pair(lost, found, 0, Origin.HARD) for found in _sample(negatives.hard, mix.hard, rng)]
    pairs += [pair(lost, found, 0, Origin.FOREIGN) for found in _sample(negatives.foreign, mix.foreign, rng)]
    pairs += [pair(lost, found, 0, Origin.RANDOM) for found in negatives.far[: mix.random]]
    pairs += [pair(lost, found, 0, Origin.UNLIKE) for found in _sample(entry.unlike, mix.unlike, rng)]
    pairs += [
        pair(lost, shorten(found, rng), label, Origin.SHORTENED)
        for choices, label in own_and_hard
        for found in _sample(choices, mix.shortened, rng)
    ]
    pairs += [
        pair(f"{lost.rstrip(' .!?')} {rng.choice(all_marks)}.", rng.choice(choices), label, Origin.EMBELLISHED)
        for _ in range(mix.embellished if all_marks else 0)
        for choices, label in own_and_hard
        if choices
    ]
    pairs += [
        pair(shorten(lost, rng) if rng.random() < 0.5 else lost, _lot(negatives.twins, rng), 0, Origin.LOT)  # noqa: PLR2004
        for _ in range(mix.lot if len(negatives.twins) > 1 else 0)
    ]
    return pairs


def _lot(things: Sequence[Sequence[str]], rng: random.Random) -> str:
    """Of two to four of these things."""
    return lot([rng.choice(thing) for thing in _sample(things, rng.randint(2, 4), rng)], rng)


def mixed_pairs(corpus: Corpus, split: Split, device: str = "auto") -> list[Pair]:
    """The mixed pairs of a split, which thresholds are fitted on and rerankers judged by.

    Their hard negatives are always found by the same bi-encoder in float32, so that figures stay comparable.
    """
    objects, strays = corpus.of(split)
    return build_pairs(objects, strays, BiEncoder(BASE, device, precision="float32"), MIXED, seed=MIXED_SEED)


def validation_pairs(device: str = "auto") -> list[Pair]:
    """The mixed pairs of the shipped corpus' validation split.

    Raises:
        InputFileError: The corpus cannot be read.
    """
    return mixed_pairs(load_corpus(), Split.VALIDATION, device)


def validation_contradictions() -> list[Pair]:
    """A description that contradicts it for each report of the shipped corpus' validation split.

    Raises:
        InputFileError: The corpus cannot be read.
    """
    return [
        Pair(lost, entry.unlike[number % len(entry.unlike)], 0, Origin.UNLIKE, entry.group)
        for entry in load_corpus().objects[Split.VALIDATION]
        for number, lost in enumerate(entry.lost)
        if entry.unlike
    ]


def twin_pairs(objects: Sequence[LostObject]) -> list[Pair]:
    """Every report with every description of its group, the hardest of tests; about 20 % are matches."""
    group_of = by_group(objects)
    return [
        Pair(lost, found, int(other == entry), Origin.MATCH if other == entry else Origin.TWIN, entry.group)
        for entry in objects
        for other in group_of[entry.group]
        for lost in entry.lost
        for found in other.found
    ]


def contradicting_pairs(objects: Sequence[LostObject]) -> list[Pair]:
    """Every report with every description that was written to contradict it; none is a match."""
    return [
        Pair(lost, found, 0, Origin.UNLIKE, entry.group)
        for entry in objects
        for lost in entry.lost
        for found in entry.unlike
    ]


def _not_too_near(
    neighbourhood: Neighbourhood, report: Vectors, owner: LostObject, hard_below: float | None
) -> list[Near]:
    near = neighbourhood.of(report)
    if hard_below is None:
        return near
    most = hard_below * neighbourhood.similarity_to_own(report, owner)
    return [one for one in near if one.similarity <= most]


Choice = TypeVar("Choice")


def _sample(choices: Sequence[Choice], count: int, rng: random.Random) -> list[Choice]:
    """That many, or all where there are fewer."""
    return rng.sample(choices, min(count, len(choices)))
