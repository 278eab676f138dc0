"""Create, upgrade and inspect the schema with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

import migrations
from search.errors import SchemaError
from storage.database import Database, database_file, translated_errors


def alembic_config(database: Database) -> Config:
    """The Alembic configuration for this database; the same migrations as `alembic.ini` names."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["database"] = database
    return config


def upgrade(database: Database) -> None:
    """Create the database, or bring it to the newest revision; all of it or nothing.

    Raises:
        SchemaError: The database is at a revision that this version does not know.
        DatabaseError: The file cannot be written.
    """
    path = database_file(database.url)
    with translated_errors(database.url):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            command.upgrade(alembic_config(database), "head")
        except CommandError as error:
            raise SchemaError(f"{path}: {error}; it was made by a newer lostfound, install that one") from error
        except OSError as error:
            raise SchemaError(f"{path.parent} cannot be made: {error.strerror}; set LOSTFOUND_DATA_DIR") from error
