"""Create and upgrade the schema with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import inspect

import migrations
from search.errors import DatabaseError, SchemaError
from storage.database import Database, refuse_leftovers, revision_of, translated_errors


def alembic_config(database: Database) -> Config:
    """The Alembic configuration for this database; the same migrations as `alembic.ini` names."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["database"] = database
    return config


def upgrade(database: Database) -> None:
    """Create the database, or bring it to the newest revision; all of it or nothing.

    Raises:
        SchemaError: The database is at a revision that this version does not know, or is another application's.
        DatabaseError: The file cannot be written, or is gone and has left a log behind.
    """
    try:
        database.file.parent.mkdir(parents=True, exist_ok=True)
        refuse_leftovers(database.file)
    except OSError as error:
        raise DatabaseError(
            f"{database.file.parent} cannot be made: {error.strerror}; set LOSTFOUND_DATA_DIR"
        ) from error
    with translated_errors(database.file):
        with database.engine.connect() as connection:
            if revision_of(connection) is None and set(inspect(connection).get_table_names()) - {"alembic_version"}:
                raise SchemaError(f"{database.file} holds tables but no revision of ours; name another file")
            connection.rollback()
            connection.connection.execute("PRAGMA journal_mode = WAL")  # kept in the file from then on
        try:
            command.upgrade(alembic_config(database), "head")
        except CommandError as error:
            raise SchemaError(f"{database.file}: {error}; if a newer lostfound made it, install that one") from error
