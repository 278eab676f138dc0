"""Vectors to an index fit for their number, and how good it is."""

import math
from dataclasses import dataclass, replace

import faiss
import numpy as np

from search.index.base import ROUNDING, BaseIndex, VectorSource
from search.index.exact import merge, nearest
from search.types import Advance, Ids, Vectors

EXACT_UP_TO = 100_000 * 384
"""Values, the vectors times their dimension, up to which all are compared: some 10 ms on one core."""

VECTORS_PER_CENTROID = 40
"""For the training of the lists; FAISS warns below 39."""

DEPTHS = (10, 100)
"""Recall is measured among so many neighbours. Few are the harder to find where lists are small: if those that a search
reads hold fewer than it is asked for, it reads all."""

SAMPLED = 200
"""Vectors that are looked for by themselves."""

WANTED_RECALL = 0.99
"""The share of the true nearest that an index has to find."""


@dataclass(frozen=True)
class Measured:
    """An index with its figures, taken against the exact vectors."""

    index: BaseIndex
    """With as many probes as it takes, and its largest error."""
    recall: float
    """Of the true 10 and of the true 100 nearest of held-out queries, the share that it finds, the lesser one."""
    finds_itself: float
    """The share of sampled vectors that find themselves, or one that is alike."""


def build(source: VectorSource, dim: int, advance: Advance) -> faiss.Index:
    """An index of all vectors of the source, which is read in parts.

    Exact while that is fast; beyond, an inverted file of one byte per dimension: a quarter of the memory, and only
    some of its lists are read by a search.

    Args:
        source: The vectors.
        dim: Their dimension.
        advance: Called with the number of vectors added since the last call.
    """
    ids = source.ids()
    is_exact = len(ids) * dim <= EXACT_UP_TO
    index = faiss.IndexIDMap(faiss.IndexFlatIP(dim)) if is_exact else _trained(source, ids, dim)
    for part_ids, vectors in source.parts():
        index.add_with_ids(np.ascontiguousarray(vectors), part_ids)
        advance(len(part_ids))
    return index


def measure(index: faiss.Index, source: VectorSource, queries: Vectors, advance: Advance) -> Measured:
    """Read back every vector, and find the number of lists to read.

    Args:
        index: As `build` returns it, or read from a file.
        source: The vectors that should be in it.
        queries: Shape (q, dim), float32, unit rows: held out, none is a vector of the source.
        advance: Called with the number of vectors compared since the last call.
    """
    base = BaseIndex(index, probes=0, largest_error=0.0)
    largest_error = 0.0
    true = nearest(queries, [], max(DEPTHS))
    for ids, vectors in source.parts():
        errors = np.linalg.norm(base.decoded(ids) - vectors, axis=1)
        largest_error = max(largest_error, float(errors.max()))
        true = merge(true, nearest(queries, [(ids, vectors)], max(DEPTHS)), max(DEPTHS))
        advance(len(ids))
    base = replace(base, largest_error=largest_error)
    recall = 0.0
    while recall < WANTED_RECALL and base.probes < base.lists:
        base = replace(base, probes=min(base.lists, 1 + base.probes * 5 // 4))
        recall = min(_recall(base, source, queries, true[0][:, :k]) for k in DEPTHS)
    return Measured(base, recall, _finds_itself(base, source))


def _trained(source: VectorSource, ids: Ids, dim: int) -> faiss.Index:
    """An inverted file with about 4 √n lists, a power of two, none of few vectors.

    The lists come from a random sample. What a byte means comes from all vectors: a value out of its range would be cut
    off, and one large error makes every exact answer take more candidates.
    """
    enough = max(1, len(ids) // VECTORS_PER_CENTROID)
    lists = 2 ** min(round(math.log2(4 * math.sqrt(len(ids)))), math.floor(math.log2(enough)))
    sample = np.random.default_rng(0).choice(ids, min(len(ids), VECTORS_PER_CENTROID * lists), replace=False)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    index.train(source.rows(np.sort(sample)))
    lowest, highest = np.full(dim, np.inf, np.float32), np.full(dim, -np.inf, np.float32)
    for _, vectors in source.parts():
        lowest, highest = np.minimum(lowest, vectors.min(axis=0)), np.maximum(highest, vectors.max(axis=0))
    index.sq.train(np.stack([lowest, highest]))
    return index


def _recall(index: BaseIndex, source: VectorSource, queries: Vectors, true: Vectors) -> float:
    """The share of the true k nearest, shape (q, k), that are found; one as near as the last of them counts too."""
    found, _ = index.search(queries, true.shape[1], source)
    last = true.min(axis=1, where=np.isfinite(true), initial=np.inf)
    return float((found >= last[:, None] - ROUNDING).sum() / np.isfinite(true).sum()) if len(index) else 1.0


def _finds_itself(index: BaseIndex, source: VectorSource) -> float:
    ids = np.random.default_rng(1).choice(index.ids, min(len(index), SAMPLED), replace=False)
    found, _ = index.search(source.rows(ids), min(DEPTHS), source)
    return float((found[:, 0] >= 1 - ROUNDING).mean()) if len(ids) else 1.0
