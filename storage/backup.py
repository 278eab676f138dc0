"""Copies of the database: made while others write, put back while others search."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from search.errors import DatabaseError, SchemaError
from storage.database import BUSY_TIMEOUT_MS, Database, translated_errors
from storage.models import Base

RUINED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
"""What SQLite says of a file that no transaction can be made on any more."""


def back_up(database: Database, target: Path) -> None:
    """Copy the database as it is at one moment into a single file, whole and checked; others go on writing.

    Args:
        database: The database.
        target: A new file, or an earlier backup, which is replaced only by a whole new one.

    Raises:
        DatabaseError: The database cannot be read or is damaged, or the target cannot be written or is no backup.
        SchemaError: The database is at another revision.
    """
    _require_ours(database.file, database)
    if target.exists():
        if target.samefile(database.file):
            raise DatabaseError(f"{target} is the database itself; name another file")
        _require_ours(target, Database.at(target))
    with _copied(database.file, target) as partial:
        with translated_errors(database.file):
            _require_sound(partial)
        partial.replace(target)
        _sync(target.parent)


def restore(database: Database, source: Path) -> Path | None:
    """Put a backup in the place of what the database holds, in one transaction that running searches see at once.

    No id and no change number that was given since the backup is given again, and the lineage changes, so that no
    process takes its index of the old content for one of the new.

    Args:
        database: The database; it need not exist, and may be damaged.
        source: A file made by `back_up`.

    Returns:
        The file in which the earlier content is kept, None where there was none.

    Raises:
        DatabaseError: The backup is damaged or no database, or the database cannot be written; nothing has changed.
        SchemaError: The backup is at another revision.
    """
    _require_ours(source, Database.at(source))
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = database.file.with_name(f"{database.file.stem}-before-restore-{now}.db")
    with translated_errors(source):
        _require_sound(source)
    if not database.file.exists():
        _put(source, database.file)
        return None
    try:
        _require_ours(database.file, database)
        with translated_errors(database.file):
            _restore_within(database.file, source, kept)
    except DatabaseError as error:
        if not isinstance(error, SchemaError) and not _is_ruined(error):
            raise
        _set_aside(database.file, kept)
        _put(source, database.file)
    return kept


def _restore_within(file: Path, source: Path, kept: Path) -> None:
    """Keep the content of a sound database in another file, and replace it in one transaction."""
    try:
        with _connected(file) as connection:
            connection.execute("ATTACH ? AS backup", (str(source),))
            connection.execute("BEGIN IMMEDIATE")
            with _copied(file, kept) as partial:  # no other process can commit in between
                partial.replace(kept)
            _replace_content(connection)
            connection.execute("COMMIT")
    except (sqlite3.Error, DatabaseError):
        kept.unlink(missing_ok=True)
        raise


def check(file: Path) -> list[str]:
    """What SQLite finds wrong in a database file; nothing where all is well.

    Raises:
        DatabaseError: It cannot be read at all.
    """
    with translated_errors(file), _connected(file) as connection:
        told = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        orphans = [
            f"{table} has a row without {parent}"
            for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check")
        ]
    return [line for line in told if line != "ok"] + sorted(set(orphans))


def _require_ours(file: Path, database: Database) -> None:
    """Raise what reading it raises."""
    if not file.is_file():
        raise DatabaseError(f"there is no file {file}")
    with database.read():
        pass


def _require_sound(file: Path) -> None:
    if wrong := check(file):
        raise DatabaseError(f"{file} is damaged: {wrong[0]}; take an earlier backup")


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[Path]:
    """A copy of a database beside the target, on the disk to its last byte; gone after the block."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with translated_errors(target):
            partial.unlink(missing_ok=True)
            with _connected(source) as connection, closing(sqlite3.connect(partial)) as copy:
                connection.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # all in the one file
        _sync(partial)
        yield partial
    except OSError as error:
        raise DatabaseError(
            f"{target} cannot be written: {error.strerror}; free some space or name another file"
        ) from error
    finally:
        for name in (partial, Path(f"{partial}-journal")):
            with suppress(OSError):
                name.unlink(missing_ok=True)


def _put(source: Path, target: Path) -> None:
    """A copy of a backup as the database where there is none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(f"{target.parent} cannot be made: {error.strerror}; set LOSTFOUND_DATA_DIR") from error
    with _copied(source, target) as partial:
        with translated_errors(target), closing(sqlite3.connect(partial)) as copy:
            copy.execute("PRAGMA journal_mode = WAL")
        partial.replace(target)
        _sync(target.parent)


def _replace_content(connection: sqlite3.Connection) -> None:
    """Within a transaction: every table's rows by those of the attached `backup`."""
    for table in reversed(Base.metadata.sorted_tables):
        connection.execute(f"DELETE FROM main.{table.name}")  # noqa: S608  our own names
    for table in Base.metadata.sorted_tables:
        columns = ", ".join(column.name for column in table.columns)
        connection.execute(f"INSERT INTO main.{table.name} ({columns}) SELECT {columns} FROM backup.{table.name}")  # noqa: S608  our own names
    connection.execute(
        "UPDATE main.sqlite_sequence SET seq = max(seq, coalesce("
        "(SELECT later.seq FROM backup.sqlite_sequence AS later WHERE later.name = sqlite_sequence.name), 0))"
    )
    (lineage,) = connection.execute("PRAGMA main.user_version").fetchone()
    connection.execute(f"PRAGMA main.user_version = {lineage + 1}")


def _is_ruined(error: DatabaseError) -> bool:
    cause = error.__cause__
    return (getattr(getattr(cause, "orig", cause), "sqlite_errorname", None) or "").startswith(RUINED)


def _set_aside(file: Path, kept: Path) -> None:
    """Keep a ruined database, with what belongs to it, under another name."""
    for suffix in ("-wal", "-shm", ""):
        part = Path(f"{file}{suffix}")
        if part.exists():
            part.replace(f"{kept}{suffix}")


@contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection of our own to a file that exists; its transactions are begun by hand."""
    uri = f"{file.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)) as connection:
        yield connection


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
