"""What a search may show is computed anew in float32 where its graph is coarser: it has the score of the model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_pairs, make_tiny_reranker, with_threshold
from sentence_transformers import CrossEncoder

from search.conversion import save_graph, variants, write_notes
from search.early_exit import JUST_BELOW, EarlyExit, Estimate
from search.errors import ModelError
from search.graph import CLOSE, Graph
from search.graph_notes import EXACT, EXACT_WEIGHTS, GRAPH, NOTES, WEIGHTS, read_notes, sha256
from search.logistic import sigmoid
from search.optimise import COARSE_PACE, _paces, objection
from search.reranker import Reranker
from search.threshold import load_threshold
from search.training.corpus import Split, load_corpus
from search.training.pairs import Origin, Pair, twin_pairs
from search.training.threshold_fit import fit_threshold

Run = Callable[..., tuple[int, str, str]]

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
    np.testing.assert_allclose(scores[~is_close], sigmoid(own)[~is_close], atol=1e-4)
    assert (np.abs(scores - expected)[~is_close] > 1e-3).mean() > 0.5
    assert sum(done) == len(PAIRS)


def test_what_leaves_early_gets_no_second_look_and_what_goes_on_does(folder: Path, model: Reranker) -> None:
    graph, expected = Graph(folder, model.fingerprint), model.score_pairs(PAIRS)
    (_, known), exact = graph.on_the_way(PAIRS, np.full(len(PAIRS), -np.inf))
    np.testing.assert_allclose(sigmoid(exact[:, 0]), expected, atol=1e-6)
    needed = graph.run(PAIRS)[:, 0] - 1  # all are close
    estimate = Estimate(weights=(*[0.01] * known.shape[1], -1), bias=0, margin=0)
    excess = estimate.excess(known, needed)
    estimate = estimate.model_copy(update={"margin": float(np.median(excess))})
    early = EarlyExit(estimates=(None, estimate), kept=1, searches=50, reranked=1, going_on=(1, 0.5), layers=0.8)
    write_notes(folder, graph.notes.model_copy(update={"early_exit": early}))
    done: list[int] = []
    logits = Graph(folder, model.fingerprint).run(PAIRS, done.append, needed, may_leave=True)[:, 0]
    goes_on = excess >= estimate.margin
    assert 0.4 < goes_on.mean() < 0.6
    np.testing.assert_allclose(sigmoid(logits)[goes_on], expected[goes_on], atol=1e-6)
    left = needed + np.minimum(excess, -JUST_BELOW)
    np.testing.assert_allclose(logits[~goes_on], left[~goes_on], atol=1e-3)
    assert sum(done) == len(PAIRS)


def test_a_threshold_fitted_by_a_coarse_graph_is_that_of_its_model(folder: Path, model: Reranker) -> None:
    pairs = [Pair(lost, found, number % 2, Origin.MATCH, str(number)) for number, (lost, found) in enumerate(PAIRS)]
    by_graph = fit_threshold(Reranker(model.name, "cpu", graphs=folder.parent), pairs, "these")
    by_model = fit_threshold(model, pairs, "these")
    assert by_graph.threshold == pytest.approx(by_model.threshold, abs=1e-6)
    assert (by_graph.precision[:5], by_model.precision) == ("int8:", "float32")


def test_a_graph_from_before_there_were_second_looks_is_refused(folder: Path, model: Reranker) -> None:
    notes = json.loads((folder / NOTES).read_text())
    (folder / NOTES).write_text(json.dumps(notes | {"format": 1}))
    with pytest.raises(ModelError, match=r"format.*make it anew with `lostfound optimise`"):
        Graph(folder, model.fingerprint)


def test_a_graph_in_float32_needs_no_second_look(model: Reranker, tmp_path: Path) -> None:
    save_graph(model, variants(int8=False)[-1], [], tmp_path / "graph")
    assert not Graph(tmp_path / "graph", model.fingerprint).notes.looks_twice
    assert not (tmp_path / "graph" / EXACT_WEIGHTS).exists()


def test_a_coarse_graph_that_is_slower_than_its_float32_copy_does_not_serve(tmp_path: Path) -> None:
    graphs = {}
    for layers in (1, 24):
        of_depth = Reranker(str(make_tiny_reranker(tmp_path / f"model-{layers}", seed=1, layers=layers)), "cpu")
        graphs[layers] = tmp_path / f"graph-{layers}", of_depth.fingerprint
        save_graph(of_depth, variants(int8=False)[-1], [], graphs[layers][0])

    def objection_to(coarse: int, copy: int) -> str | None:
        """To a graph of so many layers, with a copy in float32 of so many others."""
        (made, fingerprint), other = graphs[coarse], graphs[copy][0]
        folder = shutil.copytree(made, tmp_path / f"{coarse}-beside-{copy}")
        for name, of_copy in ((GRAPH, EXACT), (WEIGHTS, EXACT_WEIGHTS)):
            shutil.copy(other / name, folder / of_copy)
        notes = read_notes(folder, fingerprint)
        checksums = {name: sha256(folder / name) for name in (EXACT, EXACT_WEIGHTS)}
        write_notes(folder, notes.model_copy(update={"sha256": notes.sha256 | checksums}))
        return objection(_paces(Graph(folder, fingerprint), PAIRS))

    assert objection_to(coarse=1, copy=24) is None
    assert COARSE_PACE in (objection_to(coarse=24, copy=1) or "")


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

    def shown_from(least: float, *options: str) -> dict[str, float]:
        _, out, _ = lostfound("search", "a black hat", "--json", "--top", "100", *options)
        shown = {match["description"]: match["score"] for match in json.loads(out)["matches"]}
        assert shown == pytest.approx(
            {found: score for (_, found), score in zip(PAIRS, expected, strict=True) if score >= least}, abs=1e-5
        )
        return shown

    shown = shown_from(threshold)
    lower = float(np.quantile(expected, 0.2))
    assert len(shown_from(lower, "--min-score", str(lower))) > len(shown)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"lost": "a black hat", "found": found}) + "\n" for found in shown))
    _, out, _ = lostfound("score", str(pairs))
    scored = [json.loads(line)["score"] for line in out.splitlines()]
    assert scored == pytest.approx(list(shown.values()), abs=1e-5)


@pytest.mark.slow
def test_the_shipped_reranker_decides_in_int8_nearly_and_with_a_second_look_entirely_as_in_float32(
    shipped_reranker: Reranker, tmp_path: Path
) -> None:
    corpus = load_corpus()
    examples = [(pair.lost, pair.found) for pair in twin_pairs(corpus.objects[Split.TRAIN])[:200]]
    int8 = variants(int8=True)[0]
    save_graph(shipped_reranker, int8, examples, tmp_path / shipped_reranker.fingerprint[:16])
    fast = Reranker(shipped_reranker.name, "cpu", graphs=tmp_path)
    assert fast.precision.startswith("int8:")
    pairs = [(pair.lost, pair.found) for pair in twin_pairs(corpus.objects[Split.VALIDATION])[:600]]
    threshold = load_threshold(shipped_reranker)
    assert threshold is not None
    needed = threshold.needed(np.zeros(len(pairs)))
    expected, scores, shown = (
        shipped_reranker.score_pairs(pairs), fast.score_pairs(pairs), fast.score_pairs(pairs, needed=needed)
    )  # fmt: skip
    assert ((expected >= threshold.threshold) != (scores >= threshold.threshold)).mean() < 0.015
    assert np.abs(expected - scores).mean() < 0.02
    is_shown = expected >= threshold.threshold + 1e-4
    assert 50 < is_shown.sum() < 300
    np.testing.assert_allclose(shown[is_shown], expected[is_shown], atol=1e-4)
    assert (shown[expected < threshold.threshold - 1e-4] < threshold.threshold).all()
