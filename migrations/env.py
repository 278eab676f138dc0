"""Alembic's entry: one connection, one transaction for the whole run."""

from alembic import context
from sqlalchemy import text

from search.settings import load_settings
from storage.database import Database
from storage.models import Base

FOREIGN_KEYS = text("PRAGMA foreign_key_check")


def run_migrations() -> None:
    """Run the migrations on the database given by `storage.schema`, or else by the settings."""
    database = context.config.attributes.get("database") or Database.of(load_settings())
    engine = database.engine.execution_options(begin="BEGIN IMMEDIATE")
    with engine.connect() as connection:
        # Batch mode copies a table and drops the old one, which foreign keys would forbid; checked below instead.
        connection.connection.driver_connection.execute("PRAGMA foreign_keys = OFF")
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True
        )
        with context.begin_transaction():
            before = connection.execute(FOREIGN_KEYS).all()  # the doctor mends these, once the schema is the newest
            context.run_migrations()
            broken = [row for row in connection.execute(FOREIGN_KEYS) if row not in before]
            if broken:
                raise RuntimeError(f"the migration breaks {len(broken)} foreign keys, first: {broken[0]}")


run_migrations()
