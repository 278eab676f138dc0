"""One SQLite database: connections, transactions, and the errors of the disk below."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from search.errors import DatabaseError, SchemaError, SettingsError
from search.settings import Settings

REVISION = "0002"
"""The newest revision under `migrations/`, kept here so that no command imports Alembic to check it."""

BUSY_TIMEOUT_MS = 30_000
"""How long a writer waits for another one. An import holds the lock for one batch, well under a second."""

COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database. Left from an earlier one, it would be played into whatever takes its place, or
be deleted though it may hold the newest items."""

URL_OPTIONS = {"mode", "uri", "immutable"}
"""What may follow the `?` of a database URL."""


class Database:
    """An SQLite database in WAL mode: many readers beside one writer.

    A session has a connection of its own, closed with it. Readers see one snapshot for the whole `with` block;
    writers take the write lock at its start, so change numbers are given in the order of the commits.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.file = database_file(url)
        self.engine = create_engine(url, poolclass=NullPool)
        event.listen(self.engine, "connect", _configure_connection)
        event.listen(self.engine, "begin", _begin)

    @classmethod
    def of(cls, settings: Settings) -> "Database":
        """The database that the settings name; it need not exist yet.

        Raises:
            SettingsError: `LOSTFOUND_DATABASE_URL` is not the URL of an SQLite file.
        """
        if settings.database_url:
            return cls(_sqlite_url(settings.database_url))
        return cls.at(settings.data_dir / "lostfound.db")

    @classmethod
    def at(cls, file: Path) -> "Database":
        """The database in this file; it need not exist yet."""
        return cls(URL.create("sqlite", database=str(file)))

    @property
    def index_folder(self) -> Path:
        """Where the indexes of its vectors are."""
        return Path(f"{os.path.realpath(self.file)}.index")

    @property
    def is_read_only(self) -> bool:
        """Whether its URL says that nothing is to be written; it may not see what others have written of late."""
        return self.url.query.get("mode") == "ro" or "immutable" in self.url.query

    def require_writable(self, purpose: str) -> None:
        """Refuse to `purpose` what is opened to read only.

        Raises:
            DatabaseError: It is.
        """
        if self.is_read_only:
            raise DatabaseError(
                f"{self.url.render_as_string()} is opened to read only; take the options out to {purpose}"
            )

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
        bound = self.engine.execution_options(begin=begin)
        with translated_errors(self.file):
            if not self.file.exists():  # opening would create an empty file
                raise DatabaseError(f"no database at {self.file}; create it with `lostfound init`")
            with Session(bound, expire_on_commit=False) as session:
                _check_revision(session.connection(), self.file)
                yield session


def database_file(url: URL) -> Path:
    """The file behind an SQLite URL, `sqlite:///file:...?mode=ro&uri=true` included."""
    name = str(url.database)
    return Path(name.removeprefix("file:").partition("?")[0]) if name.startswith("file:") else Path(name)


def companions(file: Path) -> list[Path]:
    """What there is beside a database, see `COMPANIONS`."""
    return [companion for end in COMPANIONS if (companion := Path(f"{file}{end}")).exists()]


def refuse_leftovers(file: Path) -> None:
    """Of a database that is gone, where another is to be made.

    Raises:
        DatabaseError: There are some.
    """
    left = companions(file)
    if left and not file.exists():  # asked last: SQLite makes the database before what lies beside it
        raise DatabaseError(
            f"{left[0]} is left from a database that is gone, whose newest items it may hold; put that back, or move "
            "this aside, and run this again"
        )


@contextmanager
def translated_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite raises inside the block, and refused access, into a `DatabaseError` that says what to do."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorname", "")
        advice = next((advice for prefix, advice in _ADVICE.items() if code.startswith(prefix)), "")
        raise DatabaseError(f"{file} {advice} ({cause})" if advice else f"{file}: {cause}") from error
    except PermissionError as error:
        raise DatabaseError(f"{error.filename} may not be used by this user: {error.strerror}") from error


_ADVICE = {
    "SQLITE_FULL": "does not fit on the disk; nothing of this step was stored, free some space and repeat it",
    "SQLITE_IOERR": "cannot be written, the disk failed or is full; nothing of this step was stored, repeat it",
    "SQLITE_READONLY": "is read-only; correct the permissions of the file and its folder, or, only to search one "
    "that nobody writes, set LOSTFOUND_DATABASE_URL=sqlite:///file:PATH?immutable=1&uri=true",
    "SQLITE_BUSY": f"has been held by another process for {BUSY_TIMEOUT_MS // 1000} s; try again",
    "SQLITE_CANTOPEN": "cannot be opened; check that its folder exists and the permissions",
    "SQLITE_NOTADB": "is not an SQLite database; name another file with LOSTFOUND_DATABASE_URL, or, if it was one, "
    "move it aside, with its -wal and -shm, and run `lostfound restore BACKUP`",
    "SQLITE_CORRUPT": "is damaged; move it aside, with its -wal and -shm, and run `lostfound restore BACKUP`",
}


def _sqlite_url(url: str) -> URL:
    example = "write sqlite:///path/to/lostfound.db"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError(f"LOSTFOUND_DATABASE_URL is no URL; {example}") from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite") or parsed.host or not parsed.database:
        raise SettingsError(f"LOSTFOUND_DATABASE_URL = {shown!r} names no SQLite file; {example}")
    if ":memory:" in parsed.database or parsed.query.get("mode") == "memory" or set(parsed.query) - URL_OPTIONS:
        raise SettingsError(f"LOSTFOUND_DATABASE_URL = {shown!r} has options that lostfound cannot use; {example}")
    is_uri = parsed.database.startswith("file:")
    if (is_uri or parsed.query) and not (is_uri and parsed.query.get("uri") == "true"):  # SQLite would pass over them
        raise SettingsError(
            f"LOSTFOUND_DATABASE_URL = {shown!r}: options are for URIs; write sqlite:///file:PATH?mode=ro&uri=true"
        )
    return parsed


def _configure_connection(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin alone
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA synchronous = FULL")  # a committed item survives a power cut
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema, None for a database that has none."""
    if not connection.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'")):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _check_revision(connection: Connection, file: Path) -> None:
    revision = revision_of(connection)
    if revision != REVISION:
        raise SchemaError(
            f"{file} is at revision {revision or 'none'}, this version of lostfound needs {REVISION}; "
            "run `lostfound init` (a newer revision needs a newer lostfound)"
        )
