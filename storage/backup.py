"""Copies of the database: made while others write, put back while others search."""

import os
import secrets
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from search.errors import DatabaseError, SchemaError
from search.whole_file import sync
from storage.database import (
    BUSY_TIMEOUT_MS,
    COMPANIONS,
    Database,
    companions,
    refuse_leftovers,
    revision_of,
    translated_errors,
)
from storage.models import Base
from storage.schema import upgrade

BACKUP_MARK = 0x4C464201
"""SQLite's application_id of a backup: only a file that bears it is replaced by a newer one."""

WRITING_FAILED = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC")


def back_up(database: Database, target: Path) -> None:
    """Copy the database as it is at one moment into a single file, whole and checked; others go on writing.

    Args:
        database: The database.
        target: A new file, or an earlier backup, which is replaced only by a whole new one.

    Raises:
        DatabaseError: The database cannot be read or is damaged, or the target cannot be written or is no backup.
        SchemaError: The database is at another revision.
    """
    target = target.resolve()
    with _told_as(f"the backup {target} cannot be written"), translated_errors(target):
        _require_replaceable(target)
        with _copied(database, target) as partial:
            with closing(sqlite3.connect(partial)) as copy:
                copy.execute(f"PRAGMA application_id = {BACKUP_MARK}")
            _require_whole(partial, database.file)
            if target.exists():  # as private as it was made
                partial.chmod(stat.S_IMODE(partial.stat().st_mode & target.stat().st_mode) | 0o600)
            partial.replace(target)


def restore(database: Database, source: Path) -> Path | None:
    """Put a backup in the place of what the database holds, in one transaction that running searches see at once.

    No id and no change number that was given since the backup is given again, so that no process takes its index of
    the old content for one of the new.

    Args:
        database: The database. It need not exist; a damaged one is to be moved aside by hand first.
        source: A file made by `back_up`.

    Returns:
        The file in which the earlier content is kept, None where there was none.

    Raises:
        DatabaseError: The backup is damaged or no database, or the database is damaged or cannot be written; then
            nothing has changed.
        SchemaError: One of them is at another revision.
    """
    source, file = source.resolve(), database.file.resolve()
    database.require_writable("restore")
    with translated_errors(source):
        if not source.exists():
            raise DatabaseError(f"{source} cannot be restored: there is no such file; name a backup")
        if file.exists() and source.samefile(file):
            raise DatabaseError(f"{source} is the database itself; name a backup")
    with ExitStack() as stack:
        try:
            backup = stack.enter_context(_of_this_revision(source, file.parent))
            wrong = check(backup)
        except DatabaseError as error:
            raise DatabaseError(f"{source} cannot be restored: {_without_advice(error)}") from error
        if wrong:
            raise DatabaseError(f"{source} is damaged: {wrong[0]}; take an earlier backup")
        with _told_as(f"{file} cannot be written"), translated_errors(file):
            if file.exists():
                return _replace(database, file, backup)
            _create(file, backup)
            return None


def check(database: Database) -> list[str]:
    """What SQLite finds wrong in a database; nothing where all is well. Rows without their parent are no part of it.

    Raises:
        DatabaseError: It cannot be read at all.
        SchemaError: It is at another revision.
    """
    with database.read() as session:
        return _faults(_connection(session))


@contextmanager
def _of_this_revision(source: Path, folder: Path) -> Iterator[Database]:
    """The backup, or where an earlier version made it an upgraded copy of it."""
    backup = Database.at(source)
    try:
        with backup.read():
            is_of_this = True
    except SchemaError:
        is_of_this = False
    if is_of_this:
        yield backup
        return
    with translated_errors(source), backup.engine.connect() as connection:
        if revision_of(connection) is None:  # an empty file is an empty database to SQLite
            raise DatabaseError("it is no backup of ours; name another file")
    with _told_as(f"{folder} cannot be written"):
        beside = tempfile.TemporaryDirectory(dir=folder if folder.is_dir() else None, prefix=".restoring-")
    with beside as name:
        copy = Database.at(Path(name) / source.name)
        with _told_as(f"{copy.file} cannot be written"):
            shutil.copyfile(source, copy.file)
        upgrade(copy)
        yield copy


def _without_advice(error: DatabaseError) -> str:
    """What is wrong with a backup: of SQLite's own errors not what to do about them, which is for a database in use."""
    cause = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else error.__cause__
    return f"{cause}; take an earlier backup" if isinstance(cause, sqlite3.Error) else str(error)


def _replace(database: Database, file: Path, backup: Database) -> Path:
    """Keep the present content in another file, then exchange it in one transaction."""
    by_hand = f"move it and what lies beside it aside ({file}-wal, {file}-shm) and run this again"
    try:
        with database.read():
            pass
    except SchemaError:
        raise
    except DatabaseError as error:
        raise DatabaseError(f"{error}; to restore a backup in its place {by_hand}") from error
    uri = f"{file.as_uri()}?mode=rw"
    kept: Path | None = None
    is_committing = False
    try:
        with closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("ATTACH ? AS backup", (f"{backup.file.as_uri()}?mode=ro",))
            connection.execute("BEGIN IMMEDIATE")
            kept = _kept_beside(file, database)  # no other process can commit in between
            _exchange_content(connection)
            if _faults(connection):
                raise DatabaseError(f"{file} is damaged; {by_hand}")  # noqa: TRY301  to be rolled back like any other
            is_committing = True
            connection.execute("COMMIT")
    except BaseException:
        if kept is not None and not is_committing:
            with suppress(OSError):
                kept.unlink()
        raise
    return kept


def _create(file: Path, backup: Database) -> None:
    """The database where there is none."""
    refuse_leftovers(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with _copied(backup, file) as partial:
        with closing(sqlite3.connect(partial)) as copy:
            copy.execute("PRAGMA application_id = 0")
            copy.execute("PRAGMA journal_mode = WAL")
        sync(partial)
        os.link(partial, file)  # unlike a rename it fails where somebody was faster


def _kept_beside(file: Path, database: Database) -> Path:
    """A copy of the present content under a name that is not taken."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = file.with_name(f"{file.stem}-before-restore-{now}-{secrets.token_hex(3)}.db")
    with _copied(database, kept) as partial:
        partial.replace(kept)
    return kept


def _exchange_content(connection: sqlite3.Connection) -> None:
    """Within a transaction: every table's rows by those of the attached `backup`."""
    tables = Base.metadata.sorted_tables
    for table in reversed(tables):
        connection.execute(f"DELETE FROM main.{table.name}")  # noqa: S608  our own names
    for table in tables:
        columns = ", ".join(column.name for column in table.columns)
        connection.execute(f"INSERT INTO main.{table.name} ({columns}) SELECT {columns} FROM backup.{table.name}")  # noqa: S608
    connection.execute(
        "UPDATE main.sqlite_sequence SET seq = max(seq, coalesce("
        "(SELECT later.seq FROM backup.sqlite_sequence AS later WHERE later.name = sqlite_sequence.name), 0))"
    )


def _require_whole(copy: Path, original: Path) -> None:
    try:
        wrong = check(Database.at(copy))
    except DatabaseError:
        wrong = ["it cannot be read to its end"]
    if wrong:
        raise DatabaseError(
            f"{original} is damaged: {wrong[0]}; put an earlier backup back, `lostfound restore BACKUP`"
        )


def _faults(connection: sqlite3.Connection) -> list[str]:
    return [line for (line,) in connection.execute("PRAGMA main.integrity_check") if line != "ok"]


def _require_replaceable(target: Path) -> None:
    if target.is_dir():
        raise DatabaseError(f"{target} is a folder; name a file in it")
    refuse_leftovers(target)
    if not target.exists():
        return
    if not target.is_file():  # SQLite would wait at a pipe for ever
        raise DatabaseError(f"{target} is there and no backup of ours; name another file")
    if companions(target):
        raise DatabaseError(f"{target} is in use as a database; name another file for the backup")
    with closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            (mark,) = connection.execute("PRAGMA application_id").fetchone()
        except sqlite3.DatabaseError:
            mark = None
    if mark != BACKUP_MARK:
        raise DatabaseError(f"{target} is there and no backup of ours; name another file")


@contextmanager
def _copied(database: Database, target: Path) -> Iterator[Path]:
    """A copy of a database beside the target, in one file and on the disk; what is left of it is gone after the block.

    Whatever the block makes of it, the names in the folder are on the disk too when it ends.
    """
    handle, name = tempfile.mkstemp(".partial", f"{target.name}.", target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        with database.read() as session, closing(sqlite3.connect(partial)) as copy:
            try:
                _connection(session).backup(copy, progress=_within(BUSY_TIMEOUT_MS / 1000))
                copy.execute("PRAGMA journal_mode = DELETE")  # all in the one file
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname.startswith(WRITING_FAILED):
                    raise DatabaseError(
                        f"{target} cannot be written, its disk is full or failed ({error}); free some space there"
                    ) from error
                raise
        partial.chmod(stat.S_IMODE(database.file.stat().st_mode) | stat.S_IWUSR)  # of a write-protected backup too
        sync(partial)
        yield partial
        sync(target.parent)
    finally:
        for end in ("", *COMPANIONS):
            Path(f"{partial}{end}").unlink(missing_ok=True)


def _connection(session: Session) -> sqlite3.Connection:
    connection = session.connection().connection.driver_connection
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(f"{connection!r} is no connection of sqlite3")
    return connection


def _within(seconds: float) -> Callable[[int, int, int], None]:
    """Ends a copy that another process keeps waiting; sqlite3 itself would wait for ever."""
    began = time.monotonic()

    def progress(status: int, _remaining: int, _total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() - began > seconds:
            raise DatabaseError(f"the database has been held by another process for {seconds:.0f} s; try again")

    return progress


@contextmanager
def _told_as(what: str) -> Iterator[None]:
    """Turn the errors of the file system inside the block into a `DatabaseError` that begins so."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(f"{what}: {error.strerror}; free some space or correct the permissions") from error
