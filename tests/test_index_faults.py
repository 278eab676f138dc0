"""No fault of the disk reaches an answer: what is damaged does not serve, and what is not whole is not published."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import pytest
from brute_force import generations_of, search
from sqlalchemy import make_url

from search.encoder import BiEncoder
from search.errors import DamagedIndexError, DatabaseError, IndexFileError
from search.ingest import Ingest
from search.item_input import ImportedItem
from search.reindex import reindex
from search.retriever import Retriever
from storage.backup import back_up, restore
from storage.database import Database


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
    kind: str, two_generations: Database, encoder: BiEncoder, file: str, damage: Callable[[Path, random.Random], None]
) -> None:
    newest, older = generations_of(two_generations).names()
    sound = two_generations.index_folder.with_name("sound")
    shutil.copytree(two_generations.index_folder, sound)
    for seed in range(1 if damage is remove else 20):
        shutil.rmtree(two_generations.index_folder)
        shutil.copytree(sound, two_generations.index_folder)
        damage(two_generations.index_folder / newest / file, random.Random(seed))
        retriever = Retriever(two_generations, encoder)
        found, warnings = search(retriever, encoder)
        assert len(found) == 300
        assert newest in warnings[0]
        assert "lostfound doctor" in warnings[0]
        assert search(retriever, encoder) == (found, [])
        assert generations_of(two_generations).names() == [older]
        aside = two_generations.index_folder / "set-aside" / newest
        assert file in (aside / "reason.txt").read_text()
        damage(two_generations.index_folder / older / "vectors.faiss", random.Random(seed))
        found, warnings = search(Retriever(two_generations, encoder), encoder)
        assert (len(found), len(warnings)) == (300, 1)
        assert generations_of(two_generations).names() == []
    report = reindex(two_generations, encoder)
    assert report.encoded.encoded == 0
    assert report.indexed.is_new
    assert len(search(Retriever(two_generations, encoder), encoder)[0]) == 300
    assert len(generations_of(two_generations).set_aside_names()) == 2  # kept


def test_a_generation_of_another_form_or_database_is_set_aside(
    two_generations: Database, encoder: BiEncoder, tmp_path: Path
) -> None:
    newest, older = generations_of(two_generations).names()
    folder = two_generations.index_folder / newest
    future = json.loads((folder / "manifest.json").read_bytes()) | {"format": 2}
    (folder / "manifest.json").write_text(json.dumps(future))
    name = f"g000007-{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()[:16]}"
    folder.rename(two_generations.index_folder / name)
    _, (warning,) = search(Retriever(two_generations, encoder), encoder)
    assert name in warning
    assert "of no form that this version reads: format" in warning

    other = Database.at(tmp_path / "other" / "lostfound.db")
    back_up(two_generations, tmp_path / "backup.db")
    restore(other, tmp_path / "backup.db")
    Ingest(other, encoder).upsert([ImportedItem(reference="X-1", description="of the other office")])
    reindex(other, encoder)
    Ingest(two_generations, encoder).upsert(
        [ImportedItem(reference=f"Y-{n}", description=f"ours, {n}") for n in range(9)]
    )
    (foreign,) = generations_of(other).names()
    shutil.copytree(other.index_folder / foreign, two_generations.index_folder / foreign.replace("g000001", "g000009"))
    retriever = Retriever(two_generations, encoder)
    found, (warning,) = search(retriever, encoder)
    assert len(found) == 309
    assert "does not lead on from it" in warning
    assert search(retriever, encoder)[1] == []
    assert len(generations_of(two_generations).names()) == 2  # left to the reindex
    reindex(two_generations, encoder)
    assert older in generations_of(two_generations).names()
    assert len(generations_of(two_generations).names()) == 2
    assert len(generations_of(two_generations).set_aside_names()) == 2


def test_in_a_folder_that_may_not_be_written_a_damaged_generation_is_passed_over(
    two_generations: Database, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, older = generations_of(two_generations).names()
    flip(two_generations.index_folder / newest / "vectors.faiss", random.Random(1))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)  # root may do everything, so the permissions alone would not do
    retriever = Retriever(two_generations, encoder)
    assert len(search(retriever, encoder)[1]) == 1
    assert search(retriever, encoder)[1] == []
    assert generations_of(two_generations).names() == [newest, older]


def test_what_cannot_be_read_for_a_while_is_passed_over_and_left_alone(
    two_generations: Database, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, older = generations_of(two_generations).names()
    real = faiss.read_index

    def fail(path: str, flags: int) -> faiss.Index:
        if newest in path:
            raise RuntimeError("could not mmap: Cannot allocate memory")
        return real(path, flags)

    monkeypatch.setattr(faiss, "read_index", fail)
    retriever = Retriever(two_generations, encoder)
    _, (warning,) = search(retriever, encoder)
    assert f"index {newest} is not used, it cannot be read: FAISS" in warning
    assert search(retriever, encoder)[1] == []
    monkeypatch.setattr(faiss, "read_index", real)
    monkeypatch.setattr("search.index.generations.time.monotonic", lambda: time.perf_counter() + 1e6)
    search(retriever, encoder)
    assert retriever._current is not None
    assert retriever._current.generation == newest
    assert generations_of(two_generations).names() == [newest, older]


def test_where_the_folder_is_no_folder_searches_go_on_and_a_reindex_says_so(
    two_generations: Database, encoder: BiEncoder
) -> None:
    shutil.rmtree(two_generations.index_folder)
    two_generations.index_folder.write_text("a file")
    found, (warning,) = search(Retriever(two_generations, encoder), encoder)
    assert (len(found), "it is no folder" in warning) == (300, True)
    with pytest.raises(IndexFileError, match="cannot be used, it is no folder"):
        reindex(two_generations, encoder)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_only_bears_the_name_of_a_generation_is_set_aside(
    two_generations: Database, encoder: BiEncoder, make: Callable[[Path], None]
) -> None:
    newest, older = generations_of(two_generations).names()
    make(two_generations.index_folder / "g000009-0123456789abcdef")
    found, warnings = search(Retriever(two_generations, encoder), encoder)
    assert (len(found), len(warnings)) == (300, 1)
    assert generations_of(two_generations).names() == [newest, older]


def test_a_reader_that_may_not_see_the_latest_changes_moves_nothing(
    two_generations: Database, encoder: BiEncoder
) -> None:
    names = generations_of(two_generations).names()
    immutable = Database(make_url(f"sqlite:///file:{two_generations.file}?immutable=1&uri=true"))
    with two_generations.read():  # keeps the changes in the WAL
        Ingest(two_generations, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
        reindex(two_generations, encoder, keep=3)
        assert len(search(Retriever(immutable, encoder), encoder)[0]) == 300
        assert len(generations_of(two_generations).names()) == len(names) + 1
        assert len(search(Retriever(two_generations, encoder), encoder)[0]) == 301


def test_a_full_disk_publishes_nothing_and_the_earlier_generation_serves(
    kind: str, two_generations: Database, encoder: BiEncoder
) -> None:
    Ingest(two_generations, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    names = generations_of(two_generations).names()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for size in (*range(0, 60_000, 2_500), resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            reindex(two_generations, encoder)
        except (IndexFileError, DatabaseError):  # of the database's own files, where there is not even room for those
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        assert len(search(Retriever(two_generations, encoder), encoder)[0]) == 301
        if generations_of(two_generations).names() != names:
            break
        assert {path.name for path in two_generations.index_folder.iterdir()} == {*names, ".lock"}
    assert refused >= 3
    assert generations_of(two_generations).names() != names


def test_a_disk_that_fails_to_sync_publishes_nothing_that_it_does_not_hold(
    two_generations: Database, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ingest(two_generations, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    names = generations_of(two_generations).names()
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
                reindex(two_generations, encoder)
            except IndexFileError:
                failures += 1
        assert len(search(Retriever(two_generations, encoder), encoder)[0]) == 301
        if generations_of(two_generations).names() != names:
            break
    assert failures == 4  # vectors, manifest, its folder; at the fourth, after the rename, it is published
    assert len(generations_of(two_generations).names()) == 3


def test_what_the_disk_does_not_hold_as_it_was_written_is_not_published(
    two_generations: Database, encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ingest(two_generations, encoder).upsert([ImportedItem(reference="N-1", description="a new hat")])
    names = generations_of(two_generations).names()
    real = os.fsync

    def lose_the_end(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.name == "vectors.faiss":
            os.truncate(path, path.stat().st_size - 100)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", lose_the_end)
    with pytest.raises(DamagedIndexError, match="does not have the size and checksum"):
        reindex(two_generations, encoder)
    assert generations_of(two_generations).names() == names
