"""One SQLite database: connections, transactions, and the errors of the disk below."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from search.errors import DatabaseError, SchemaError, SettingsError

REVISION = "0001"
"""The newest revision under `migrations/`, kept here so that no command imports Alembic to check it."""

BUSY_TIMEOUT_MS = 30_000
"""How long a writer waits for another one. An import holds the lock for one batch, well under a second."""


class Database:
    """An SQLite database in WAL mode: many readers beside one writer.

    Readers see one snapshot for the whole `with` block; writers take the write lock at its start,
    so change numbers are given in the order of the commits.
    """

    def __init__(self, url: str) -> None:
        self.url = _sqlite_url(url)
        self.engine = create_engine(self.url)
        event.listen(self.engine, "connect", _configure_connection)
        event.listen(self.engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session over one snapshot.

        Raises:
            DatabaseError: The database is missing, damaged or unreadable.
            SchemaError: It is at another revision.
        """
        with self._session("BEGIN") as session, session.no_autoflush:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that holds the write lock; commits at the end, or nothing at all on an error.

        Raises:
            DatabaseError: The database is missing, damaged, full, locked or not writable.
            SchemaError: It is at another revision.
        """
        with self._session("BEGIN IMMEDIATE") as session:
            yield session
            session.commit()

    @contextmanager
    def _session(self, begin: str) -> Iterator[Session]:
        self._require_file()
        bound = self.engine.execution_options(begin=begin)
        with translated_errors(self.url), Session(bound, expire_on_commit=False) as session:
            _check_revision(session.connection(), self.url)
            yield session

    def _require_file(self) -> None:
        """Opening would create an empty file, and later say that tables are missing."""
        path = database_file(self.url)
        if not path.exists():
            raise DatabaseError(f"no database at {path}; create it with `lostfound init`")


def database_file(url: URL) -> Path:
    """The file behind an SQLite URL, `sqlite:///file:...?mode=ro&uri=true` included."""
    return Path(str(url.database).removeprefix("file:").partition("?")[0])


@contextmanager
def translated_errors(url: URL) -> Iterator[None]:
    """Turn what SQLite raises inside the block into a `DatabaseError` that says what to do."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorname", "")
        for prefix, advice in _ADVICE.items():
            if code.startswith(prefix):
                raise DatabaseError(f"{database_file(url)}: {advice} ({cause})") from error
        raise DatabaseError(f"{database_file(url)}: {cause}") from error


_ADVICE = {
    "SQLITE_FULL": "the disk is full; nothing of this step was stored, free some space and repeat it",
    "SQLITE_IOERR": "the disk failed or is full; nothing of this step was stored, check it and repeat",
    "SQLITE_READONLY": "the database is read-only; check the permissions of the file and its folder",
    "SQLITE_BUSY": f"another process has held the database for {BUSY_TIMEOUT_MS // 1000} s; try again",
    "SQLITE_CANTOPEN": "cannot be opened; check that its folder exists and the permissions",
    "SQLITE_NOTADB": "is not an SQLite database; name another one with LOSTFOUND_DATABASE_URL",
    "SQLITE_CORRUPT": "the database is damaged; put a backup in its place",
}


def _sqlite_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError(
            f"LOSTFOUND_DATABASE_URL = {url!r} is no URL; write sqlite:///path/to/lostfound.db"
        ) from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or ":memory:" in parsed.database:
        raise SettingsError(
            f"LOSTFOUND_DATABASE_URL = {url!r} names no SQLite file; write sqlite:///path/to/lostfound.db"
        )
    return parsed


def _configure_connection(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin alone
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",  # a committed item survives a power cut
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _check_revision(connection: Connection, url: URL) -> None:
    known = connection.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"))
    revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if known else None
    if revision != REVISION:
        raise SchemaError(
            f"{database_file(url)} is at revision {revision or 'none'}, this version of lostfound needs {REVISION}; "
            "run `lostfound init` (a newer revision needs a newer lostfound)"
        )
