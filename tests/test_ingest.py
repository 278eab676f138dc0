import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text

from search.encoder import BiEncoder
from search.errors import DatabaseError, DuplicateReferenceError, UnknownReferenceError
from search.ingest import Ingest, Outcome
from search.item_input import ImportedItem, ItemUpdate, NewItem
from search.pipeline import SearchPipeline
from search.reindex import reindex
from search.settings import Settings
from search.text import text_hash, text_of
from storage import changes, items, vectors
from storage.database import Database
from storage.models import Item, ItemVector, Status

HAT = NewItem(reference="H-1", description="a straw hat", category="headwear")


def vector_rows(database: Database) -> list[ItemVector]:
    with database.read() as session:
        return list(session.scalars(select(ItemVector).order_by(ItemVector.item_id)))


def last_change(database: Database) -> int:
    with database.read() as session:
        return changes.newest(session).number


def contents(database: Database) -> list[tuple[object, ...]]:
    """Everything about items and vectors but ids and times."""
    with database.read() as session:
        rows = session.execute(
            text(
                "SELECT reference, description, category, colour, status, encoder, text_hash, vector "
                "FROM items LEFT JOIN item_vectors ON item_id = id ORDER BY reference"
            )
        )
        return [tuple(row) for row in rows]


def test_an_added_item_its_vector_and_its_change_are_stored_together(
    database: Database, ingest: Ingest, encoder: BiEncoder
) -> None:
    item = ingest.add(HAT)
    (row,) = vector_rows(database)
    assert (row.item_id, row.encoder) == (item.id, encoder.fingerprint)
    assert row.text_hash == text_hash("a straw hat. Headwear.")
    np.testing.assert_array_equal(np.frombuffer(row.vector, "<f4"), encoder.encode(["a straw hat. Headwear."])[0])
    assert last_change(database) == 1


def test_an_item_without_reference_is_given_the_next_free_one(ingest: Ingest) -> None:
    ingest.add(NewItem(reference="LF-000002", description="a hat that has this reference already"))
    assert ingest.add(NewItem(description="a scarf")).reference == "LF-000003"


def test_a_second_item_with_a_reference_is_refused_and_the_first_one_stays(database: Database, ingest: Ingest) -> None:
    ingest.add(HAT)
    before = contents(database)
    with pytest.raises(DuplicateReferenceError, match=r"'H-1' exists.*lostfound update"):
        ingest.add(NewItem(reference="H-1", description="another hat"))
    assert contents(database) == before


def test_a_new_description_gets_a_new_vector_and_a_new_place_does_not(database: Database, ingest: Ingest) -> None:
    ingest.add(HAT)
    (before,) = vector_rows(database)
    ingest.update("H-1", ItemUpdate(place="platform 4"))
    (same,) = vector_rows(database)
    assert (same.vector, same.text_hash) == (before.vector, before.text_hash)
    item = ingest.update("H-1", ItemUpdate(description="a felt hat"))
    (after,) = vector_rows(database)
    assert after.text_hash == text_hash(text_of(item)) != before.text_hash
    assert after.vector != before.vector
    assert last_change(database) == 3


def test_an_update_that_changes_nothing_is_no_change(database: Database, ingest: Ingest) -> None:
    ingest.add(HAT)
    ingest.update("H-1", ItemUpdate(description="a straw hat"))
    assert last_change(database) == 1


def test_an_unknown_reference_is_named(ingest: Ingest) -> None:
    for change in (
        lambda: ingest.update("X-9", ItemUpdate(place="x")),
        lambda: ingest.withdraw("X-9", Status.RETURNED),
    ):
        with pytest.raises(UnknownReferenceError, match="'X-9'"):
            change()


def test_withdrawing_needs_no_model(database: Database, ingest: Ingest, encoder_folder: Path) -> None:
    ingest.add(HAT)
    fresh = BiEncoder(str(encoder_folder))
    assert Ingest(database, fresh).withdraw("H-1", Status.DISPOSED).status is Status.DISPOSED
    assert fresh._loaded is None


def test_an_item_is_withdrawn_even_while_its_vector_is_of_another_encoder(
    database: Database, ingest: Ingest, other_encoder_folder: Path
) -> None:
    ingest.add(HAT)
    fresh = BiEncoder(str(other_encoder_folder))
    assert Ingest(database, fresh).withdraw("H-1", Status.RETURNED).status is Status.RETURNED
    assert fresh._loaded is None
    assert last_change(database) == 2


def rows(count: int, start: int = 0) -> list[ImportedItem]:
    return [
        ImportedItem(reference=f"R-{number}", description=f"thing number {number}", colour="red")
        for number in range(start, start + count)
    ]


def test_importing_rows_again_ends_in_the_same_state(database: Database, ingest: Ingest) -> None:
    assert ingest.upsert(rows(40)) == {Outcome.ADDED: 40}
    once, number = contents(database), last_change(database)
    assert ingest.upsert(rows(40)) == {Outcome.UNCHANGED: 40}
    assert (contents(database), last_change(database)) == (once, number)


def test_a_row_changes_only_the_fields_that_it_gives(database: Database, ingest: Ingest) -> None:
    ingest.upsert(rows(2))
    ingest.withdraw("R-1", Status.RETURNED)
    outcomes = ingest.upsert([ImportedItem(reference="R-1", description="thing number 1, mended")])
    assert outcomes == {Outcome.UPDATED: 1}
    with database.read() as session:
        item = items.by_reference(session, "R-1")
    assert (item.description, item.colour, item.status) == ("thing number 1, mended", "red", Status.RETURNED)


def test_the_last_of_several_rows_with_one_reference_counts(database: Database, ingest: Ingest) -> None:
    same = [ImportedItem(reference="R-1", description=f"version {number}") for number in range(3)]
    assert ingest.upsert(same) == {Outcome.ADDED: 1, Outcome.UPDATED: 2}
    ((_, description, *_),) = contents(database)
    assert description == "version 2"
    assert len(vector_rows(database)) == 1


def test_an_item_changed_while_its_new_text_was_encoded_gets_the_vector_of_what_is_stored(
    database: Database, encoder: BiEncoder
) -> None:
    class Interrupting(BiEncoder):
        """Another clerk changes the item between the reading and the writing of this update."""

        def encode(self, texts, advance=None):  # type: ignore[no-untyped-def]
            vectors = super().encode(texts, advance)
            if texts == ["a felt hat. Headwear."]:
                Ingest(database, encoder).update("H-1", ItemUpdate(brand="Stetson"))
            return vectors

    ingest = Ingest(database, Interrupting(encoder.name, "cpu"))
    ingest.add(HAT)
    ingest.update("H-1", ItemUpdate(description="a felt hat"))
    (row,) = vector_rows(database)
    assert row.text_hash == text_hash("a felt hat. Headwear, Stetson.")
    np.testing.assert_array_equal(
        np.frombuffer(row.vector, "<f4"), encoder.encode(["a felt hat. Headwear, Stetson."])[0]
    )


def test_reindex_gives_every_item_a_vector_of_the_new_encoder_and_drops_the_old_ones(
    database: Database, ingest: Ingest, umbrellas: list[str], other_encoder: BiEncoder
) -> None:
    first = reindex(database, other_encoder)
    assert (first.encoded.items, first.encoded.encoded, first.removed.vectors) == (5, 5, 0)
    assert reindex(database, other_encoder).removed.vectors == 5
    assert {row.encoder for row in vector_rows(database)} == {other_encoder.fingerprint}
    again = reindex(database, other_encoder)
    assert (again.encoded.encoded, again.removed.vectors) == (0, 0)


def test_the_only_vector_of_an_item_is_never_dropped(
    database: Database, ingest: Ingest, umbrellas: list[str], other_encoder: BiEncoder
) -> None:
    for _ in range(2):
        reindex(database, other_encoder)
    late = ingest.add(NewItem(reference="U-6", description="added by a clerk with the old encoder"))
    with database.write() as session:
        assert vectors.drop_other_encoders(session, other_encoder.fingerprint, set(), [late.id]) == 0
    assert {row.item_id: row.encoder for row in vector_rows(database)}[late.id] != other_encoder.fingerprint
    assert reindex(database, other_encoder).removed.vectors == 1


@pytest.mark.parametrize("blob", [b"", b"\0" * 4, b"\0" * 128, b"\xff" * 128], ids=["empty", "short", "zero", "NaN"])
def test_a_damaged_vector_is_named_and_reindex_mends_it(
    database: Database, ingest: Ingest, pipeline: SearchPipeline, umbrellas: list[str], blob: bytes
) -> None:
    before = contents(database)
    with database.write() as session:
        session.execute(text("UPDATE item_vectors SET vector = :blob WHERE item_id = 3"), {"blob": blob})
    with pytest.raises(DatabaseError, match="vector of item 3 is damaged; run `lostfound reindex`"):
        pipeline.search("umbrella")
    assert reindex(database, ingest._encoder).encoded.encoded == 1
    assert contents(database) == before
    assert len(pipeline.search("umbrella").matches) == 5


def test_a_read_only_database_is_searched_but_not_written(
    tmp_path: Path, database: Database, ingest: Ingest, encoder: BiEncoder
) -> None:
    ingest.add(HAT)
    url = f"sqlite:///file:{tmp_path / 'lostfound.db'}?immutable=1&uri=true"
    read_only = Database.of(Settings(database_url=url))
    with read_only.read() as session:
        assert items.by_reference(session, "H-1").description == "a straw hat"
    before = contents(database)
    with pytest.raises(DatabaseError, match="is read-only; correct the permissions"):
        Ingest(read_only, encoder).add(NewItem(description="a scarf"))
    assert contents(database) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
from search.encoder import BiEncoder
from search.errors import DatabaseError
from search.ingest import Ingest
from search.item_input import ImportedItem
from storage.database import Database

limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
ingest = Ingest(Database.at(Path(sys.argv[1])), BiEncoder(sys.argv[2], "cpu"))
stored = 0
try:
    while True:
        ingest.upsert([ImportedItem(reference=f"D-{stored + i}", description="x" * 2000 + str(i)) for i in range(20)])
        stored += 20
except DatabaseError as error:
    print(stored, error)
"""


@pytest.mark.slow
def test_a_full_disk_loses_the_step_at_hand_and_nothing_else(
    database: Database, ingest: Ingest, encoder_folder: Path
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(database.file), str(encoder_folder), "400000"],
        check=True,
        capture_output=True,
        text=True,
    )
    stored, _, message = run.stdout.partition(" ")
    assert "the disk" in message
    assert "nothing of this step was stored" in message
    with database.read() as session:
        references = set(session.scalars(select(Item.reference)))
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
    assert int(stored) >= 20
    assert references == {f"D-{number}" for number in range(int(stored))}
    assert ingest.add(NewItem(description="room again")).status is Status.HELD


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lostfound.db"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(DatabaseError, match="is not an SQLite database"), Database.at(path).read():
        pass
