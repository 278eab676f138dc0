"""Backups made while others write, restored while others search, and killed at any moment."""

import os
import random
import re
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import make_url

from search.encoder import BiEncoder
from search.errors import DatabaseError
from search.ingest import Ingest
from search.item_input import ImportedItem, ItemUpdate, NewItem
from search.pipeline import Request, SearchPipeline
from storage import changes, items
from storage.backup import back_up, check, restore
from storage.database import Database
from storage.models import Status
from storage.schema import alembic_config, upgrade

ALL = Request(show_all=True)

KILLER = Path(__file__).parent / "restore_killer.py"


def references(database: Database) -> set[str]:
    with database.read() as session:
        return {item.reference for item in items.by_ids(session, items.ids_after(session, 0, 10_000)).values()}


def found(pipeline: SearchPipeline) -> set[str]:
    return {match.reference for match in pipeline.search("umbrella", ALL).matches}


def test_a_backup_is_whole_while_others_write(database: Database, ingest: Ingest, tmp_path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        for batch in range(1000):
            rows = [ImportedItem(reference=f"B-{batch}-{n}", description=f"hat {n}") for n in range(5)]
            ingest.upsert(rows)
            if done.is_set():
                break

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    for number in range(8):
        back_up(database, tmp_path / "backup.db")
        counts.append(len(references(Database.at(tmp_path / "backup.db"))))
        assert check(Database.at(tmp_path / "backup.db")) == [], number
    done.set()
    writer.join()
    assert all(count % 5 == 0 for count in counts)
    assert counts == sorted(counts)
    assert {path.name for path in tmp_path.glob("backup*")} == {"backup.db"}


def test_running_searches_see_a_restored_backup_at_once(
    database: Database, ingest: Ingest, pipeline: SearchPipeline, umbrellas: list[str], tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    before = found(pipeline)
    later = ingest.add(NewItem(reference="U-6", description="a later umbrella"))
    ingest.withdraw("U-1", Status.RETURNED)
    ingest.update("U-2", ItemUpdate(description="a sun shade"))
    assert found(pipeline) == (before - {"U-1"}) | {"U-6"}
    with database.read() as session:
        newest = changes.newest(session).number

    kept = restore(database, tmp_path / "backup.db")
    assert found(pipeline) == before
    assert kept is not None
    assert references(Database.at(kept)) == before | {"U-6"}
    assert check(database) == []
    again = ingest.add(NewItem(reference="U-7", description="a new umbrella"))
    assert again.id > later.id
    with database.read() as session:
        assert changes.newest(session).number > newest
    assert found(pipeline) == before | {"U-7"}


def test_a_backup_though_write_protected_makes_a_database_to_write_where_there_is_none(
    database: Database, umbrellas: list[str], tmp_path: Path, encoder: BiEncoder
) -> None:
    back_up(database, tmp_path / "backup.db")
    (tmp_path / "backup.db").chmod(0o444)
    other = Database.at(tmp_path / "other" / "office" / "lostfound.db")
    assert restore(other, tmp_path / "backup.db") is None
    assert references(other) == set(umbrellas)
    assert other.file.stat().st_mode & 0o777 == 0o644
    Ingest(other, encoder).add(NewItem(description="a hat"))


@pytest.mark.parametrize("ruin", [b"no database at all" * 1000, b""])
def test_a_ruined_database_is_moved_aside_by_hand_alone(
    database: Database, umbrellas: list[str], tmp_path: Path, ruin: bytes
) -> None:
    back_up(database, tmp_path / "backup.db")
    database.file.write_bytes(ruin)
    with pytest.raises(DatabaseError, match=r"lostfound\.db"):
        restore(database, tmp_path / "backup.db")
    assert database.file.read_bytes() == ruin
    database.file.rename(tmp_path / "ruined.db")
    (tmp_path / "lostfound.db-wal").write_bytes(b"what a killed process left")
    with pytest.raises(DatabaseError, match=r"lostfound\.db-wal is left from a database that is gone"):
        restore(database, tmp_path / "backup.db")
    with pytest.raises(DatabaseError, match="is left from a database that is gone"):
        upgrade(database)
    assert (tmp_path / "lostfound.db-wal").exists()
    for left in tmp_path.glob("lostfound.db-*"):
        left.unlink()
    assert restore(database, tmp_path / "backup.db") is None
    assert references(database) == set(umbrellas)


def test_a_running_search_takes_no_index_over_into_a_database_put_in_its_place(
    database: Database, ingest: Ingest, pipeline: SearchPipeline, umbrellas: list[str], tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    ingest.add(NewItem(reference="L-1", description="lost by the restore"))
    assert "L-1" in found(pipeline)
    for file in tmp_path.glob("lostfound.db*"):
        file.unlink()
    restore(database, tmp_path / "backup.db")
    ingest.add(NewItem(reference="U-6", description="another umbrella"))  # the same id and change number as L-1 had
    assert found(pipeline) == {*umbrellas, "U-6"}


def test_a_damaged_database_makes_no_backup_and_a_damaged_backup_is_not_restored(
    database: Database, ingest: Ingest, tmp_path: Path
) -> None:
    ingest.upsert([ImportedItem(reference=f"H-{n}", description=f"a hat, {n} " * 50) for n in range(200)])
    back_up(database, tmp_path / "backup.db")
    good = (tmp_path / "backup.db").read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2 : len(good) // 2 + 3000] = random.Random(1).randbytes(3000)
    (tmp_path / "damaged.db").write_bytes(damaged)
    with pytest.raises(DatabaseError, match=r"damaged\.db (is damaged|cannot be restored)"):
        restore(database, tmp_path / "damaged.db")
    with pytest.raises(DatabaseError, match=r"damaged\.db is damaged"):
        back_up(Database.at(tmp_path / "damaged.db"), tmp_path / "backup.db")
    with pytest.raises(DatabaseError, match=r"damaged\.db is damaged"):
        restore(Database.at(tmp_path / "damaged.db"), tmp_path / "backup.db")
    assert (tmp_path / "backup.db").read_bytes() == good
    assert len(references(database)) == 200


def test_nothing_but_a_backup_is_replaced_by_a_backup(database: Database, umbrellas: list[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work " * 100)
    other = Database.at(tmp_path / "other.db")
    upgrade(other)
    (tmp_path / "link.db").symlink_to(database.file)
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "gone.db-wal").touch()
    for name, message in (
        ("thesis.txt", "no backup of ours"),
        ("other.db", "no backup of ours"),
        ("lostfound.db", "no backup of ours|in use"),
        ("link.db", "no backup of ours|in use"),
        ("pipe.db", "no backup of ours"),
        (".", "is a folder"),
        ("gone.db", "gone.db-wal is left from a database that is gone"),
        ("missing/backup.db", "cannot be written: No such file"),
        ("x" * 300, "cannot be written: File name too long"),
    ):
        with pytest.raises(DatabaseError, match=message):
            back_up(database, tmp_path / name)
    assert references(database) == set(umbrellas)
    assert (tmp_path / "thesis.txt").read_text().startswith("three years")


def test_only_a_backup_is_restored_and_only_into_a_database_that_is_written(
    database: Database, umbrellas: list[str], tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    (tmp_path / "thesis.txt").write_text("three years of work " * 100)
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("PRAGMA user_version = 7")  # an SQLite file without a table
    for name, why in (
        ("nothing.db", "there is no such file"),
        ("thesis.txt", "file is not a database; take an earlier backup"),
        (".", "unable to open database file"),
        ("empty.db", "no backup of ours"),
        ("other.db", "no backup of ours"),
    ):
        for target in (database, Database.at(tmp_path / "new.db")):
            with pytest.raises(DatabaseError, match=f"cannot be restored: .*{why}"):
                restore(target, tmp_path / name)
            assert not (tmp_path / "new.db").exists()
    with pytest.raises(DatabaseError, match="is the database itself"):
        restore(database, database.file)
    read_only = Database(make_url(f"sqlite:///file:{database.file}?mode=ro&uri=true"))
    with pytest.raises(DatabaseError, match="read only"):
        restore(read_only, tmp_path / "backup.db")
    assert references(database) == set(umbrellas)
    assert {path.name for path in tmp_path.iterdir()} >= {"lostfound.db", "backup.db", "thesis.txt"}
    assert not list(tmp_path.glob("*before-restore*"))


def test_a_backup_of_an_earlier_version_is_restored(
    database: Database, ingest: Ingest, umbrellas: list[str], tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    command.downgrade(alembic_config(Database.at(tmp_path / "backup.db")), "0001")
    before = (tmp_path / "backup.db").read_bytes()
    ingest.withdraw("U-1", Status.RETURNED)
    restore(database, tmp_path / "backup.db")
    assert references(database) == set(umbrellas)
    other = Database.at(tmp_path / "other.db")
    restore(other, tmp_path / "backup.db")
    assert references(other) == set(umbrellas)
    assert (tmp_path / "backup.db").read_bytes() == before
    assert not list(tmp_path.glob(".restoring-*"))


def test_two_restores_in_one_second_keep_both_earlier_contents(
    database: Database, ingest: Ingest, tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    kept = []
    for reference in ("H-1", "H-2"):
        ingest.add(NewItem(reference=reference, description="a hat"))
        path = restore(database, tmp_path / "backup.db")
        assert path is not None
        kept.append(references(Database.at(path)))
    assert kept == [{"H-1"}, {"H-2"}]
    assert references(database) == set()


def test_a_reference_given_before_a_restore_is_not_given_again(
    database: Database, ingest: Ingest, tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    given = ingest.add(NewItem(description="a hat")).reference
    restore(database, tmp_path / "backup.db")
    assert ingest.add(NewItem(description="an umbrella")).reference != given


def test_a_full_disk_leaves_the_earlier_backup_and_the_database(
    database: Database, ingest: Ingest, umbrellas: list[str], tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    good = (tmp_path / "backup.db").read_bytes()
    ingest.add(NewItem(reference="U-6", description="another umbrella"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limit[1]))
    try:
        with pytest.raises(DatabaseError, match=r"backup.db cannot be written, its disk is full or failed"):
            back_up(database, tmp_path / "backup.db")
        with pytest.raises(DatabaseError, match=r"full|cannot be written"):
            restore(database, tmp_path / "backup.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / "backup.db").read_bytes() == good
    assert references(database) == {*umbrellas, "U-6"}
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.slow
def test_a_restore_killed_at_any_line_or_out_of_disk_leaves_the_old_content_or_the_new(
    database: Database, ingest: Ingest, tmp_path: Path
) -> None:
    ingest.upsert([ImportedItem(reference=f"H-{n}", description=f"a hat, {n} " * 20) for n in range(300)])
    back_up(database, tmp_path / "backup.db")
    ingest.upsert([ImportedItem(reference=f"U-{n}", description="an umbrella") for n in range(200)])
    back_up(database, tmp_path / "present.db")
    files = [str(database.file), str(tmp_path / "backup.db"), str(tmp_path / "present.db")]
    done = subprocess.run([sys.executable, str(KILLER), *files], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills, outcomes, refused = re.fullmatch(r"(\d+) (\[.*\]) (\d+)\n", done.stdout).groups()  # type: ignore[union-attr]
    assert int(kills) > 100
    assert outcomes == "[300, 500]"
    assert int(refused) >= 3


def test_the_commands_say_where_things_are(lostfound: Callable[..., tuple[int, str, str]], office: Path) -> None:
    lostfound("init")
    lostfound("add", "a red hat", "--reference", "H-1")
    code, out, _ = lostfound("backup", "backup.db")
    assert (code, out) == (0, "backup.db holds the database as it is now.\n")
    lostfound("add", "a green hat", "--reference", "H-2")
    code, out, _ = lostfound("restore", "backup.db")
    (kept,) = office.glob("lostfound-before-restore-*.db")
    assert (code, str(kept) in out) == (0, True)
    assert lostfound("show", "H-1")[0] == 0
    assert lostfound("show", "H-2")[0] == 1
    code, _, error = lostfound("restore", "nothing.db")
    assert (code, "nothing.db cannot be restored" in error) == (1, True)
