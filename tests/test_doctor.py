"""Every way in which stored data can be wrong is found, named, and mended where no choice is needed."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from search.encoder import BiEncoder
from search.ingest import Ingest
from search.item_input import ImportedItem
from search.model_folder import BUILT_IN_RERANKER, find_model
from search.reindex import reindex
from storage.database import Database

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stocked(lostfound: Run, reranker_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """An office with 20 hats, all well."""
    shutil.copytree(reranker_folder, tmp_path / "reranker")
    monkeypatch.setenv("LOSTFOUND_RERANKER", str(tmp_path / "reranker"))
    pairs = tmp_path / "pairs.csv"
    rows = [f"hat {n},a hat,{label}" for n in range(10) for label in (0, 1)]
    pairs.write_text("\n".join(["sentence_0,sentence_1,label", *rows]))
    lostfound("init")
    items = tmp_path / "items.csv"
    items.write_text("\n".join(["reference,description", *[f"H-{n},a hat number {n}" for n in range(20)]]))
    assert lostfound("import", str(items))[0] == 0
    assert lostfound("calibrate", "--pairs", str(pairs))[0] == 0
    return lostfound


def findings(run: Run, *options: str) -> dict[str, str]:
    code, out, _ = run("doctor", "--json", *options)
    told = json.loads(out)["findings"]
    assert code == bool(told)
    return {finding["what"]: finding["mended_by"] for finding in told}


def test_a_sound_office_is_told_so(stocked: Run) -> None:
    assert stocked("doctor")[:2] == (0, "All is well with 20 items.\n")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM item_vectors WHERE item_id IN (3, 4)", "2 items have no vector of encoder"),
        ("UPDATE items SET description = 'an umbrella' WHERE id = 5", "1 items have a vector of an earlier text"),
        ("DELETE FROM items WHERE id = 7", "2 vectors or changes are of items that do not exist"),
        ("UPDATE item_vectors SET vector = zeroblob(128) WHERE item_id = 6", "1 items have a damaged vector"),
        ("UPDATE item_vectors SET vector = x'00' WHERE item_id = 6", "1 items have a damaged vector"),
    ],
)
def test_what_a_reindex_mends_is_found_and_repaired(stocked: Run, office: Path, statement: str, told: str) -> None:
    with sqlite3.connect(office / "lostfound.db") as database:
        database.execute(statement)
    database.close()
    (finding,) = findings(stocked).items()
    assert finding[0].startswith(told)
    assert finding[1] == "lostfound doctor --repair"
    assert findings(stocked, "--repair") == {}
    assert findings(stocked) == {}


@pytest.mark.parametrize(
    ("statement", "told", "mended_by"),
    [
        ("UPDATE items SET found_on = '31.12.2026' WHERE id = 9", "item number 9 has a field that cannot", "restore"),
        ("PRAGMA journal_mode = DELETE", "the database is in journal mode 'delete'", "lostfound init"),
        (
            "UPDATE item_vectors SET encoder = 'other'",
            "all vectors are of another encoder",
            "set LOSTFOUND_ENCODER back",
        ),
    ],
)
def test_what_needs_a_choice_is_told_and_left_alone(
    stocked: Run, office: Path, statement: str, told: str, mended_by: str
) -> None:
    with sqlite3.connect(office / "lostfound.db") as database:
        database.execute(statement)
    database.close()
    for options in ((), ("--repair",)):
        (finding,) = findings(stocked, *options).items()
        assert finding[0].startswith(told)
        assert mended_by in finding[1]


def test_a_repair_sets_a_damaged_index_aside_but_does_not_change_the_encoder(
    stocked: Run, office: Path, other_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked("reindex")
    (file,) = office.glob("lostfound.db.index/g*/vectors.faiss")
    file.write_bytes(b"")
    with monkeypatch.context() as cron:
        cron.setenv("LOSTFOUND_ENCODER", str(other_encoder_folder))
        assert any("set LOSTFOUND_ENCODER back" in mended_by for mended_by in findings(stocked, "--repair").values())
    matches = json.loads(stocked("search", "a hat", "--all", "--json", "--top", "100")[1])["matches"]
    assert len(matches) == 20
    assert findings(stocked, "--repair") == {}


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE items SET status = 'disposed' WHERE id IN (3, 4)", "2 vectors are in it and should not be"),
        ("UPDATE items SET status = 'held' WHERE id = 20", "1 vectors are not in it"),
        (
            "UPDATE item_vectors SET vector = (SELECT vector FROM item_vectors WHERE item_id = 9) WHERE item_id = 8",
            "1 vectors are in it otherwise",
        ),
        ("DELETE FROM changes", "the change log of the database does not lead on from it"),
    ],
)
@pytest.mark.parametrize("exact_up_to", [0, 10**9])
def test_an_index_that_is_not_what_the_database_says_is_found_and_replaced(
    stocked: Run, office: Path, statement: str, told: str, exact_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.index.build.EXACT_UP_TO", exact_up_to)
    stocked("dispose", "H-19")
    assert stocked("reindex")[0] == 0
    assert findings(stocked) == {}
    with sqlite3.connect(office / "lostfound.db") as database:
        database.execute(statement)
    database.close()
    (finding,) = findings(stocked).items()
    assert finding[0].startswith("index g000001-")
    assert told in finding[0]
    assert finding[1] == "lostfound doctor --repair"
    assert findings(stocked, "--repair") == {}
    (aside,) = (office / "lostfound.db.index" / "set-aside").iterdir()
    assert told in (aside / "reason.txt").read_text()


def test_damaged_files_of_the_index_are_found_and_replaced(stocked: Run, office: Path) -> None:
    for number, file in enumerate(("manifest.json", "vectors.faiss")):
        stocked("add", f"a scarf, {number}")
        stocked("reindex", "--keep", "3")
        (newest,) = (office / "lostfound.db.index").glob(f"g00000{2 * number + 1}-*")
        content = (newest / file).read_bytes()
        (newest / file).write_bytes(content[:-20] + b"?" + content[-19:])
        ((told, mended_by),) = findings(stocked).items()
        assert f"index {newest.name} is not sound: {file}" in told
        assert mended_by == "lostfound doctor --repair"
        assert findings(stocked, "--repair") == {}
        assert findings(stocked) == {}


def test_vectors_that_a_kept_index_needs_are_no_fault(
    stocked: Run, office: Path, other_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked("reindex")
    monkeypatch.setenv("LOSTFOUND_ENCODER", str(other_encoder_folder))
    assert "set LOSTFOUND_ENCODER back" in next(iter(findings(stocked).values()))
    assert stocked("reindex")[0] == 0
    assert findings(stocked) == {}
    with sqlite3.connect(office / "lostfound.db") as database:
        copied = "SELECT item_id, 'another', text_hash, vector FROM item_vectors LIMIT 7"
        database.execute(f"INSERT INTO item_vectors {copied}")
    database.close()
    assert findings(stocked) == {}  # of a process, maybe, that has not gone over to the present encoder
    assert stocked("reindex")[0] == 0
    with sqlite3.connect(office / "lostfound.db") as database:
        assert database.execute("SELECT count(*) FROM item_vectors").fetchone() == (20,)
        database.execute(f"INSERT INTO item_vectors {copied}")
    database.close()
    (told,) = findings(stocked)
    assert told == "7 vectors are of other encoders and no index needs them"
    assert findings(stocked, "--repair") == {}


def test_an_index_that_a_search_has_set_aside_is_told_until_there_is_a_newer_one(stocked: Run, office: Path) -> None:
    for _ in range(2):
        stocked("reindex", "--keep", "1")
        (file,) = office.glob("lostfound.db.index/g*/vectors.faiss")
        file.write_bytes(b"")
        assert "lostfound doctor" in stocked("search", "a hat", "--all")[2]
        ((told, mended_by),) = findings(stocked).items()
        assert file.parent.name in told
        assert "reason.txt" in told
        assert mended_by == "lostfound doctor --repair"
        assert findings(stocked, "--repair") == {}
        stocked("add", "one more")


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_an_index_folder_that_is_none_is_told(stocked: Run, office: Path, make: Callable[[Path], None]) -> None:
    make(office / "lostfound.db.index")
    assert stocked("search", "a hat", "--all")[0] == 0
    code, _, error = stocked("reindex")
    assert (code, "cannot be used, it is no folder, or a link to nowhere" in error) == (1, True)
    assert "cannot be used" in stocked("status")[1]
    assert list(findings(stocked).values()) == ["mend that, then lostfound reindex"]


def test_the_doctor_has_nothing_to_say_of_an_office_at_work(stocked: Run, office: Path, encoder: BiEncoder) -> None:
    database, done = Database.at(office / "lostfound.db"), threading.Event()
    stocked("reindex")

    def work() -> None:
        ingest, number = Ingest(database, encoder), 0
        while not done.is_set():
            number += 1
            ingest.upsert([ImportedItem(reference=f"W-{number % 50}", description=f"hat {number}")])
            reindex(database, encoder, keep=1)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            assert findings(stocked) == {}
    finally:
        done.set()
        worker.join()


def test_the_files_of_the_index_are_examined_without_an_encoder_too(
    stocked: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked("reindex")
    monkeypatch.setenv("LOSTFOUND_ENCODER", "/nowhere")
    ((_, mended_by),) = findings(stocked).items()
    assert mended_by == "set LOSTFOUND_ENCODER"
    (file,) = office.glob("lostfound.db.index/g*/vectors.faiss")
    file.write_bytes(b"")
    assert sorted(findings(stocked).values()) == ["lostfound doctor --repair", "set LOSTFOUND_ENCODER"]


def test_an_item_deleted_by_hand_is_told_to_the_clerk(stocked: Run, office: Path) -> None:
    stocked("reindex")
    with sqlite3.connect(office / "lostfound.db") as database:
        database.execute("DELETE FROM items WHERE id = 7")
    database.close()
    code, _, error = stocked("search", "a hat", "--all")
    assert (code, "item number 7 is in the index" in error, "lostfound doctor --repair" in error) == (1, True, True)
    assert findings(stocked, "--repair") == {}
    assert stocked("search", "a hat", "--all")[0] == 0


def test_a_damaged_file_needs_a_backup(stocked: Run, office: Path) -> None:
    path = office / "lostfound.db"
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)
    code, out, error = stocked("doctor", "--json")
    assert code == 1
    assert "lostfound restore BACKUP" in out + error


def test_weights_that_cannot_be_loaded_are_found(
    stocked: Run, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(encoder_folder, tmp_path / "encoder")
    weights = tmp_path / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setenv("LOSTFOUND_ENCODER", str(tmp_path / "encoder"))
    assert "set LOSTFOUND_ENCODER" in findings(stocked).values()


def test_models_and_thresholds_that_cannot_be_used_are_found(
    stocked: Run, office: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSTFOUND_RERANKER", str(encoder_folder))
    (told,) = findings(stocked).items()
    assert (told[1], "is no cross-encoder" in told[0]) == ("set LOSTFOUND_RERANKER", True)
    monkeypatch.setenv("LOSTFOUND_RERANKER", str(find_model(BUILT_IN_RERANKER)))
    (told,) = findings(stocked).items()
    assert (told[1], "of another reranker" in told[0]) == ("lostfound calibrate", True)
    (office / "threshold.json").write_text("{")
    (told,) = findings(stocked).items()
    assert (told[1], "is no threshold" in told[0]) == ("lostfound calibrate", True)
    (office / "threshold.json").unlink()
    assert findings(stocked) == {}
