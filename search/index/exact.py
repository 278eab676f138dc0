"""Exact nearest neighbours by brute force, for vectors that no index holds."""

from collections.abc import Iterable

import numpy as np

from search.index.live import NO_ID
from search.types import Ids, Vectors


def nearest(queries: Vectors, parts: Iterable[tuple[Ids, Vectors]], k: int) -> tuple[Vectors, Ids]:
    """The k nearest neighbours of each query among vectors that come in parts; memory stays that of one part.

    Args:
        queries: Shape (q, dim), float32, unit rows.
        parts: ids, shape (n,), int64, and vectors, shape (n, dim), float32, unit rows.
        k: At least 1.

    Returns:
        As `LiveIndex.search`: similarities and ids, shape (q, k), padded with -inf and -1.
    """
    similarities = np.full((len(queries), k), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), k), NO_ID, dtype=np.int64)
    for part_ids, vectors in parts:
        similarities = np.hstack([similarities, queries @ vectors.T])
        ids = np.hstack([ids, np.broadcast_to(part_ids, (len(queries), len(part_ids)))])
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        similarities = np.take_along_axis(similarities, best, axis=1)
        ids = np.take_along_axis(ids, best, axis=1)
    return similarities, ids
