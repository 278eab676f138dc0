"""Backups made while others write, restored while others search, and killed at any moment."""

import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.errors import DatabaseError, SchemaError
from search.ingest import Ingest
from search.item_input import ImportedItem, ItemUpdate, NewItem
from search.pipeline import Request, SearchPipeline
from storage import changes, items
from storage.backup import back_up, check, restore
from storage.database import Database
from storage.models import Status

ALL = Request(show_all=True)


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
        assert check(tmp_path / "backup.db") == [], number
    done.set()
    writer.join()
    assert all(count % 5 == 0 for count in counts)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
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
        newest = changes.last_number(session)

    kept = restore(database, tmp_path / "backup.db")
    assert found(pipeline) == before
    assert kept is not None
    assert references(Database.at(kept)) == before | {"U-6"}
    assert check(database.file) == []
    again = ingest.add(NewItem(reference="U-7", description="a new umbrella"))
    assert again.id > later.id
    with database.read() as session:
        assert changes.last_number(session) > newest
    assert found(pipeline) == before | {"U-7"}


def test_a_backup_makes_a_database_where_there_is_none(
    database: Database, umbrellas: list[str], tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    other = Database.at(tmp_path / "other" / "office" / "lostfound.db")
    assert restore(other, tmp_path / "backup.db") is None
    assert references(other) == set(umbrellas)


@pytest.mark.parametrize("ruin", [b"no database at all" * 1000, b""])
def test_a_ruined_database_is_kept_and_replaced(
    database: Database, umbrellas: list[str], tmp_path: Path, ruin: bytes
) -> None:
    back_up(database, tmp_path / "backup.db")
    database.file.write_bytes(ruin)
    if not ruin:  # an empty file is a database without tables
        with pytest.raises(SchemaError):
            back_up(database, tmp_path / "backup.db")
    kept = restore(database, tmp_path / "backup.db")
    assert kept is not None
    assert kept.read_bytes() == ruin
    assert references(database) == set(umbrellas)


def test_a_damaged_database_makes_no_backup_and_a_damaged_backup_is_not_restored(
    database: Database, ingest: Ingest, tmp_path: Path
) -> None:
    ingest.upsert([ImportedItem(reference=f"H-{n}", description=f"a hat, {n} " * 50) for n in range(200)])
    back_up(database, tmp_path / "backup.db")
    good = (tmp_path / "backup.db").read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2 : len(good) // 2 + 3000] = random.Random(1).randbytes(3000)
    (tmp_path / "damaged.db").write_bytes(damaged)
    with pytest.raises(DatabaseError, match="damaged"):
        restore(database, tmp_path / "damaged.db")
    with pytest.raises(DatabaseError, match="damaged"):
        back_up(Database.at(tmp_path / "damaged.db"), tmp_path / "backup.db")
    assert (tmp_path / "backup.db").read_bytes() == good
    assert len(references(database)) == 200


def test_nothing_else_is_replaced_by_a_backup(database: Database, umbrellas: list[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work " * 100)
    with pytest.raises(DatabaseError, match=r"thesis\.txt"):
        back_up(database, tmp_path / "thesis.txt")
    with pytest.raises(DatabaseError, match="is the database itself"):
        back_up(database, database.file)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE accounts (id)")
    other.close()
    with pytest.raises(SchemaError):
        back_up(database, tmp_path / "other.db")
    with pytest.raises(DatabaseError, match="there is no file"):
        restore(database, tmp_path / "nothing.db")
    assert references(database) == set(umbrellas)


def test_a_full_disk_leaves_the_earlier_backup_and_the_database(
    database: Database, ingest: Ingest, umbrellas: list[str], tmp_path: Path
) -> None:
    back_up(database, tmp_path / "backup.db")
    good = (tmp_path / "backup.db").read_bytes()
    ingest.add(NewItem(reference="U-6", description="another umbrella"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(DatabaseError, match=r"full|cannot be written"):
            back_up(database, tmp_path / "backup.db")
        with pytest.raises(DatabaseError, match=r"full|cannot be written"):
            restore(database, tmp_path / "backup.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / "backup.db").read_bytes() == good
    assert references(database) == {*umbrellas, "U-6"}
    assert not list(tmp_path.glob("*partial*"))


RESTORE = """
import sys
from pathlib import Path
from storage.backup import restore
from storage.database import Database
print("ready", flush=True)
restore(Database.at(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_restore_killed_at_any_moment_leaves_the_old_content_or_the_new(
    database: Database, ingest: Ingest, tmp_path: Path
) -> None:
    ingest.upsert([ImportedItem(reference=f"H-{n}", description=f"a hat, {n} " * 20) for n in range(600)])
    back_up(database, tmp_path / "backup.db")
    ingest.upsert([ImportedItem(reference=f"U-{n}", description="an umbrella") for n in range(300)])
    old, new = references(database), references(Database.at(tmp_path / "backup.db"))
    back_up(database, tmp_path / "present.db")
    rng = random.Random(1)
    seen = set()
    for _ in range(20):
        command = [sys.executable, "-c", RESTORE, str(database.file), str(tmp_path / "backup.db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        content = references(database)
        assert content in (old, new)
        assert check(database.file) == []
        seen.add(len(content))
        if content == new:
            restore(database, tmp_path / "present.db")
            assert references(database) == old
    assert seen == {600, 900}  # some kills came before the commit, some after


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
    assert lostfound("restore", "nothing.db")[0] == 1
