import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import with_threshold

from search.benchmark.rounds import Row, alternate, compare, rates
from search.benchmark.searching import Ranking, _agreement
from search.benchmark.workers import Worker
from search.errors import BenchmarkError
from search.training.corpus import Split, load_corpus
from search.training.inventory import inventory_texts

Run = Callable[..., tuple[int, str, str]]


def test_inventories_repeat_themselves_only_from_run_to_run() -> None:
    objects = load_corpus().objects[Split.TRAIN]
    texts = list(inventory_texts(objects, 5000, seed=1))
    assert len(set(texts)) == 5000
    assert texts[:100] == list(inventory_texts(objects, 100, seed=1))
    assert texts != list(inventory_texts(objects, 5000, seed=2))
    assert 80 < sum(map(len, texts)) / 5000 < 140  # as long as found descriptions are


def test_competitors_take_turns_and_one_that_fails_does_not_stop_the_others() -> None:
    turns: list[str] = []

    def good() -> float:
        turns.append("good")
        return 0.5 if len(turns) < 5 else 0.25

    def bad() -> float:
        turns.append("bad")
        raise BenchmarkError("no such peer")

    seconds = alternate({"good": good, "bad": bad}, rounds=3)
    assert seconds == {"good": [0.5, 0.5, 0.25], "bad": "no such peer"}
    assert turns == ["good", "bad", "good", "good", "good"]
    rows = [Row("s", name, rates(taken, 10, "pairs")) for name, taken in seconds.items()]
    assert rows[0].figures == {"pairs/s": 20, "slowest": 20, "fastest": 40}
    assert compare(rows, "pairs/s", "good")[0].figures["ratio"] == 1
    assert compare(rows, "pairs/s", "good")[1].figures == {"not measured": "no such peer"}


def test_answers_agree_in_the_first_in_all_in_their_order_and_in_so_much() -> None:
    ours: list[Ranking] = [[(1, 0.9), (2, 0.8)], [(4, 0.9), (5, 0.8)], []]
    theirs: list[Ranking] = [[(1, 0.9), (3, 0.7)], [(5, 0.9), (4, 0.9)], []]
    agreed = _agreement(ours, theirs)
    assert agreed == {"same first": 2 / 3, "same shown": 2 / 3, "... in order": 1 / 3, "in common": 3 / 5}
    assert set(_agreement([[]], [[]]).values()) == {1}
    assert set(_agreement([[(1, 0.9)]], [[]]).values()) == {0}


def test_a_peer_that_is_not_installed_or_ends_is_told(tmp_path: Path, reranker_folder: Path) -> None:
    with Worker(Path(sys.executable), tmp_path / "log") as worker:
        with pytest.raises(BenchmarkError, match=r"ModuleNotFoundError.*txtai"):
            worker.load("scorer", "txtai", reranker=str(reranker_folder))
        worker.load("scorer", "CrossEncoder.predict", reranker=str(reranker_folder))
        answer = worker.ask("score", pairs=[["a hat", "a hat"], ["a hat", "a cap"]])
        assert len(answer["scores"]) == 2
    with pytest.raises(BenchmarkError, match="has ended"):
        worker.ask("memory")
    with Worker(Path(sys.executable), tmp_path / "log") as worker:
        worker._process.kill()
        worker._process.wait()
        for _ in range(2):
            with pytest.raises(BenchmarkError, match="has ended"):
                worker.ask("memory")
    with pytest.raises(BenchmarkError, match="cannot be run"):
        Worker(tmp_path / "python", tmp_path / "log")


def test_without_graphs_there_is_nothing_to_measure(office: Path, lostfound: Run) -> None:
    code, _, err = lostfound("benchmark")
    assert (code, "run `lostfound optimise`" in err) == (1, True)


@pytest.mark.slow
def test_a_run_measures_everybody_and_names_who_is_missing(
    office: Path, graphs: Path, lostfound: Run, reranker_folder: Path, tmp_path: Path
) -> None:
    (office / "graphs").parent.mkdir(parents=True, exist_ok=True)
    (office / "graphs").symlink_to(graphs)
    with_threshold(reranker_folder, 0.01)  # so that ten are shown
    try:
        code, _, err = lostfound(
            "benchmark", "--items", "1000", "--rounds", "1", "--queries", "3", "--output", str(tmp_path / "out")
        )
    finally:
        (reranker_folder / "threshold.json").unlink()
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    rows = {(row["section"], row["name"]): row["figures"] for row in report["rows"]}
    ours = rows["reranking", "lostfound"]
    assert ours["pairs/s"] > 0
    assert ours["largest difference"] < 1e-4
    assert "txtai" in rows["reranking", "txtai"]["not measured"]
    assert rows["encoding", "lostfound"]["lowest cosine"] > 0.999
    assert report["peers"]["torch"] == report["machine"]["torch"]
    assert report["peers"]["txtai"] is None
    whole = rows["search among 1,000 items", "plain recipe"]
    assert whole["same first"] == 1
    assert whole["in common"] > 0.9  # the tenth may be nearly as good as the next
    assert rows["search among 1,000 items", "retrieval alone"]["recall@100"] == 1
    assert (tmp_path / "out" / "benchmark.png").stat().st_size > 10_000
