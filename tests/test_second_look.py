"""What a search may show is computed anew in float32 where its graph is coarser: it has the score of the model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny_reranker, with_threshold
from sentence_transformers import CrossEncoder

from search.conversion import save_graph, variants, write_notes
from search.errors import ModelError
from search.graph import CLOSE, Graph
from search.graph_notes import EXACT_WEIGHTS
from search.logistic import sigmoid
from search.reranker import Reranker

Run = Callable[..., tuple[int, str, str]]

WORDS = ("a black", "red", "umbrella", "hat with", "torn handle", "small white logo", "on the bench")


def make_pairs(count: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(6)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(2 * count)]
    return list(zip(texts[:count], texts[count:], strict=True))


PAIRS = make_pairs(60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """With larger weights than a new model has, so that its scores differ."""
    folder = make_tiny_reranker(tmp_path_factory.mktemp("model"), seed=1, layers=3)
    larger = CrossEncoder(str(folder), device="cpu")
    for weights in larger.parameters():
        weights.data *= 1 + 7 * (weights.dim() > 1)
    larger.save_pretrained(str(folder))
    return Reranker(str(folder), "cpu")


@pytest.fixture(scope="module")
def made(model: Reranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its graph in int8, not to be changed."""
    folder = tmp_path_factory.mktemp("graphs") / model.fingerprint[:16]
    save_graph(model, variants(int8=True)[0], PAIRS, folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "graphs" / made.name)


def test_what_comes_near_what_it_needs_has_the_score_of_the_model_and_the_rest_that_of_the_graph(
    folder: Path, model: Reranker
) -> None:
    graph = Graph(folder, model.fingerprint)
    own, expected = graph.run(PAIRS)[:, 0], model.score_pairs(PAIRS)
    assert (np.abs(sigmoid(own) - expected) > 1e-4).mean() > 0.9  # int8 is coarser
    is_close = np.arange(len(PAIRS)) % 3 == 0
    needed = own + np.where(is_close, CLOSE - 0.05, CLOSE + 0.05)
    needed[1] = -np.inf
    is_close[1] = True
    done: list[int] = []
    scores = Reranker(model.name, "cpu", graphs=folder.parent).score_pairs(PAIRS, done.append, needed)
    np.testing.assert_allclose(scores[is_close], expected[is_close], atol=1e-6)
    np.testing.assert_array_equal(scores[~is_close], sigmoid(own)[~is_close])
    assert sum(done) == len(PAIRS)


def test_a_graph_in_float32_needs_no_second_look(model: Reranker, tmp_path: Path) -> None:
    save_graph(model, variants(int8=False)[-1], [], tmp_path / "graph")
    assert not Graph(tmp_path / "graph", model.fingerprint).notes.looks_twice
    assert not (tmp_path / "graph" / EXACT_WEIGHTS).exists()


def test_a_graph_with_a_damaged_second_look_is_refused(folder: Path, model: Reranker) -> None:
    weights = folder / EXACT_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ModelError, match=r"exact\.bin is not what was written; make it anew with `lostfound optimise`"):
        Graph(folder, model.fingerprint)


def test_searches_and_scored_pairs_show_the_scores_of_the_model(
    office: Path, folder: Path, model: Reranker, lostfound: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.score("a black hat", [found for _, found in PAIRS])
    threshold = float(np.median(expected))
    copy = with_threshold(shutil.copytree(model.name, tmp_path / "fitted"), threshold)
    monkeypatch.setenv("LOSTFOUND_RERANKER", str(copy))
    shutil.copytree(folder.parent, office / "graphs")
    notes = Graph(folder, model.fingerprint).notes.model_copy(
        update={"figures": {"threshold": threshold, "flipped": 0}}
    )
    write_notes(office / "graphs" / folder.name, notes)
    lostfound("init")
    for _, found in PAIRS:
        lostfound("add", found)
    _, out, _ = lostfound("search", "a black hat", "--json", "--top", "100")
    shown = {match["description"]: match["score"] for match in json.loads(out)["matches"]}
    assert shown == pytest.approx(
        {found: score for (_, found), score in zip(PAIRS, expected, strict=True) if score >= threshold}, abs=1e-5
    )
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"lost": "a black hat", "found": found}) + "\n" for found in shown))
    _, out, _ = lostfound("score", str(pairs))
    scored = [json.loads(line)["score"] for line in out.splitlines()]
    assert scored == pytest.approx(list(shown.values()), abs=1e-5)
