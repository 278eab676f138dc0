"""What a new index has to show before it is published."""

import numpy as np

from search.encoder import BiEncoder
from search.index.build import WANTED_RECALL, Measured
from search.training.corpus import Split, load_corpus
from search.types import Vectors
from storage import items
from storage.vectors import StoredVectors

QUERIES = 200

WANTED_SELF_RETRIEVAL = 0.99

LARGEST_ERROR = 0.1
"""Between a vector and what the index holds of it; one byte per dimension makes about 0.01 of it."""


def held_out_queries(encoder: BiEncoder, source: StoredVectors) -> Vectors:
    """Queries by which the recall of an index is measured; shape (n, dim).

    Half are lost reports, of the corpus' validation split. They say little of an office with another language, so half
    are the first words of its own items: harder than the reports, on our corpus.
    """
    reports = [report for entry in load_corpus().objects[Split.VALIDATION] for report in entry.lost]
    reports = reports[:: 2 * len(reports) // QUERIES][: QUERIES // 2]
    ids = source.ids()
    sample = np.random.default_rng(2).choice(ids, min(len(ids), QUERIES // 2), replace=False).tolist()
    words = [item.description.split() for item in items.by_ids(source.session, sample).values()]
    return encoder.encode_queries([*reports, *(" ".join(own[: (len(own) + 1) // 2]) for own in words)])


def objection(measured: Measured, count: int) -> str | None:
    """Why an index is not good enough to be published; None where it is.

    Args:
        measured: The index as the disk holds it, with its figures.
        count: How many vectors the database says there are.
    """
    index = measured.index
    if len(index) != count:
        return f"it holds {len(index)} vectors, the database {count}"
    if index.largest_error > LARGEST_ERROR:
        return f"a vector in it is {index.largest_error:.3f} from the stored one"
    if measured.recall < WANTED_RECALL:
        return f"its recall is {measured.recall:.4f}, below {WANTED_RECALL}"
    if measured.finds_itself < WANTED_SELF_RETRIEVAL:
        return f"only {measured.finds_itself:.3f} of the sampled vectors find themselves"
    return None
