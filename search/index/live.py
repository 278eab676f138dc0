"""The index that queries see: exact, in memory, kept current from the change log."""

import threading
from collections.abc import Sequence

import faiss
import numpy as np

from search.types import Ids, Vectors

NO_ID = -1
"""Fills the rows of an answer that has fewer than k neighbours."""


class LiveIndex:
    """The vectors of the items that can be found, by item id.

    `last_change` is the number of the newest change that is in it. Safe to share between threads.

    Example:
        >>> index = LiveIndex(dim=2, last_change=0)
        >>> index.apply(1, replaced=[7], ids=np.array([7]), vectors=np.array([[1, 0]], dtype=np.float32))
        >>> index.search(np.array([[0.6, 0.8]], dtype=np.float32), k=2)
        (array([[ 0.6, -inf]], dtype=float32), array([[ 7, -1]]))
    """

    def __init__(self, dim: int, last_change: int) -> None:
        self.last_change = last_change
        self._lock = threading.RLock()
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors, shape (n, dim), float32, unit rows, under ids that are not in the index."""
        with self._lock:
            self._index.add_with_ids(np.ascontiguousarray(vectors), ids)

    def apply(self, last_change: int, replaced: Sequence[int], ids: Ids, vectors: Vectors) -> None:
        """Catch up with the change log.

        Args:
            last_change: The number up to which the index is current afterwards.
            replaced: Every item with a change; its vector is taken out.
            ids: Those of them that can still be found, shape (n,).
            vectors: Their present vectors, shape (n, dim).
        """
        with self._lock:
            if last_change <= self.last_change:
                return  # another thread was faster
            if len(replaced):
                self._index.remove_ids(faiss.IDSelectorBatch(np.asarray(replaced, dtype=np.int64)))
            if len(ids):
                self.add(ids, vectors)
            self.last_change = last_change

    def search(self, queries: Vectors, k: int, among: Ids | None = None) -> tuple[Vectors, Ids]:
        """The k nearest neighbours of each query, the nearest first.

        Args:
            queries: Shape (q, dim), float32, unit rows.
            k: At least 1; may exceed the number of items.
            among: Only these ids are looked at, so k of them come back where there are k; None: all.

        Returns:
            similarities, shape (q, k), float32, inner products in [-1, 1], and ids, shape (q, k), int64.
            Where there are fewer than k neighbours the rest is -inf and -1.
        """
        with self._lock:
            parameters = faiss.SearchParameters()
            if among is not None:
                selector = faiss.IDSelectorBatch(among)  # named, for FAISS keeps no reference of its own
                parameters.sel = selector
            similarities, ids = self._index.search(np.ascontiguousarray(queries), k, params=parameters)
        similarities[ids == NO_ID] = -np.inf
        return similarities, ids
