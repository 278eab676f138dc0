"""The nightly job: every item gets the vector of its present text by the present encoder."""

from dataclasses import dataclass

from search.encoder import BiEncoder
from search.ingest import ROWS_PER_COMMIT, Ingest
from search.types import Advance
from storage import items, vectors
from storage.database import Database


@dataclass(frozen=True)
class ReindexSummary:
    """What a reindex did."""

    items: int
    """Items looked at."""
    encoded: int
    """Those that had no sound vector of this encoder and their present text."""
    dropped: int
    """Vectors by other encoders that were deleted."""


def reindex(database: Database, encoder: BiEncoder, advance: Advance | None = None) -> ReindexSummary:
    """Encode what lacks a sound vector, in batches that commit, then drop the vectors by other encoders.

    A killed run is taken up by the next one. Searches and writers go on all the while.

    Args:
        database: Where the items are.
        encoder: The encoder whose vectors are wanted.
        advance: Called with the number of items done since the last call.

    Raises:
        DatabaseError: The database does not take a batch; earlier ones are stored.
    """
    ingest = Ingest(database, encoder)
    seen = encoded = last = 0
    while True:
        with database.read() as session:
            ids = items.ids_after(session, last, ROWS_PER_COMMIT)
            damaged = vectors.damaged(session, encoder.fingerprint, encoder.dim, ids)
        if not ids:
            break
        if damaged:
            with database.write() as session:
                vectors.delete_of(session, encoder.fingerprint, damaged)
        encoded += ingest.encode_stale(ids)
        last = ids[-1]
        seen += len(ids)
        if advance:
            advance(len(ids))
    with database.write() as session:
        dropped = vectors.drop_other_encoders(session, encoder.fingerprint)
    return ReindexSummary(items=seen, encoded=encoded, dropped=dropped)
