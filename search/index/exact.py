"""Exact nearest neighbours by brute force, for vectors that no file on disk holds."""

from collections.abc import Iterable

import numpy as np

from search.types import Ids, Vectors

NO_ID = -1
"""Fills the rows of an answer that has fewer than k neighbours."""


def nearest(queries: Vectors, parts: Iterable[tuple[Ids, Vectors]], k: int) -> tuple[Vectors, Ids]:
    """The k nearest neighbours of each query among vectors that come in parts; memory stays that of one part.

    Args:
        queries: Shape (q, dim), float32, unit rows.
        parts: ids, shape (n,), int64, and vectors, shape (n, dim), float32, unit rows.
        k: At least 1.

    Returns:
        Inner products, the highest first, and ids, both of shape (q, k); where there are fewer than k neighbours the
        rest is -inf and -1.

    Example:
        >>> nearest(np.array([[0.6, 0.8]], "f4"), [(np.array([7, 9]), np.array([[1, 0], [0, 1]], "f4"))], k=3)
        (array([[ 0.8,  0.6, -inf]], dtype=float32), array([[ 9,  7, -1]]))
    """
    best = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), NO_ID, np.int64)
    for ids, vectors in parts:
        if len(ids):
            found = queries @ vectors.T, np.broadcast_to(ids, (len(queries), len(ids)))
            best = merge(best, found, k)
    return best


def merge(one: tuple[Vectors, Ids], other: tuple[Vectors, Ids], k: int) -> tuple[Vectors, Ids]:
    """The k best of two answers to the same queries, each of similarities and ids with q rows; shape (q, k)."""
    similarities, ids = np.hstack([one[0], other[0]]), np.hstack([one[1], other[1]])
    if similarities.shape[1] > 4 * k:  # sorting all would take longer than finding the few
        few = np.argpartition(-similarities, k, axis=1)[:, :k]
        similarities, ids = np.take_along_axis(similarities, few, axis=1), np.take_along_axis(ids, few, axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(ids, order, axis=1)
