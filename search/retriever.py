"""Retrieval: keeps the index current from the database and finds the candidates in it."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from search.current_index import FOREIGN, CurrentIndex, catch_up, open_index
from search.encoder import BiEncoder
from search.errors import FingerprintError
from search.index.exact import NO_ID, nearest
from search.index.generations import RETRY_AFTER, Generations
from search.index.live import LiveIndex
from search.types import Ids, Vectors
from storage import items, vectors
from storage.database import Database
from storage.items import HELD, Filters
from storage.models import Status
from storage.vectors import StoredVectors


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
    warnings: list[str] = field(default_factory=list)


class Retriever:
    """Finds candidates in the database's vectors by one encoder. Safe to share between threads."""

    def __init__(self, database: Database, encoder: BiEncoder) -> None:
        self._database = database
        self._encoder = encoder
        self._generations = Generations(database.index_folder)
        self._current: CurrentIndex | None = None
        self._lock = threading.Lock()

    def load(self, filters: Filters) -> None:
        """Open the index now, not with the first query; errors as for `retrieve`."""
        if filters.status is Status.HELD:
            with ExitStack() as stack, self._lock:
                self._catch_up(stack, self._encoder.dim)

    @contextmanager
    def retrieve(self, queries: Vectors, depth: int, filters: Filters) -> Iterator[tuple[Session, Retrieval]]:
        """The `depth` nearest items of each query among those that the filters select.

        Args:
            queries: Shape (q, dim), float32, unit rows.
            depth: At least 1.
            filters: Applied before the nearest are taken, so an answer is short only where the selection is.

        Yields:
            A session at the moment of which the answer is true, and the answer.

        Raises:
            FingerprintError: Held items are searched, and none has a vector of this encoder.
            DatabaseError: The database cannot be read, or a stored vector is damaged.
        """
        encoder, dim = self._encoder.fingerprint, queries.shape[1]
        if filters.status is not Status.HELD:
            with self._database.read() as session:
                found = nearest(queries, StoredVectors(session, encoder, dim, filters).parts(), depth)
                yield session, Retrieval(_candidates(*found), vectors.count_without(session, encoder, filters))
            return
        with ExitStack() as stack:
            with self._lock:
                source, current = self._catch_up(stack, dim)
                warnings = [*self._generations.take_notes(), *_advice(current.index)]
            among = None if filters == HELD else items.select_ids(source.session, filters)
            found = current.index.search(queries, min(depth, max(1, len(current.index))), source, among)
            without = len(current.without_vector)
            if without and filters != HELD:
                without = vectors.count_without(source.session, encoder, filters)
            yield source.session, Retrieval(_candidates(*found), without, warnings)

    def _catch_up(self, stack: ExitStack, dim: int) -> tuple[StoredVectors, CurrentIndex]:
        """What the stack's session sees: the stored vectors, and the index at the very same moment.

        The session is opened after the look at the generations, and both under the lock, so that neither a generation
        nor the index of another thread is ahead of it.
        """
        while True:
            generation = self._generations.newest(self._encoder.fingerprint)
            session = stack.enter_context(self._database.read())
            source = StoredVectors(session, self._encoder.fingerprint, dim)
            current = self._current
            if current is not None and current.generation == (generation.name if generation else None):
                current = catch_up(current, source)
            else:
                current = None
            current = current or open_index(source, generation)
            if current is not None:
                break
            stack.pop_all().close()
            if generation is not None and generation.name in self._generations.names():  # not just pruned
                self._generations.pass_over(generation.name, FOREIGN, RETRY_AFTER)
        if current.without_vector and not len(current.index):
            raise FingerprintError(
                f"none of the {len(current.without_vector)} held items has a vector of encoder "
                f"{self._encoder.name!r} ({self._encoder.fingerprint[:12]}); run `lostfound reindex`"
            )
        self._current = current
        return source, current


def _candidates(similarities: Vectors, ids: Ids) -> list[list[Candidate]]:
    return [
        [Candidate(int(i), float(s)) for i, s in zip(row_ids, row, strict=True) if i != NO_ID]
        for row_ids, row in zip(ids, similarities, strict=True)
    ]


def _advice(index: LiveIndex) -> list[str]:
    if not index.reindex_pays:
        return []
    return [f"{index.changes} items are not in the index on the disk yet; a `lostfound reindex` makes searches faster"]
