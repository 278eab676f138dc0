"""Checks every invariant of the stored data, and says which command mends what is broken."""

from collections.abc import Iterator
from dataclasses import dataclass

from search import model_folder
from search.application import Application
from search.errors import DatabaseError, ModelError
from search.ingest import ROWS_PER_COMMIT
from search.text import text_hash, text_of
from search.threshold import is_passed_over, load_threshold
from search.types import Advance
from storage import backup, items, vectors

REINDEX = "lostfound reindex"
RESTORE = "lostfound restore BACKUP"
CALIBRATE = "lostfound calibrate"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong."""

    what: str
    mended_by: str
    """A command, or what to do by hand."""


def examine(application: Application, advance: Advance | None = None) -> list[Finding]:
    """All that is wrong with the database, its vectors, and the models; nothing where all is well.

    Args:
        application: The office.
        advance: Called with the number of items looked at since the last call.

    Raises:
        DatabaseError: The database cannot be read at all.
        SchemaError: It is at another revision.
    """
    with application.database.read():
        pass  # missing, foreign or of another revision: there is nothing more to be said of it
    ruined = [Finding(f"the database: {line}", RESTORE) for line in backup.check(application.database.file)]
    return ruined or [*_models(application), *_vectors(application, advance)]


def _models(application: Application) -> Iterator[Finding]:
    try:
        model_folder.require_kind(application.encoder.folder, "bi-encoder")
    except ModelError as error:
        yield Finding(str(error), "set LOSTFOUND_ENCODER")
    try:
        model_folder.require_kind(application.reranker.folder, "cross-encoder")
    except ModelError as error:
        yield Finding(str(error), "set LOSTFOUND_RERANKER")
    else:
        yield from _threshold(application)


def _threshold(application: Application) -> Iterator[Finding]:
    try:
        if load_threshold(application.reranker, application.threshold_file) is None:
            yield Finding(f"reranker {application.reranker.name!r} has no threshold, nothing is hidden", CALIBRATE)
        elif is_passed_over(application.threshold_file, application.reranker):
            yield Finding(f"{application.threshold_file} is of another reranker and not used", CALIBRATE)
    except ModelError as error:
        yield Finding(str(error), CALIBRATE)


def _vectors(application: Application, advance: Advance | None) -> Iterator[Finding]:
    try:
        encoder, dim = application.encoder.fingerprint, application.encoder.dim
    except ModelError:
        return  # told by its own finding
    missing = outdated = damaged = last = 0
    with application.database.read() as session:
        while ids := items.ids_after(session, last, ROWS_PER_COMMIT):
            hashes = vectors.text_hashes(session, encoder, ids)
            for item_id, item in items.by_ids(session, ids).items():
                missing += item_id not in hashes
                outdated += item_id in hashes and hashes[item_id] != text_hash(text_of(item))
            damaged += len(vectors.damaged(session, encoder, dim, ids))
            last = ids[-1]
            session.expunge_all()
            if advance:
                advance(len(ids))
        foreign = sum(count for name, count in vectors.count_by_encoder(session).items() if name != encoder)
    for count, what in (
        (missing, f"items have no vector of encoder {application.encoder.name!r}"),
        (outdated, "items have a vector of an earlier text"),
        (damaged, "items have a damaged vector"),
        (foreign, "vectors are of other encoders"),
    ):
        if count:
            yield Finding(f"{count} {what}", REINDEX)


def repair(application: Application, advance: Advance | None = None) -> None:
    """Do what can be done without a choice of a person's: reindex.

    Raises:
        DatabaseError: The database is damaged, or cannot be written.
    """
    from search.reindex import reindex  # noqa: PLC0415  as `status` imports nothing of the writers

    if wrong := backup.check(application.database.file):
        raise DatabaseError(f"{application.database.file} is damaged: {wrong[0]}; put a backup back, `{RESTORE}`")
    reindex(application.database, application.encoder, advance)
