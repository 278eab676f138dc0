"""Indexes on disk: which one serves, and what a reindex makes and removes."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brute_force import generations_of, search
from sqlalchemy import make_url

from search.encoder import BiEncoder
from search.errors import DatabaseError, FingerprintError, ReindexRunningError
from search.gate import objection
from search.index.build import Measured
from search.index.generations import Generations
from search.ingest import Ingest
from search.item_input import ImportedItem, ItemUpdate, NewItem
from search.reindex import reindex
from search.retriever import Retriever
from search.types import START, Advance
from storage import changes
from storage.backup import back_up, restore
from storage.database import Database
from storage.items import HELD, Filters
from storage.models import Status
from storage.vectors import StoredVectors

Run = Callable[..., tuple[int, str, str]]


def test_a_search_is_served_by_the_newest_generation_and_the_changes_since(
    kind: str, two_generations: Database, ingest: Ingest, encoder: BiEncoder
) -> None:
    manifest = generations_of(two_generations).manifest(generations_of(two_generations).names()[0])
    assert (manifest.kind, manifest.count, manifest.recall >= 0.99) == (kind, 300, True)
    retriever = Retriever(two_generations, encoder)
    assert len(search(retriever, encoder)[0]) == 300
    if sys.platform == "linux":  # mapped, so that processes share its pages
        mapped = two_generations.index_folder / generations_of(two_generations).names()[0] / "vectors.faiss"
        assert str(mapped) in Path("/proc/self/maps").read_text()
    ingest.withdraw("H-3", Status.RETURNED)
    ingest.update("H-4", ItemUpdate(description="a scarf"))
    ingest.upsert([ImportedItem(reference="N-1", description="a new hat, 3 marks")])
    assert len(search(retriever, encoder)[0]) == 300
    with two_generations.write() as session:  # what only the index knows: no search reads all the vectors
        session.connection().exec_driver_sql("DELETE FROM item_vectors WHERE item_id = 9")
    fresh = Retriever(two_generations, encoder)
    query = encoder.encode_queries(["hat"])
    if kind == "exact":
        with fresh.retrieve(query, 400, HELD) as (_, retrieval):
            assert 9 in {candidate.item_id for candidate in retrieval.candidates[0]}
    else:
        with pytest.raises(FingerprintError, match=r"item number 9 .* is gone; run `lostfound reindex`"):
            fresh.retrieve(query, 400, HELD).__enter__()


def test_a_running_process_goes_over_to_a_new_generation(
    kind: str, two_generations: Database, encoder: BiEncoder
) -> None:
    retriever = Retriever(two_generations, encoder)
    search(retriever, encoder)
    Ingest(two_generations, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    report = reindex(two_generations, encoder, keep=1)
    assert report.indexed.is_new
    assert report.removed.changes == 11
    assert generations_of(two_generations).names() == [report.indexed.generation]
    assert len(search(retriever, encoder)[0]) == 301
    assert retriever._current is not None
    assert retriever._current.generation == report.indexed.generation


def test_a_process_that_slept_while_the_log_was_shortened_misses_nothing(
    two_generations: Database, encoder: BiEncoder
) -> None:
    ingest, sleeper = Ingest(two_generations, encoder), Retriever(two_generations, encoder)
    search(sleeper, encoder)
    for number in range(3):
        ingest.update(f"H-{number}", ItemUpdate(description=f"a scarf, {number}"))
        ingest.withdraw(f"H-{10 + number}", Status.DISPOSED)
        reindex(two_generations, encoder, keep=1)
    shutil.rmtree(two_generations.index_folder)
    assert len(search(sleeper, encoder)[0]) == 297


def test_nothing_is_built_where_nothing_has_changed(two_generations: Database, encoder: BiEncoder) -> None:
    names = generations_of(two_generations).names()
    report = reindex(two_generations, encoder)
    assert (report.indexed.is_new, report.indexed.generation) == (False, names[0])
    assert generations_of(two_generations).names() == names


def test_an_index_of_nothing_is_an_index(database: Database, encoder: BiEncoder) -> None:
    assert reindex(database, encoder).indexed.is_new
    retriever = Retriever(database, encoder)
    assert search(retriever, encoder)[0] == {}
    Ingest(database, encoder).upsert([ImportedItem(reference="N-1", description="a hat")])
    assert len(search(retriever, encoder)[0]) == 1


def test_after_a_restore_no_index_of_the_lost_history_serves(
    two_generations: Database, ingest: Ingest, tmp_path: Path
) -> None:
    encoder = ingest._encoder
    back_up(two_generations, tmp_path / "backup.db")
    running = Retriever(two_generations, encoder)
    ingest.upsert([ImportedItem(reference="L-1", description="lost by the restore")])
    reindex(two_generations, encoder)
    search(running, encoder)
    restore(two_generations, tmp_path / "backup.db")
    ingest.upsert([ImportedItem(reference="A-1", description="added after the restore")])
    for retriever in (running, Retriever(two_generations, encoder)):
        assert len(search(retriever, encoder)[0]) == 301


def test_an_index_that_is_not_good_enough_is_refused(
    kind: str,
    two_generations: Database,
    encoder: BiEncoder,
    lostfound: Run,
    office: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(two_generations.index_folder, office / "lostfound.db.index")
    shutil.copy(two_generations.file, office / "lostfound.db")
    assert lostfound("add", "a new hat")[0] == 0
    before = sorted((office / "lostfound.db.index").rglob("*"))
    monkeypatch.setattr("search.gate.WANTED_RECALL", 1.01)
    code, out, error = lostfound("reindex", "--json")
    assert code == 3
    assert re.match(r"its recall is (0.99|1.00)\d\d, below 1.01", json.loads(out)["indexed"]["refused"])
    assert "lostfound doctor" in error
    assert sorted((office / "lostfound.db.index").rglob("*")) == before
    monkeypatch.undo()


def test_every_figure_of_an_index_is_judged(two_generations: Database, encoder: BiEncoder) -> None:
    generation = generations_of(two_generations).newest(encoder.fingerprint)
    assert generation is not None
    good = Measured(generation.index, recall=0.995, finds_itself=1.0)
    assert objection(good, 300) is None
    assert "holds 300 vectors, the database 301" in str(objection(good, 301))
    assert "recall is 0.9890" in str(objection(replace(good, recall=0.989), 300))
    assert "find themselves" in str(objection(replace(good, finds_itself=0.5), 300))
    wrong = replace(good, index=replace(good.index, largest_error=0.2))
    assert "0.200 from the stored one" in str(objection(wrong, 300))


def test_one_reindex_runs_at_a_time(
    two_generations: Database, encoder: BiEncoder, lostfound: Run, office: Path
) -> None:
    lostfound("init")
    with generations_of(two_generations).lock(), pytest.raises(ReindexRunningError, match="is running; wait"):
        reindex(two_generations, encoder)
    with Generations(office / "lostfound.db.index").lock():
        code, _, error = lostfound("reindex")
        assert (code, "another reindex" in error) == (4, True)
    assert lostfound("reindex")[0] == 0


@pytest.mark.parametrize("had_an_index", [True, False])
@pytest.mark.parametrize("keep", [1, 2])
def test_a_change_of_encoder_leaves_no_moment_without_a_search(
    kind: str, two_generations: Database, encoder: BiEncoder, other_encoder: BiEncoder, keep: int, had_an_index: bool
) -> None:
    office = two_generations
    if not had_an_index:
        shutil.rmtree(office.index_folder)
    old, new = Retriever(office, encoder), Retriever(office, other_encoder)
    search(old, encoder)
    with pytest.raises(FingerprintError, match="none of the 300 held items"):
        search(new, other_encoder)
    reindex(office, other_encoder, keep=keep)
    assert len(search(new, other_encoder)[0]) == 300
    Ingest(office, encoder).upsert([ImportedItem(reference="N-1", description="by the old encoder")])
    for retriever in (old, Retriever(office, encoder)):  # the clerks' processes are not restarted yet
        assert search(retriever, encoder)[1] == []
        assert len(search(retriever, encoder)[0]) == 301
    report = reindex(office, other_encoder, keep=keep)
    assert (report.encoded.encoded, report.removed.vectors) == (1, 301)
    assert len(generations_of(office).names()) == keep
    assert len(search(new, other_encoder)[0]) == 301
    with pytest.raises(FingerprintError):
        search(Retriever(office, encoder), encoder)


def test_the_index_that_serves_is_never_removed(
    two_generations: Database, encoder: BiEncoder, other_encoder: BiEncoder
) -> None:
    for chosen, keep in ((other_encoder, 2), (encoder, 2), (other_encoder, 1), (encoder, 1), (other_encoder, 1)):
        report = reindex(two_generations, chosen, keep=keep)
        assert report.indexed.generation in generations_of(two_generations).names()
        for encoder_ in (encoder, other_encoder):
            assert len(search(Retriever(two_generations, encoder_), encoder_)[0]) == 300


def test_a_restore_in_the_midst_of_a_reindex_loses_no_change(
    two_generations: Database, ingest: Ingest, tmp_path: Path
) -> None:
    encoder = ingest._encoder
    back_up(two_generations, tmp_path / "backup.db")
    ingest.upsert([ImportedItem(reference="L-1", description="lost by the restore")])

    @contextmanager
    def restoring(step: str, _total: int) -> Iterator[Advance]:
        if step == "cleaning":
            restore(two_generations, tmp_path / "backup.db")
        yield lambda _done: None

    with two_generations.read() as session:
        before = changes.newest(session)
    reindex(two_generations, encoder, restoring, keep=1)
    with two_generations.read() as session:
        assert 0 < changes.newest(session).number < before.number
    assert len(search(Retriever(two_generations, encoder), encoder)[0]) == 300
    ingest.withdraw("H-1", Status.DISPOSED)
    assert reindex(two_generations, encoder).indexed.is_new
    assert search(Retriever(two_generations, encoder), encoder)[1] == []


def test_an_index_of_nothing_does_not_serve_a_database_whose_log_is_gone(
    database: Database, encoder: BiEncoder, umbrellas: list[str]
) -> None:
    with database.read() as session:
        assert changes.reaches(session, START)
    with database.write() as session:
        session.connection().exec_driver_sql("DELETE FROM changes")
    with database.read() as session:
        assert not changes.reaches(session, START)


def test_a_read_only_database_is_not_indexed(two_generations: Database, encoder: BiEncoder) -> None:
    names = Generations(two_generations.index_folder).names()
    immutable = Database(make_url(f"sqlite:///file:{two_generations.file}?immutable=1&uri=true"))
    with pytest.raises(DatabaseError, match="opened to read only"):
        reindex(immutable, encoder)
    assert Generations(two_generations.index_folder).names() == names


def test_an_index_belongs_to_the_group_of_its_folder(two_generations: Database, encoder: BiEncoder) -> None:
    two_generations.index_folder.chmod(0o2775)
    Ingest(two_generations, encoder).add(NewItem(description="a hat"))
    name = reindex(two_generations, encoder).indexed.generation
    assert (two_generations.index_folder / str(name)).stat().st_mode & 0o7777 == 0o2775


def test_without_a_database_no_index_is_made(tmp_path: Path, encoder: BiEncoder) -> None:
    with pytest.raises(DatabaseError, match="create it with `lostfound init`"):
        reindex(Database.at(tmp_path / "nothing.db"), encoder)
    assert list(tmp_path.iterdir()) == []


def test_a_filter_is_exact_on_disk_too(
    kind: str, two_generations: Database, ingest: Ingest, encoder: BiEncoder
) -> None:
    rows = [ImportedItem(reference=f"H-{n}", description=f"hat {n}", office="Airport") for n in range(0, 300, 3)]
    ingest.upsert(rows)
    reindex(two_generations, encoder)
    query = encoder.encode_queries(["hat 30"])
    for filters in (Filters(office="airport"), Filters(office="nowhere")):
        with Retriever(two_generations, encoder).retrieve(query, 50, filters) as (session, retrieval):
            stored = StoredVectors(session, encoder.fingerprint, encoder.dim, filters)
            true = sorted((float(s) for _, part in stored.parts() for s in part @ query[0]), reverse=True)[:50]
        np.testing.assert_allclose([c.similarity for c in retrieval.candidates[0]], true, atol=1e-5)


def test_the_reindex_tells_what_it_did(lostfound: Run, office: Path) -> None:
    lostfound("init")
    lostfound("add", "a red hat", "--reference", "H-1")
    code, out, _ = lostfound("reindex", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["encoded"] == {"items": 1, "encoded": 0}
    assert told["indexed"]["is_new"]
    assert told["indexed"]["manifest"]["count"] == 1
    assert set(told["seconds"]) == {"encoding", "building", "writing", "checking", "publishing", "cleaning"}
    _, out, _ = lostfound("reindex")
    assert told["indexed"]["generation"] in out
    assert json.loads(lostfound("status", "--json")[1])["index"]["on disk"] == told["indexed"]["generation"]
    assert lostfound("reindex", "--keep", "0")[0] == 2
