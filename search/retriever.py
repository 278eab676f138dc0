"""Retrieval: keeps the index current from the database and finds the candidates in it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from search.encoder import BiEncoder, Vectors
from search.errors import FingerprintError
from search.index.exact import nearest
from search.index.live import NO_ID, LiveIndex
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


class Retriever:
    """Finds candidates in the database's vectors by one encoder. Safe to share between threads."""

    def __init__(self, encoder: BiEncoder) -> None:
        self._encoder = encoder
        self._index: LiveIndex | None = None
        self._lock = threading.Lock()
        self._without_vector = 0

    def retrieve(self, session: Session, queries: Vectors, depth: int, filters: Filters) -> list[list[Candidate]]:
        """The `depth` nearest items of each query among those that the filters select, the nearest first.

        Args:
            session: A read session; the answer is true for its snapshot or a later moment.
            queries: Shape (q, dim), float32, unit rows.
            depth: At least 1.
            filters: Applied before the nearest are taken, so an answer is short only where the selection is.

        Raises:
            FingerprintError: No held item has a vector of this encoder.
        """
        index = self._current_index(session)
        if filters.status is not Status.HELD:
            stored = vectors.selected(session, self._encoder.fingerprint, filters)
            similarities, ids = nearest(queries, stored, depth)
        elif index is None:
            return [[] for _ in queries]
        else:
            among = None if filters == HELD else items.select_ids(session, filters)
            similarities, ids = index.search(queries, min(depth, max(1, len(index))), among)
        return [
            [Candidate(int(i), float(s)) for i, s in zip(row_ids, row, strict=True) if i != NO_ID]
            for row_ids, row in zip(ids, similarities, strict=True)
        ]

    def warnings(self) -> list[str]:
        """What the last retrieval could not look at."""
        if not self._without_vector:
            return []
        return [
            f"{self._without_vector} held items have no vector of encoder {self._encoder.name!r} "
            "and were not searched; run `lostfound reindex`"
        ]

    def _current_index(self, session: Session) -> LiveIndex | None:
        """The index with every change that the session sees, None while there is nothing to index."""
        with self._lock:
            number = changes.last_number(session)
            if self._index is not None and self._index.last_change >= number:
                return self._index
            if self._index is None:
                self._index = self._build(session, number)
            else:
                self._catch_up(session, self._index, number)
            held = items.count_by_status(session)[Status.HELD]
            self._without_vector = held - (len(self._index) if self._index is not None else 0)
            if held and self._index is None:
                raise FingerprintError(
                    f"none of the {held} held items has a vector of encoder {self._encoder.name!r} "
                    f"({self._encoder.fingerprint[:12]}); run `lostfound reindex`"
                )
            return self._index

    def _build(self, session: Session, number: int) -> LiveIndex | None:
        index: LiveIndex | None = None
        for ids, rows in vectors.selected(session, self._encoder.fingerprint, HELD):
            index = index or LiveIndex(dim=rows.shape[1], last_change=number)
            index.add(ids, rows)
        return index

    def _catch_up(self, session: Session, index: LiveIndex, number: int) -> None:
        changed: Sequence[int] = changes.items_since(session, index.last_change)
        ids, rows = vectors.of_items(session, self._encoder.fingerprint, changed, HELD)
        index.apply(number, changed, ids, rows)
