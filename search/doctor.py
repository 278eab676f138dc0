"""Checks every invariant of the stored data, and says which command mends what is broken."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from search.application import Application
from search.current_index import FOREIGN, open_index
from search.encoder import BiEncoder
from search.errors import DamagedIndexError, DatabaseError, ModelError, SettingsError
from search.index.base import ROUNDING
from search.index.generation import Generation
from search.index.generations import REASON, SET_ASIDE, Generations
from search.index.live import LiveIndex
from search.ingest import ROWS_PER_COMMIT
from search.model import Model
from search.reindex import ShowProgress, reindex
from search.text import text_hash, text_of
from search.threshold import is_passed_over, load_threshold, require_precision
from search.types import Advance
from storage import backup, items, orphans, vectors
from storage.vectors import StoredVectors

REPAIR = "lostfound doctor --repair"
RESTORE = "lostfound restore BACKUP"
CALIBRATE = "lostfound calibrate"
OPTIMISE = "lostfound optimise"
CHANGE_ENCODER = "set LOSTFOUND_ENCODER back, or change to this one with lostfound reindex"


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
    return [
        *_rows(application),
        *_models(application),
        *_vectors(application, advance),
        *_indexes(application),
    ]


def repair(
    application: Application, findings: list[Finding], show_progress: ShowProgress | None = None
) -> list[Finding]:
    """Mend what needs no choice of a person's: rows without their item, vectors by the present encoder, indexes.

    Returns:
        What has hindered it.

    Raises:
        DatabaseError: The database cannot be written.
        IndexFileError: The index cannot be written, or another process builds one.
    """
    if not any(finding.mended_by == REPAIR for finding in findings):
        return []
    with application.database.write() as session:
        orphans.delete_all(session)
    for name, why in unsound_generations(application):
        Generations(application.database.index_folder).set_aside(name, why)
    if any(finding.mended_by == CHANGE_ENCODER for finding in findings):
        return []  # whether the office changes its encoder is not for a cron job to decide
    refused = reindex(application.database, application.encoder, show_progress).indexed.refused
    return [Finding(f"the new index was not published: {refused}", "report this to the developers")] if refused else []


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
    except SettingsError as error:
        yield Finding(str(error), "set LOSTFOUND_DEVICE")
        return
    except ModelError as error:
        yield Finding(str(error), "set LOSTFOUND_ENCODER")
    else:
        yield from _graph(application.encoder)
    try:
        application.reranker.score("a hat", ["a hat"])
    except ModelError as error:
        yield Finding(str(error), "set LOSTFOUND_RERANKER")
    else:
        yield from _graph(application.reranker)
        yield from _threshold(application)


def _graph(model: Model) -> Iterator[Finding]:
    return (Finding(warning, OPTIMISE) for warning in model.warnings)


def _threshold(application: Application) -> Iterator[Finding]:
    encoder: BiEncoder | None = None
    with suppress(ModelError, SettingsError):  # told already
        encoder = application.encoder
    try:
        threshold = load_threshold(application.reranker, application.threshold_file, encoder)
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
    manifests = list(Generations(application.database.index_folder).manifests())
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
        others = {name: count for name, count in vectors.count_by_encoder(session).items() if name != encoder}
    needed = {manifest.encoder for manifest in manifests}
    is_settled = any(manifest.encoder == encoder and manifest.is_settled for manifest in manifests)
    foreign = sum(count for name, count in others.items() if is_settled and name not in needed)
    if others and missing == total:
        yield Finding(f"all vectors are of another encoder than {application.encoder.name!r}", CHANGE_ENCODER)
        return
    for count, what in (
        (missing, f"items have no vector of encoder {application.encoder.name!r}"),
        (outdated, "items have a vector of an earlier text"),
        (damaged, "items have a damaged vector"),
        (foreign, "vectors are of other encoders and no index needs them"),
    ):
        if count:
            yield Finding(f"{count} {what}", REPAIR)


def _indexes(application: Application) -> Iterator[Finding]:
    generations = Generations(application.database.index_folder)
    if trouble := generations.trouble():
        yield Finding(f"{generations.folder} cannot be used, {trouble}", "mend that, then lostfound reindex")
    if lost := generations.lost_newest():
        yield Finding(f"index {lost} was set aside, see {generations.folder / SET_ASIDE / lost / REASON}", REPAIR)
    for name, why in unsound_generations(application):
        yield Finding(f"index {name} is not sound: {why}", REPAIR)


def unsound_generations(application: Application) -> Iterator[tuple[str, str]]:
    """The name of each index on the disk that is damaged, or not what the database says, and what is wrong with it.

    Every file is read from its first byte to its last, and every vector by the present encoder is compared.
    """
    generations = Generations(application.database.index_folder)
    for name in generations.names():
        try:
            wrong = _examined(generations.open(name), application)
        except DamagedIndexError as error:
            wrong = str(error)
        except FileNotFoundError:
            continue  # a reindex has removed it
        except OSError as error:
            wrong = f"it cannot be read: {error.strerror}"
        if wrong and name in generations.names():
            yield name, wrong


def _examined(generation: Generation, application: Application) -> str | None:
    with suppress(ModelError, SettingsError, DatabaseError):  # told by `_models` and `_vectors`
        if generation.manifest.encoder != application.encoder.fingerprint:
            return None
        with application.database.read() as session:
            source = StoredVectors(session, generation.manifest.encoder, generation.manifest.dim)
            current = open_index(source, generation)
            return _compared(current.index, source) if current else FOREIGN
    return None


def _compared(index: LiveIndex, source: StoredVectors) -> str | None:
    lacking = other = total = 0
    tolerated = ROUNDING + (index.base.largest_error if index.base else 0)
    for ids, rows in source.parts():
        distances = np.linalg.norm(index.decoded(ids) - rows, axis=1)
        lacking += int(np.isnan(distances).sum())
        other += int((distances > tolerated).sum())
        total += len(ids)
    surplus = len(index) - (total - lacking)
    counts = ((lacking, "are not in it"), (surplus, "are in it and should not be"), (other, "are in it otherwise"))
    return "; ".join(f"{count} vectors {what}" for count, what in counts if count) or None


def _text_hashes(session: Session, ids: Sequence[int]) -> dict[int, str | None]:
    """The hash of each item's text, None where a field holds what no command of ours has written."""
    try:
        return {item_id: text_hash(text_of(item)) for item_id, item in items.by_ids(session, ids).items()}
    except (ValueError, LookupError):
        if len(ids) == 1:
            return {ids[0]: None}
    return {item_id: text for one in ids for item_id, text in _text_hashes(session, [one]).items()}
