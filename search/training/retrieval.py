"""How well a bi-encoder retrieves alone, among as many items as a large office has."""

from collections.abc import Sequence

import numpy as np

from search.encoder import BiEncoder
from search.index.exact import nearest
from search.training.corpus import LostObject, Split, load_corpus
from search.training.inventory import GROUPS, inventory_texts
from search.training.searches import Inventory, Queries, Section, ranking_figures, ranks
from search.types import Advance

ITEMS = 20_000

DEPTHS = (1, 10, 100)

SEED = 11


def retrieval(encoder: BiEncoder, objects: Sequence[LostObject], advance: Advance | None = None) -> Section:
    """Recall@1, @10, @100 and MRR (of the first 100) of the reports of some objects among 20,000 items.

    One description of each object is in the inventory; the other items are put together from the facts of the shipped
    corpus' training objects.

    Args:
        encoder: Encodes reports and items.
        objects: Of one split.
        advance: Called with the number of items encoded since the last call.
    """
    own = Inventory.of(objects)
    queries = Queries.of_objects(own)
    made = inventory_texts(load_corpus().training_groups(GROUPS).objects[Split.TRAIN], ITEMS - len(own.texts), SEED)
    vectors = encoder.encode([*own.texts, *made], advance)
    _, found = nearest(encoder.encode_queries(queries.texts), [(np.arange(len(vectors)), vectors)], max(DEPTHS))
    return ranking_figures(ranks(found == queries.own[:, None]), queries.groups, DEPTHS)
