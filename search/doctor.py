"""Checks every invariant of the stored data, and says which command mends what is broken."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from search.application import Application
from search.errors import ModelError, SettingsError
from search.ingest import ROWS_PER_COMMIT
from search.reindex import reindex
from search.text import text_hash, text_of
from search.threshold import is_passed_over, load_threshold, require_precision
from search.types import Advance
from storage import backup, items, orphans, vectors

REPAIR = "lostfound doctor --repair"
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
    if ruined := backup.check(application.database):
        return [Finding(f"{application.database.file} is damaged: {line}", RESTORE) for line in ruined]
    return [*_rows(application), *_models(application), *_vectors(application, advance)]


def repair(application: Application, findings: list[Finding], advance: Advance | None = None) -> None:
    """Mend what needs no choice of a person's: rows without their item, and vectors by the present encoder.

    Raises:
        DatabaseError: The database cannot be written.
    """
    if not any(finding.mended_by == REPAIR for finding in findings):
        return
    with application.database.write() as session:
        orphans.delete_all(session)
    reindex(application.database, application.encoder, advance)


def _rows(application: Application) -> Iterator[Finding]:
    with application.database.read() as session:
        mode = session.connection().exec_driver_sql("PRAGMA journal_mode").scalar_one()
        count = orphans.count(session)
    if mode != "wal":
        yield Finding(
            f"the database is in journal mode {mode!r}, readers and writers wait for one another", "lostfound init"
        )
    if count:
        yield Finding(f"{count} vectors or changes are of items that do not exist", REPAIR)


def _models(application: Application) -> Iterator[Finding]:
    try:
        application.encoder.encode(["a hat"])
    except (ModelError, SettingsError) as error:
        yield Finding(str(error), "set LOSTFOUND_ENCODER")
    try:
        application.reranker.score("a hat", ["a hat"])
    except (ModelError, SettingsError) as error:
        yield Finding(str(error), "set LOSTFOUND_RERANKER")
    else:
        yield from _threshold(application)


def _threshold(application: Application) -> Iterator[Finding]:
    try:
        threshold = load_threshold(application.reranker, application.threshold_file)
        if threshold is None:
            yield Finding(f"reranker {application.reranker.name!r} has no threshold, nothing is hidden", CALIBRATE)
            return
        require_precision(threshold, application.reranker)
        if is_passed_over(application.threshold_file, application.reranker):
            yield Finding(f"{application.threshold_file} is of another reranker and not used", CALIBRATE)
    except ModelError as error:
        yield Finding(str(error), CALIBRATE)


def _vectors(application: Application, advance: Advance | None) -> Iterator[Finding]:
    try:
        encoder, dim = application.encoder.fingerprint, application.encoder.dim
    except (ModelError, SettingsError):
        return  # told by `_models`
    total = missing = outdated = damaged = last = 0
    with application.database.read() as session:
        while ids := items.ids_after(session, last, ROWS_PER_COMMIT):
            hashes = vectors.text_hashes(session, encoder, ids)
            for item_id, text in _text_hashes(session, ids).items():
                if text is None:
                    yield Finding(f"item number {item_id} has a field that cannot be read", RESTORE)
                missing += item_id not in hashes
                outdated += text is not None and hashes.get(item_id, text) != text
            damaged += len(vectors.damaged(session, encoder, dim, ids))
            total, last = total + len(ids), ids[-1]
            session.expunge_all()
            if advance:
                advance(len(ids))
        foreign = sum(count for name, count in vectors.count_by_encoder(session).items() if name != encoder)
    if foreign and missing == total:
        # Whether the office changes its encoder is not for a cron job to decide.
        yield Finding(
            f"all vectors are of another encoder than {application.encoder.name!r}",
            "set LOSTFOUND_ENCODER back, or change to this one with lostfound reindex",
        )
        return
    for count, what in (
        (missing, f"items have no vector of encoder {application.encoder.name!r}"),
        (outdated, "items have a vector of an earlier text"),
        (damaged, "items have a damaged vector"),
        (foreign, "vectors are of other encoders"),
    ):
        if count:
            yield Finding(f"{count} {what}", REPAIR)


def _text_hashes(session: Session, ids: Sequence[int]) -> dict[int, str | None]:
    """The hash of each item's text, None where a field holds what no command of ours has written."""
    try:
        return {item_id: text_hash(text_of(item)) for item_id, item in items.by_ids(session, ids).items()}
    except (ValueError, LookupError):
        if len(ids) == 1:
            return {ids[0]: None}
    return {item_id: text for one in ids for item_id, text in _text_hashes(session, [one]).items()}
