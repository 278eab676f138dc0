from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from search.errors import DatabaseError, SchemaError
from search.ingest import Ingest
from storage import orphans
from storage.database import REVISION, Database
from storage.schema import alembic_config, upgrade

INI = Path(__file__).parent.parent / "alembic.ini"


@pytest.fixture
def empty(tmp_path: Path) -> Database:
    return Database.at(tmp_path / "office" / "lostfound.db")


def tables(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def test_the_revision_in_the_code_is_the_newest_migration(empty: Database) -> None:
    assert ScriptDirectory.from_config(alembic_config(empty)).get_heads() == [REVISION]


def test_upgrade_makes_the_schema_in_an_empty_file_and_again_changes_nothing(empty: Database) -> None:
    upgrade(empty)
    upgrade(empty)
    assert tables(empty) == {"items", "item_vectors", "changes", "alembic_version"}
    with empty.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_alembic_by_hand_upgrades_the_database_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSTFOUND_DATA_DIR", str(tmp_path))
    command.upgrade(Config(INI), "head")
    command.check(Config(INI))
    assert "items" in tables(Database.at(tmp_path / "lostfound.db"))


def test_alembic_check_finds_no_difference_between_models_and_migrations(empty: Database) -> None:
    upgrade(empty)
    command.check(alembic_config(empty))


def test_a_populated_database_can_be_downgraded_and_upgraded(
    database: Database, ingest: Ingest, umbrellas: list[str]
) -> None:
    command.downgrade(alembic_config(database), "base")
    assert tables(database) == {"alembic_version"}
    upgrade(database)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM items")) == 0


def test_a_row_without_its_item_keeps_nobody_from_an_upgrade_after_which_the_doctor_mends_it(empty: Database) -> None:
    upgrade(empty)
    command.downgrade(alembic_config(empty), "0001")
    with empty.engine.connect() as connection:
        connection.connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(text("INSERT INTO changes (item_id, changed_at) VALUES (7, '2026-01-01')"))
        connection.commit()
    upgrade(empty)
    with empty.read() as session:
        assert orphans.count(session) == 1
    with empty.write() as session:
        orphans.delete_all(session)
    with empty.read() as session:
        assert orphans.count(session) == 0


def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(empty: Database) -> None:
    upgrade(empty)
    with empty.engine.begin() as connection:
        connection.execute(text("DROP TABLE item_vectors"))
    with pytest.raises(Exception, match="no such table: item_vectors"):  # after `changes` was dropped
        command.downgrade(alembic_config(empty), "base")
    assert tables(empty) == {"items", "changes", "alembic_version"}


@pytest.mark.parametrize("revision", ["9999", "0000"])
def test_a_database_of_another_revision_is_refused_with_the_command_that_mends_it(
    database: Database, revision: str
) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    with pytest.raises(SchemaError, match=f"revision {revision}.*lostfound init"), database.read():
        pass
    with pytest.raises(SchemaError, match="newer lostfound"):
        upgrade(database)


def test_a_database_of_another_application_is_left_alone(empty: Database) -> None:
    empty.file.parent.mkdir()
    with empty.engine.begin() as connection:
        connection.execute(text("CREATE TABLE items (id INTEGER)"))
    with pytest.raises(SchemaError, match="name another file"):
        upgrade(empty)
    assert tables(empty) == {"items"}


def test_a_database_without_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lostfound.db").touch()
    with pytest.raises(SchemaError, match="lostfound init"), Database.at(tmp_path / "lostfound.db").read():
        pass


def test_a_missing_database_is_named_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "lostfound.db"
    with pytest.raises(DatabaseError, match=r"no database at .*lostfound init"), Database.at(path).read():
        pass
    assert not path.exists()
