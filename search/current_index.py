"""The index at the moment that a session sees: a generation, or the stored vectors, and the changes since."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from search.index.generation import Generation
from search.index.live import LiveIndex
from search.types import Position
from storage import changes, items, vectors
from storage.chunks import chunks
from storage.items import HELD
from storage.models import Status
from storage.vectors import StoredVectors

FOREIGN = "the change log of the database does not lead on from it"


@dataclass(frozen=True)
class CurrentIndex:
    """The vectors of all held items at one moment."""

    index: LiveIndex
    without_vector: frozenset[int]
    """The held items that are not in it, for they have no vector of its encoder."""
    generation: str | None
    """The name of the generation that it is based on."""


def open_index(source: StoredVectors, generation: Generation | None) -> CurrentIndex | None:
    """The index at the moment of the source's session; without a generation it is read from the stored vectors.

    None where the database's change log does not lead on from the generation: it is of another database, or of a
    history that a restore has ended.

    Args:
        source: The stored vectors of the held items.
        generation: One of the same encoder.

    Raises:
        DatabaseError: A stored vector is damaged.
    """
    session = source.session
    if generation is None:
        index = _read(source)
    elif changes.reaches(session, generation.manifest.position):
        index = LiveIndex(generation.manifest.position, source.dim, generation.index)
    else:
        return None
    index, _ = _apply_changes(index, source, changes.newest(session))
    is_complete = items.count_by_status(session)[Status.HELD] == len(index)
    without = () if is_complete else vectors.ids_without(session, source.encoder, HELD)
    return CurrentIndex(index, frozenset(without), generation.name if generation else None)


def catch_up(current: CurrentIndex, source: StoredVectors) -> CurrentIndex | None:
    """The index with the changes up to the moment of the source's session; None and errors as for `open_index`."""
    newest = changes.newest(source.session)
    if newest == current.index.position:
        return current
    if not changes.reaches(source.session, current.index.position):
        return None
    index, changed = _apply_changes(current.index, source, newest)
    without = vectors.ids_without(source.session, source.encoder, HELD, among=changed)
    return CurrentIndex(index, (current.without_vector - set(changed)) | set(without), current.generation)


def _read(source: StoredVectors) -> LiveIndex:
    ids = source.ids()
    rows = np.empty((len(ids), source.dim), dtype=np.float32)
    start = 0
    for part_ids, part in source.parts():
        rows[start : start + len(part_ids)] = part
        start += len(part_ids)
    return LiveIndex(changes.newest(source.session), source.dim, newer=((ids, rows),))


def _apply_changes(index: LiveIndex, source: StoredVectors, newest: Position) -> tuple[LiveIndex, Collection[int]]:
    changed = changes.items_since(source.session, index.position)
    for chunk in chunks(changed):  # a change of encoder changes every item, without a difference to most indexes
        index = index.apply(newest, chunk, *source.among(chunk))
    return index, changed
