"""Indexes on disk: what is published serves, what is damaged does not, and no fault of the disk reaches an answer."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.encoder import BiEncoder
from search.errors import DamagedIndexError, DatabaseError, FingerprintError, IndexFileError, ReindexRunningError
from search.index.build import Measured
from search.index.generations import Generations
from search.ingest import Ingest
from search.item_input import ImportedItem, ItemUpdate
from search.reindex import objection, reindex
from search.retriever import Retriever
from storage.backup import back_up, restore
from storage.database import Database
from storage.items import HELD, Filters
from storage.models import Status
from storage.vectors import StoredVectors

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["exact", "approximate"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "approximate":
        monkeypatch.setattr("search.index.build.EXACT_UP_TO", 0)
    return str(request.param)


@pytest.fixture
def stocked(database: Database, ingest: Ingest) -> Database:
    """300 held items and two generations, the older one with 290 of them."""
    rows = [ImportedItem(reference=f"H-{n}", description=f"hat {n}, {n % 7} marks") for n in range(300)]
    ingest.upsert(rows[:290])
    reindex(database, ingest._encoder)
    ingest.upsert(rows[290:])
    reindex(database, ingest._encoder)
    return database


def generations(database: Database) -> Generations:
    return Generations(database.index_folder)


def search(retriever: Retriever, encoder: BiEncoder, depth: int = 400) -> tuple[dict[int, float], list[str]]:
    """Similarity by id of what a query finds, and the warnings; checked against brute force in the same snapshot."""
    query = encoder.encode_queries(["a hat with 3 marks"])
    with retriever.retrieve(query, depth, HELD) as (session, retrieval):
        stored = StoredVectors(session, encoder.fingerprint, encoder.dim)
        true = {int(i): float(s) for ids, rows in stored.parts() for i, s in zip(ids, rows @ query[0], strict=True)}
    found = {candidate.item_id: candidate.similarity for candidate in retrieval.candidates[0]}
    best = sorted(true, key=lambda i: -true[i])[:depth]
    assert len(found) == len(best)
    np.testing.assert_allclose(list(found.values()), [true[i] for i in best], atol=1e-5)
    np.testing.assert_allclose(list(found.values()), [true[i] for i in found], atol=1e-5)
    return found, retrieval.warnings


def test_a_search_is_served_by_the_newest_generation_and_the_changes_since(
    kind: str, stocked: Database, ingest: Ingest, encoder: BiEncoder
) -> None:
    manifest = generations(stocked).manifest(generations(stocked).names()[0])
    assert (manifest.kind, manifest.count, manifest.recall >= 0.99) == (kind, 300, True)
    retriever = Retriever(stocked, encoder)
    assert len(search(retriever, encoder)[0]) == 300
    ingest.withdraw("H-3", Status.RETURNED)
    ingest.update("H-4", ItemUpdate(description="a scarf"))
    ingest.upsert([ImportedItem(reference="N-1", description="a new hat, 3 marks")])
    assert len(search(retriever, encoder)[0]) == 300
    with stocked.write() as session:  # what only the index knows: no search reads all the vectors
        session.connection().exec_driver_sql("DELETE FROM item_vectors WHERE item_id = 9")
    fresh = Retriever(stocked, encoder)
    query = encoder.encode_queries(["hat"])
    if kind == "exact":
        with fresh.retrieve(query, 400, HELD) as (_, retrieval):
            assert 9 in {candidate.item_id for candidate in retrieval.candidates[0]}
    else:
        with pytest.raises(FingerprintError, match=r"item number 9 .* is gone; run `lostfound reindex`"):
            fresh.retrieve(query, 400, HELD).__enter__()


def test_a_running_process_goes_over_to_a_new_generation(kind: str, stocked: Database, encoder: BiEncoder) -> None:
    retriever = Retriever(stocked, encoder)
    search(retriever, encoder)
    Ingest(stocked, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    report = reindex(stocked, encoder, keep=1)
    assert report.indexed.is_new
    assert report.removed.changes == 11
    assert generations(stocked).names() == [report.indexed.generation]
    assert len(search(retriever, encoder)[0]) == 301
    assert retriever._current is not None
    assert retriever._current.generation == report.indexed.generation


def test_a_process_that_slept_while_the_log_was_shortened_misses_nothing(stocked: Database, encoder: BiEncoder) -> None:
    ingest, sleeper = Ingest(stocked, encoder), Retriever(stocked, encoder)
    search(sleeper, encoder)
    for number in range(3):
        ingest.update(f"H-{number}", ItemUpdate(description=f"a scarf, {number}"))
        ingest.withdraw(f"H-{10 + number}", Status.DISPOSED)
        reindex(stocked, encoder, keep=1)
    shutil.rmtree(stocked.index_folder)
    assert len(search(sleeper, encoder)[0]) == 297


def test_nothing_is_built_where_nothing_has_changed(stocked: Database, encoder: BiEncoder) -> None:
    names = generations(stocked).names()
    report = reindex(stocked, encoder)
    assert (report.indexed.is_new, report.indexed.generation) == (False, names[0])
    assert generations(stocked).names() == names


def test_an_index_of_nothing_is_an_index(database: Database, encoder: BiEncoder) -> None:
    assert reindex(database, encoder).indexed.is_new
    retriever = Retriever(database, encoder)
    assert search(retriever, encoder)[0] == {}
    Ingest(database, encoder).upsert([ImportedItem(reference="N-1", description="a hat")])
    assert len(search(retriever, encoder)[0]) == 1


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def remove(path: Path, _rng: random.Random) -> None:
    path.unlink()


@pytest.mark.parametrize("file", ["manifest.json", "vectors.faiss"])
@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_a_damaged_generation_is_set_aside_and_the_one_before_it_serves(
    kind: str, stocked: Database, encoder: BiEncoder, file: str, damage: Callable[[Path, random.Random], None]
) -> None:
    newest, older = generations(stocked).names()
    sound = stocked.index_folder.with_name("sound")
    shutil.copytree(stocked.index_folder, sound)
    for seed in range(1 if damage is remove else 20):
        shutil.rmtree(stocked.index_folder)
        shutil.copytree(sound, stocked.index_folder)
        damage(stocked.index_folder / newest / file, random.Random(seed))
        retriever = Retriever(stocked, encoder)
        found, warnings = search(retriever, encoder)
        assert len(found) == 300
        assert newest in warnings[0]
        assert "lostfound reindex" in warnings[0]
        assert search(retriever, encoder) == (found, [])
        assert generations(stocked).names() == [older]
        aside = stocked.index_folder / "set-aside" / newest
        assert file in (aside / "reason.txt").read_text()
        damage(stocked.index_folder / older / "vectors.faiss", random.Random(seed))
        found, warnings = search(Retriever(stocked, encoder), encoder)
        assert (len(found), len(warnings)) == (300, 1)
        assert generations(stocked).names() == []
    report = reindex(stocked, encoder)
    assert report.encoded.encoded == 0
    assert report.indexed.is_new
    assert len(search(Retriever(stocked, encoder), encoder)[0]) == 300
    assert len(generations(stocked).set_aside_names()) == 2  # kept


def test_a_generation_of_another_form_or_database_is_set_aside(
    stocked: Database, encoder: BiEncoder, tmp_path: Path
) -> None:
    newest, older = generations(stocked).names()
    folder = stocked.index_folder / newest
    future = json.loads((folder / "manifest.json").read_bytes()) | {"format": 2}
    (folder / "manifest.json").write_text(json.dumps(future))
    name = f"g000007-{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()[:16]}"
    folder.rename(stocked.index_folder / name)
    _, (warning,) = search(Retriever(stocked, encoder), encoder)
    assert name in warning
    assert "of no form that this version reads: format" in warning

    other = Database.at(tmp_path / "other" / "lostfound.db")
    back_up(stocked, tmp_path / "backup.db")
    restore(other, tmp_path / "backup.db")
    Ingest(other, encoder).upsert([ImportedItem(reference="X-1", description="of the other office")])
    reindex(other, encoder)
    Ingest(stocked, encoder).upsert([ImportedItem(reference=f"Y-{n}", description=f"ours, {n}") for n in range(9)])
    (foreign,) = generations(other).names()
    shutil.copytree(other.index_folder / foreign, stocked.index_folder / foreign.replace("g000001", "g000009"))
    found, (warning,) = search(Retriever(stocked, encoder), encoder)
    assert len(found) == 309
    assert "does not lead on from it" in warning
    assert generations(stocked).names() == [older]


def test_after_a_restore_no_index_of_the_lost_history_serves(stocked: Database, ingest: Ingest, tmp_path: Path) -> None:
    encoder = ingest._encoder
    back_up(stocked, tmp_path / "backup.db")
    running = Retriever(stocked, encoder)
    ingest.upsert([ImportedItem(reference="L-1", description="lost by the restore")])
    reindex(stocked, encoder)
    search(running, encoder)
    restore(stocked, tmp_path / "backup.db")
    ingest.upsert([ImportedItem(reference="A-1", description="added after the restore")])
    for retriever in (running, Retriever(stocked, encoder)):
        assert len(search(retriever, encoder)[0]) == 301


def test_in_a_folder_that_may_not_be_written_a_damaged_generation_is_passed_over(
    stocked: Database, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, older = generations(stocked).names()
    flip(stocked.index_folder / newest / "vectors.faiss", random.Random(1))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)  # root may do everything, so the permissions alone would not do
    retriever = Retriever(stocked, encoder)
    assert len(search(retriever, encoder)[1]) == 1
    assert search(retriever, encoder)[1] == []
    assert generations(stocked).names() == [newest, older]


def test_a_full_disk_publishes_nothing_and_the_earlier_generation_serves(
    kind: str, stocked: Database, encoder: BiEncoder
) -> None:
    Ingest(stocked, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    names = generations(stocked).names()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for size in (*range(0, 60_000, 2_500), resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            reindex(stocked, encoder)
        except (IndexFileError, DatabaseError):  # of the database's own files, where there is not even room for those
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        assert len(search(Retriever(stocked, encoder), encoder)[0]) == 301
        if generations(stocked).names() != names:
            break
        assert {path.name for path in stocked.index_folder.iterdir()} == {*names, ".lock"}
    assert refused >= 3
    assert generations(stocked).names() != names


def test_a_disk_that_fails_to_sync_publishes_nothing_that_it_does_not_hold(
    stocked: Database, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ingest(stocked, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    names = generations(stocked).names()
    real, failures = os.fsync, 0
    for failing in range(1, 20):
        calls = 0

        def fsync(descriptor: int, failing: int = failing) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.EIO, "Input/output error")
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            try:
                reindex(stocked, encoder)
            except IndexFileError:
                failures += 1
        assert len(search(Retriever(stocked, encoder), encoder)[0]) == 301
        if generations(stocked).names() != names:
            break
    assert failures == 4  # vectors, manifest, its folder; at the fourth, after the rename, it is published
    assert len(generations(stocked).names()) == 3


def test_what_the_disk_does_not_hold_as_it_was_written_is_not_published(
    stocked: Database, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ingest(stocked, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    names = generations(stocked).names()
    real = os.fsync

    def lose_the_end(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.name == "vectors.faiss":
            os.truncate(path, path.stat().st_size - 100)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", lose_the_end)
    with pytest.raises(DamagedIndexError, match="does not have the size and checksum"):
        reindex(stocked, encoder)
    assert generations(stocked).names() == names


def test_an_index_that_is_not_good_enough_is_refused(
    kind: str, stocked: Database, encoder: BiEncoder, lostfound: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stocked.index_folder, office / "lostfound.db.index")
    shutil.copy(stocked.file, office / "lostfound.db")
    assert lostfound("add", "a new hat")[0] == 0
    before = sorted((office / "lostfound.db.index").rglob("*"))
    monkeypatch.setattr("search.reindex.WANTED_RECALL", 1.01)
    code, out, error = lostfound("reindex", "--json")
    assert code == 3
    assert "its recall@100 is 1.0000, below 1.01" in json.loads(out)["indexed"]["refused"]
    assert "lostfound doctor" in error
    assert sorted((office / "lostfound.db.index").rglob("*")) == before
    monkeypatch.undo()


def test_every_figure_of_an_index_is_judged(stocked: Database, encoder: BiEncoder) -> None:
    generation = generations(stocked).newest(encoder.fingerprint)
    assert generation is not None
    good = Measured(generation.index, recall=0.995, finds_itself=1.0)
    assert objection(good, 300) is None
    assert "holds 300 vectors, the database 301" in str(objection(good, 301))
    assert "recall@100 is 0.9890" in str(objection(replace(good, recall=0.989), 300))
    assert "find themselves" in str(objection(replace(good, finds_itself=0.5), 300))
    wrong = replace(good, index=replace(good.index, largest_error=0.2))
    assert "0.200 from the stored one" in str(objection(wrong, 300))


def test_one_reindex_runs_at_a_time(stocked: Database, encoder: BiEncoder, lostfound: Run, office: Path) -> None:
    lostfound("init")
    with generations(stocked).lock(), pytest.raises(ReindexRunningError, match="is running; wait"):
        reindex(stocked, encoder)
    with Generations(office / "lostfound.db.index").lock():
        code, _, error = lostfound("reindex")
        assert (code, "another reindex" in error) == (4, True)
    assert lostfound("reindex")[0] == 0


def test_a_change_of_encoder_leaves_no_moment_without_a_search(
    kind: str, stocked: Database, encoder: BiEncoder, other_encoder: BiEncoder
) -> None:
    old, new = Retriever(stocked, encoder), Retriever(stocked, other_encoder)
    search(old, encoder)
    with pytest.raises(FingerprintError, match="none of the 300 held items"):
        search(new, other_encoder)
    reindex(stocked, other_encoder)
    assert len(search(new, other_encoder)[0]) == 300
    for retriever in (old, Retriever(stocked, encoder)):  # the clerks' processes are not restarted yet
        assert len(search(retriever, encoder)[0]) == 300
    Ingest(stocked, encoder).upsert([ImportedItem(reference="N-1", description="by the old encoder")])
    assert len(search(old, encoder)[0]) == 301
    report = reindex(stocked, other_encoder)
    assert (report.encoded.encoded, report.removed.vectors) == (1, 301)
    assert len(search(new, other_encoder)[0]) == 301
    with pytest.raises(FingerprintError):
        search(Retriever(stocked, encoder), encoder)


def test_a_filter_is_exact_on_disk_too(kind: str, stocked: Database, ingest: Ingest, encoder: BiEncoder) -> None:
    rows = [ImportedItem(reference=f"H-{n}", description=f"hat {n}", office="Airport") for n in range(0, 300, 3)]
    ingest.upsert(rows)
    reindex(stocked, encoder)
    query = encoder.encode_queries(["hat 30"])
    for filters in (Filters(office="airport"), Filters(office="nowhere")):
        with Retriever(stocked, encoder).retrieve(query, 50, filters) as (session, retrieval):
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
