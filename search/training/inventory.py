"""Inventories of any size, put together from the facts of the corpus: for what depends on how much is stored."""

import random
import re
import string
from collections import defaultdict
from collections.abc import Iterator, Sequence

from search.training.corpus import LostObject

GROUPS = string.ascii_lowercase
"""Of the corpus, from whose training objects inventories are made: the same while the corpus grows, so that figures
stay comparable; see `Corpus.training_groups`."""

FACTS = (3, 8)
"""Details of an item, at least and at most."""

OWN_FACTS = 0.6
"""Share of the details that are of the object itself; the others are of things of its category."""


def inventory_texts(objects: Sequence[LostObject], count: int, seed: int) -> Iterator[str]:
    """Descriptions of items like those of the corpus, no two alike.

    Each is of a kind of thing, with some details of one object of that kind and some of others of its category: so
    many are near twins of one another, and of the objects.

    Args:
        objects: Whose facts are used.
        count: How many.
        seed: The same gives the same texts.

    Example:
        >>> from search.training.corpus import Split, load_corpus
        >>> objects = load_corpus().training_groups(GROUPS).objects[Split.TRAIN]
        >>> next(inventory_texts(objects, 1, seed=0))[:50]
        'Football boots, moulded studs, no foldover tongue,'
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    facts_of = {entry.object: _facts(entry) for entry in objects}
    by_category: dict[str, list[str]] = defaultdict(list)
    for entry in objects:
        by_category[entry.category] += facts_of[entry.object]
    seen: set[str] = set()
    while len(seen) < count:
        entry = chance.choice(objects)
        own, others = facts_of[entry.object], by_category[entry.category]
        details = [chance.choice(own if chance.random() < OWN_FACTS else others) for _ in range(chance.randint(*FACTS))]
        text = f"{entry.kind[:1].upper()}{entry.kind[1:]}, {', '.join(dict.fromkeys(details))}."
        if text not in seen:
            seen.add(text)
            yield text


def _facts(entry: LostObject) -> list[str]:
    return [fact for part in re.split(r"[,;]", entry.facts) if (fact := part.strip())]
