"""Retrieval: keeps the index current from the database and finds the candidates in it."""

import threading
from dataclasses import dataclass

from sqlalchemy.orm import Session

from search.encoder import BiEncoder
from search.errors import FingerprintError
from search.index.exact import nearest
from search.index.live import NO_ID, LiveIndex
from search.types import Vectors
from storage import changes, items, vectors
from storage.items import Filters
from storage.models import Status

HELD = Filters(status=Status.HELD)
"""What the index holds: an item that has left the office is not found by accident."""


@dataclass(frozen=True)
class Candidate:
    """A retrieved item; `similarity` is the cosine of its vector and the query's, in [-1, 1]."""

    item_id: int
    similarity: float


@dataclass(frozen=True)
class Retrieval:
    """The candidates of each query, the most similar first."""

    candidates: list[list[Candidate]]
    without_vector: int
    """Selected items that could not be looked at, for they have no vector of this encoder."""


class Retriever:
    """Finds candidates in the database's vectors by one encoder. Safe to share between threads."""

    def __init__(self, encoder: BiEncoder) -> None:
        self._encoder = encoder
        self._index: LiveIndex | None = None
        self._lineage = 0
        self._held_without_vector = 0
        self._lock = threading.Lock()

    def retrieve(self, session: Session, queries: Vectors, depth: int, filters: Filters) -> Retrieval:
        """The `depth` nearest items of each query among those that the filters select.

        Args:
            session: A read session; the answer is true for its snapshot or a later moment.
            queries: Shape (q, dim), float32, unit rows.
            depth: At least 1.
            filters: Applied before the nearest are taken, so an answer is short only where the selection is.

        Raises:
            FingerprintError: None of the held items has a vector of this encoder.
            DatabaseError: A stored vector is damaged.
        """
        encoder, dim = self._encoder.fingerprint, queries.shape[1]
        if filters.status is Status.HELD:
            index, without_vector = self._current_index(session, dim)
            among = None if filters == HELD else items.select_ids(session, filters)
            similarities, ids = index.search(queries, min(depth, max(1, len(index))), among)
        else:
            without_vector = vectors.count_without(session, encoder, filters)
            similarities, ids = nearest(queries, vectors.selected(session, encoder, dim, filters), depth)
        candidates = [
            [Candidate(int(i), float(s)) for i, s in zip(row_ids, row, strict=True) if i != NO_ID]
            for row_ids, row in zip(ids, similarities, strict=True)
        ]
        return Retrieval(candidates, without_vector)

    def _current_index(self, session: Session, dim: int) -> tuple[LiveIndex, int]:
        """The index with every change that the session sees, and how many held items are not in it."""
        with self._lock:
            number, lineage = changes.last_number(session), changes.lineage(session)
            index = self._index if lineage == self._lineage else None
            if index is not None and index.last_change >= number:
                return index, self._held_without_vector
            if index is None:
                index = self._build(session, dim, number)
            else:
                changed = changes.items_since(session, index.last_change)
                index.apply(number, changed, *vectors.of_items(session, self._encoder.fingerprint, dim, changed, HELD))
            held = items.count_by_status(session)[Status.HELD]
            if held and not len(index):
                raise FingerprintError(
                    f"none of the {held} held items has a vector of encoder {self._encoder.name!r} "
                    f"({self._encoder.fingerprint[:12]}); run `lostfound reindex`"
                )
            self._index, self._lineage, self._held_without_vector = index, lineage, held - len(index)
            return index, self._held_without_vector

    def _build(self, session: Session, dim: int, number: int) -> LiveIndex:
        index = LiveIndex(dim=dim, last_change=number)
        for ids, rows in vectors.selected(session, self._encoder.fingerprint, dim, HELD):
            index.add(ids, rows)
        return index
