"""Pairs that cannot match leave a graph early, and nothing that a search shows is another."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from search.conversion import with_early_exit, write_notes
from search.early_exit import EarlyExit, features, fit_early_exit
from search.encoder import BiEncoder
from search.errors import ModelError
from search.graph import EARLY_EXIT, Graph
from search.reranker import Reranker, sigmoid
from search.types import Scores

WORDS = ("a black", "red", "umbrella", "hat with", "torn handle", "small white logo", "on the bench")


def make_pairs(count: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 40))) for _ in range(2 * count)]
    return list(zip(texts[:count], texts[count:], strict=True))


PAIRS = make_pairs(100)


@pytest.fixture
def folder(graphs: Path, reranker: Reranker, tmp_path: Path) -> Path:
    """A folder with a copy of the reranker's graph."""
    copy = tmp_path / "graphs" / reranker.fingerprint[:16]
    copy.mkdir(parents=True)
    for file in (graphs / copy.name).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_a_graph_in_two_parts_answers_as_a_whole_one(folder: Path, reranker: Reranker) -> None:
    whole, halves = Graph(folder, reranker.fingerprint), Graph(folder, reranker.fingerprint, in_two=True)
    assert (whole.is_in_two, halves.is_in_two) == (False, True)
    np.testing.assert_allclose(halves.run(PAIRS), whole.run(PAIRS), atol=1e-5)
    known, logits = halves.halfway(PAIRS)
    np.testing.assert_allclose(logits, whole.run(PAIRS), atol=1e-5)
    assert known.shape == (len(PAIRS), 5 * 32)
    with pytest.raises(ModelError, match="cannot be left early"):
        whole.halfway(PAIRS)


def test_a_graph_of_one_layer_is_not_cut(graphs: Path, encoder: BiEncoder) -> None:
    assert not Graph(graphs / encoder.fingerprint[:16], encoder.fingerprint, in_two=True).is_in_two


def test_pairs_that_leave_early_are_below_the_threshold_and_the_others_as_they_were(
    folder: Path, reranker: Reranker
) -> None:
    graph = Graph(folder, reranker.fingerprint, in_two=True)
    known, logits = graph.halfway(PAIRS)
    scores = sigmoid(logits[:, 0])
    threshold = float(np.quantile(scores, 0.7))
    weights = np.random.default_rng(1).normal(size=known.shape[1])
    cut = float(np.quantile(known @ weights, 0.4))
    early = EarlyExit(threshold=threshold, weights=tuple(weights), bias=0.5, cut=cut + 0.5, kept=1, going_on=0.6)
    write_notes(folder, with_early_exit(folder, graph.notes, early))
    fast = Reranker(reranker.name, "cpu", graphs=folder.parent)

    leaves = early.estimates(known) < early.cut
    assert 30 <= leaves.sum() <= 50
    for least in (threshold, (1 + threshold) / 2):
        found: Scores = fast.score_pairs(PAIRS, least=least)
        np.testing.assert_allclose(found[~leaves], scores[~leaves], atol=1e-5)
        assert (found[leaves] < threshold).all()
        assert (found[leaves] != scores[leaves]).all()
    for least in (None, threshold - 1e-3, 0.0):
        np.testing.assert_allclose(fast.score_pairs(PAIRS, least=least), scores, atol=1e-5)


def test_a_changed_early_exit_is_refused(folder: Path, reranker: Reranker) -> None:
    graph = Graph(folder, reranker.fingerprint, in_two=True)
    early = EarlyExit(threshold=0.5, weights=(0.0,) * 160, bias=0, cut=0, kept=1, going_on=0.1)
    write_notes(folder, with_early_exit(folder, graph.notes, early))
    assert Graph(folder, reranker.fingerprint).early_exit == early
    (folder / EARLY_EXIT).write_text(json.dumps(early.model_dump() | {"cut": -1}))
    with pytest.raises(ModelError, match=r"early_exit.json is not what was written"):
        Graph(folder, reranker.fingerprint)


def test_features_are_the_first_state_the_means_of_both_texts_their_product_and_distance() -> None:
    hidden = np.array([[[1, 2], [3, 4], [5, 8], [100, 100]]], dtype=np.float32)
    mask, types = np.array([[1, 1, 1, 0]]), np.array([[0, 0, 1, 0]])
    np.testing.assert_allclose(features(hidden, mask, types), [[1, 2, 2, 3, 5, 8, 10, 24, 3, 5]])


def test_a_fitted_exit_keeps_what_searches_show_and_lets_the_rest_leave() -> None:
    rng = np.random.default_rng(3)
    searches, depth, threshold = 80, 100, 0.3
    known = rng.normal(size=(searches * depth, 20)).astype(np.float32)
    logits = (known @ rng.normal(size=20) - 6 + rng.normal(scale=0.3, size=len(known))).astype(np.float32)
    fitted = fit_early_exit(known, logits, threshold, depth)
    passing = float((sigmoid(logits) >= threshold).mean())
    assert fitted.kept > 0.9
    assert passing < fitted.going_on < passing + 0.1
    assert np.abs(fitted.estimates(known) - logits).mean() < 1
    assert fitted.highest_logit < math.log(threshold / (1 - threshold))

    noise = rng.normal(size=known.shape).astype(np.float32)
    assert fit_early_exit(noise, logits, threshold, depth).going_on > 0.5


def test_a_search_that_shows_more_than_ten_may_lose_those_behind_them() -> None:
    known = np.linspace(1, 0, 100, dtype=np.float32)[:, None].repeat(20, axis=1)
    logits = np.linspace(5, 1, 100, dtype=np.float32)
    fitted = fit_early_exit(np.concatenate([known] * 4), np.concatenate([logits] * 4), 0.5, 100)
    assert (fitted.kept, fitted.going_on) == (1, pytest.approx(0.1))
