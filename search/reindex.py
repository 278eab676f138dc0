"""The nightly job: every item gets the vector of its present text, and the vectors an index on disk.

Searches and writers go on all the while. A killed run leaves nothing that the next one does not put right: batches are
committed, and an index is published whole or not at all.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from search.current_index import FOREIGN
from search.encoder import BiEncoder
from search.gate import held_out_queries, objection
from search.index.build import Measured, build, measure
from search.index.generation import Draft, Generation, Manifest
from search.index.generations import Generations
from search.ingest import ROWS_PER_COMMIT, Ingest
from search.types import START, Advance, Position
from storage import changes, items, vectors
from storage.database import Database
from storage.items import HELD
from storage.models import Status
from storage.vectors import StoredVectors

KEEP = 2
"""Generations of the encoder that are kept: the newest, and one to fall back on."""

CHANGES_PER_COMMIT = 20_000
"""Removed from the log at once: some ten milliseconds under the write lock."""

ShowProgress = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Called with the name of a step and its total, where that is known; what it yields with how much was done since."""


@dataclass(frozen=True)
class Encoded:
    """What the first step did."""

    items: int
    """Items looked at, of every status."""
    encoded: int
    """Those that had no sound vector of this encoder and their present text."""


@dataclass(frozen=True)
class Indexed:
    """What the second step did."""

    generation: str | None
    """The newest index on the disk afterwards."""
    is_new: bool
    """Whether this run has published it; where nothing had changed since it was built, none is built."""
    refused: str | None
    """Why the index that this run built was not published; the earlier one serves on."""
    manifest: Manifest | None
    """What the newest holds."""
    without_vector: int
    """Held items that are in no index: another process has added them since the first step, by another encoder."""


@dataclass(frozen=True)
class Removed:
    """What the third step did."""

    changes: int
    """Entries of the change log that no kept generation needs."""
    vectors: int
    """Vectors by other encoders, once no process should work by them any more."""


@dataclass(frozen=True)
class ReindexReport:
    """What a reindex did, and how long each step took."""

    encoded: Encoded
    indexed: Indexed
    removed: Removed
    seconds: dict[str, float]


def reindex(
    database: Database, encoder: BiEncoder, show_progress: ShowProgress | None = None, keep: int = KEEP
) -> ReindexReport:
    """Encode what lacks a sound vector, build an index, check it, publish it, and remove what nobody needs any more.

    Args:
        database: Where the items are.
        encoder: The encoder whose vectors are wanted.
        show_progress: Shows the progress of each step.
        keep: Generations to be kept, at least 1. The newest one of the encoder before this one, and its vectors, stay
            until this one has a second generation: processes that still work by it go on serving.

    Raises:
        ReindexRunningError: Another process is at it.
        IndexFileError: The index cannot be written; the earlier one serves on.
        DatabaseError: The database is opened to read only, or does not take a batch; earlier ones are stored.
    """
    database.require_writable("reindex")
    with database.read():
        pass  # there is one, before anything is made beside it
    generations = Generations(database.index_folder)
    steps = _Steps(show_progress)
    with generations.lock():
        encoded = _encode(database, encoder, steps)
        indexed = _index(database, encoder, generations, steps)
        removed = Removed(0, 0)
        if indexed.manifest is not None and indexed.refused is None:
            removed = _remove(database, generations, indexed.manifest, keep, steps)
    return ReindexReport(encoded, indexed, removed, steps.seconds)


class _Steps:
    def __init__(self, show_progress: ShowProgress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._show_progress = show_progress or (lambda _name, _total: nullcontext(lambda _done: None))

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Advance]:
        began = time.monotonic()
        with self._show_progress(name, total) as advance:
            yield advance
        self.seconds[name] = round(time.monotonic() - began, 3)


def _encode(database: Database, encoder: BiEncoder, steps: _Steps) -> Encoded:
    ingest = Ingest(database, encoder)
    seen = encoded = last = 0
    with database.read() as session:
        total = sum(items.count_by_status(session).values())
    with steps.step("encoding", total) as advance:
        while True:
            with database.read() as session:
                ids = items.ids_after(session, last, ROWS_PER_COMMIT)
                damaged = vectors.damaged(session, encoder.fingerprint, encoder.dim, ids)
            if not ids:
                return Encoded(seen, encoded)
            if damaged:
                with database.write() as session:
                    damaged = vectors.damaged(session, encoder.fingerprint, encoder.dim, damaged)
                    vectors.delete_of(session, encoder.fingerprint, damaged)
                    changes.append(session, damaged)
            encoded += ingest.encode_stale(ids)
            seen += len(ids)
            last = ids[-1]
            advance(len(ids))


def _anchor_log(database: Database) -> None:
    """A log that has lost all its entries gets one, by which searches will know what the index holds."""
    with database.read() as session:
        is_lost = changes.newest(session) == START and not changes.reaches(session, START)
    if is_lost:
        with database.write() as session:
            changes.append(session, items.ids_after(session, 0, 1))


def _index(database: Database, encoder: BiEncoder, generations: Generations, steps: _Steps) -> Indexed:
    _anchor_log(database)
    previous = next((manifest.encoder for manifest in generations.manifests()), None)
    newest = generations.newest(encoder.fingerprint)
    with ExitStack() as stack:
        session = stack.enter_context(database.read())
        while newest is not None and not changes.reaches(session, newest.manifest.position):
            generations.set_aside(newest.name, FOREIGN)
            newest = generations.newest(encoder.fingerprint)
        source = StoredVectors(session, encoder.fingerprint, encoder.dim)
        position = changes.newest(session)
        without = vectors.count_without(session, source.encoder, HELD)
        if newest is not None and _is_up_to_date(newest, previous, position, generations):
            return Indexed(newest.name, False, None, newest.manifest, without)
        count = items.count_by_status(session)[Status.HELD] - without
        with steps.step("building", count) as advance:
            index = build(source, source.dim, advance)
        with steps.step("writing", count):
            draft = stack.enter_context(generations.draft(index))
            del index
        with steps.step("checking", count) as advance:
            measured = measure(draft.read_back(), source, held_out_queries(encoder, source), advance)
        if refused := objection(measured, count):
            return Indexed(
                newest.name if newest else None, False, refused, newest.manifest if newest else None, without
            )
        with steps.step("publishing", 1):
            if previous is None and set(vectors.count_by_encoder(session)) <= {source.encoder}:
                previous = source.encoder  # by which searches have read the stored vectors
            manifest = _manifest(source, position, previous, measured, draft)
            name = generations.publish(draft, manifest)
        return Indexed(name, True, None, manifest, without)


def _is_up_to_date(newest: Generation, previous: str | None, position: Position, generations: Generations) -> bool:
    """Whether another one would be no better; after a change of encoder the second one says that the change is done."""
    manifest = newest.manifest
    if previous != manifest.encoder:  # an index of another encoder is newer
        return False
    return manifest.position == position and manifest.is_settled and generations.lost_newest() is None


def _manifest(
    source: StoredVectors, position: Position, previous: str | None, measured: Measured, draft: Draft
) -> Manifest:
    return Manifest(
        encoder=source.encoder,
        dim=source.dim,
        kind="approximate" if measured.index.is_approximate else "exact",
        lists=measured.index.lists,
        probes=measured.index.probes,
        largest_error=measured.index.largest_error,
        recall=measured.recall,
        count=len(measured.index),
        position=position,
        previous_encoder=previous,
        built_at=datetime.now(UTC),
        faiss_bytes=draft.faiss_bytes,
        faiss_sha256=draft.faiss_sha256,
    )


def _remove(database: Database, generations: Generations, serving: Manifest, keep: int, steps: _Steps) -> Removed:
    """Take away what nobody asks for any more, in batches that let other writers in between."""
    with steps.step("cleaning", 1):
        kept = generations.prune(serving, keep)
        if kept is None:
            return Removed(0, 0)
        removed_vectors = 0
        if serving.is_settled:
            encoders = {manifest.encoder for manifest in kept}
            removed_vectors = _drop_other_encoders(database, serving.encoder, encoders)
        return Removed(_shorten_log(database, [manifest.position for manifest in kept]), removed_vectors)


def _shorten_log(database: Database, needed: list[Position]) -> int:
    removed = 0
    while True:
        with database.write() as session:
            known = [position for position in needed if changes.reaches(session, position)]
            if not known:
                return removed  # a restore has put another history in the place of theirs
            oldest = min(known, key=lambda position: position.number)
            count = changes.shorten(session, oldest, CHANGES_PER_COMMIT)
        removed += count
        if not count:
            return removed


def _drop_other_encoders(database: Database, encoder: str, kept: set[str]) -> int:
    dropped = last = 0
    with database.read() as session:
        if not vectors.count_by_encoder(session).keys() - kept:
            return 0
    while True:
        with database.write() as session:
            ids = items.ids_after(session, last, ROWS_PER_COMMIT)
            if not ids:
                return dropped
            dropped += vectors.drop_other_encoders(session, encoder, kept, ids)
            last = ids[-1]
