"""Pairs that seem unable to match leave a graph early, and what goes on gets the very score it had."""

import json
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import make_pairs, make_tiny_reranker, with_threshold

from search.conversion import save_graph, variants, write_notes
from search.early_exit import EarlyExit, Estimate, features
from search.encoder import BiEncoder
from search.errors import FingerprintError, ModelError
from search.graph import Graph
from search.logistic import sigmoid
from search.reranker import Reranker
from search.threshold import FILE_NAME, load_threshold, require_precision
from search.types import Scores

Run = Callable[..., tuple[int, str, str]]

PAIRS = make_pairs(100)


@pytest.fixture(scope="module")
def deep_reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """Of four layers, so that it is cut after each but the last."""
    return Reranker(str(make_tiny_reranker(tmp_path_factory.mktemp("deep"), seed=1, layers=4)), "cpu")


@pytest.fixture
def folder(deep_reranker: Reranker, tmp_path: Path) -> Path:
    """A folder with its graph in float32."""
    folder = tmp_path / "graphs" / deep_reranker.fingerprint[:16]
    save_graph(deep_reranker, variants(int8=False)[-1], [], folder)
    return folder


NEEDED = np.random.default_rng(2).normal(scale=0.1, size=len(PAIRS)).astype(np.float32)
"""Logits with which the pairs would be shown."""


def with_exit(
    folder: Path, graph: Graph, share: float = 0.6, threshold: float = 0.5, encoder: str = "an encoder"
) -> EarlyExit:
    """Writes an early exit by random estimates by each of which this share of PAIRS goes on."""
    known, _ = graph.on_the_way(PAIRS, NEEDED)
    rng = np.random.default_rng(1)
    estimates = []
    for of_part in known:
        weights = tuple(map(float, rng.normal(size=of_part.shape[1] + 1)))
        estimate = Estimate(weights=weights, bias=0.5, margin=0)
        margin = float(np.quantile(estimate.excess(of_part, NEEDED), 1 - share))
        above_all = 1 if share == 0 else 0
        estimates.append(estimate.model_copy(update={"margin": margin + above_all}))
    going_on = tuple(share ** (number + 1) for number in range(len(known)))
    early = EarlyExit(estimates=tuple(estimates), kept=1, searches=50, reranked=1, going_on=going_on, layers=0.5)
    write_notes(folder, graph.notes.model_copy(update={"early_exit": early, "early_exit_for": (threshold, encoder)}))
    return early


def test_a_graph_in_parts_answers_as_its_model(folder: Path, deep_reranker: Reranker) -> None:
    graph = Graph(folder, deep_reranker.fingerprint)
    known, logits = graph.on_the_way(PAIRS, NEEDED)
    np.testing.assert_allclose(sigmoid(logits[:, 0]), deep_reranker.score_pairs(PAIRS), atol=1e-5)
    assert (graph.cuts, [part.shape for part in known]) == ([0.25, 0.5, 0.75], [(len(PAIRS), 5 * 32)] * 3)


def test_parts_give_the_states_of_the_layers_that_they_are_cut_after(folder: Path, deep_reranker: Reranker) -> None:
    deep_reranker.load()
    model = deep_reranker._model()
    known, _ = Graph(folder, deep_reranker.fingerprint).on_the_way(PAIRS, NEEDED)
    tokens = model.tokenizer(PAIRS, padding=True, truncation=True, max_length=model.max_seq_length, return_tensors="pt")
    states = model.transformers_model.bert(**tokens, output_hidden_states=True).hidden_states
    mask, types = (tokens[name].numpy() for name in ("attention_mask", "token_type_ids"))
    for of_part, layers in zip(known, (1, 2, 3), strict=True):
        expected = features(states[layers].detach().numpy(), mask, types)
        np.testing.assert_allclose(of_part, expected, atol=1e-4)


def test_a_graph_of_an_encoder_is_not_cut(graphs: Path, encoder: BiEncoder) -> None:
    assert Graph(graphs / encoder.fingerprint[:16], encoder.fingerprint).cuts == []


def test_pairs_that_leave_early_are_below_what_they_need_and_the_others_as_they_were(
    folder: Path, deep_reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.graph.TEXTS_PER_STEP", 17)
    graph = Graph(folder, deep_reranker.fingerprint)
    early = with_exit(folder, graph, share=0.7)
    known, logits = graph.on_the_way(PAIRS, NEEDED)
    scores = sigmoid(logits[:, 0])
    fast = Reranker(deep_reranker.name, "cpu", graphs=folder.parent)
    assert fast.may_leave_early(0.5, "an encoder")
    assert not fast.may_leave_early(0.5, "another")
    assert not fast.may_leave_early(0.6, "an encoder")
    first, second, third = (
        estimate.excess(of_part, NEEDED) < estimate.margin
        for estimate, of_part in zip(early.estimates, known, strict=True)
        if estimate
    )
    leaves = first | second | third
    assert 10 <= (second & ~first).sum() <= first.sum() <= 45
    assert 10 <= (third & ~first & ~second).sum() <= (~leaves).sum()
    found: Scores = fast.score_pairs(PAIRS, needed=NEEDED, may_leave=True)
    np.testing.assert_allclose(found[~leaves], scores[~leaves], atol=1e-5)
    assert (found[leaves] < sigmoid(NEEDED)[leaves]).all()
    assert (found[leaves] != scores[leaves]).all()
    np.testing.assert_allclose(fast.score_pairs(PAIRS), scores, atol=1e-5)
    last_alone = early.model_copy(update={"estimates": (None, None, early.estimates[2])})
    write_notes(folder, graph.notes.model_copy(update={"early_exit": last_alone}))
    found = Graph(folder, deep_reranker.fingerprint).run(PAIRS, needed=NEEDED, may_leave=True)[:, 0]
    np.testing.assert_allclose(sigmoid(found)[~third], scores[~third], atol=1e-5)
    assert (found[third] < NEEDED[third]).all()


def test_threads_may_share_a_graph_and_a_failure_leaves_it_fit_for_use(folder: Path, deep_reranker: Reranker) -> None:
    with_exit(folder, Graph(folder, deep_reranker.fingerprint))
    graph = Graph(folder, deep_reranker.fingerprint)
    alone = [graph.run(PAIRS[start:], needed=NEEDED[start:], may_leave=True) for start in range(8)]

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda start: graph.run(PAIRS[start:], needed=NEEDED[start:], may_leave=True), range(8))
        with pytest.raises(KeyboardInterrupt):
            graph.run(PAIRS * 10, interrupted)
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(graph.run(PAIRS, needed=NEEDED, may_leave=True), alone[0], atol=1e-4)


def test_a_search_that_shows_all_or_asks_for_less_lets_nothing_leave(
    office: Path,
    folder: Path,
    lostfound: Run,
    deep_reranker: Reranker,
    encoder: BiEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOSTFOUND_RERANKER", deep_reranker.name)
    shutil.copytree(folder.parent, office / "graphs")
    lostfound("init")
    for _, found in PAIRS[:40]:
        lostfound("add", found)

    def answers(*options: str) -> dict[str, float]:
        _, out, _ = lostfound("search", "a black hat", "--json", "--top", "100", *options)
        return {match["reference"]: match["score"] for match in json.loads(out)["matches"]}

    whole = answers("--all")
    middle = float(np.median(list(whole.values())))
    fitted = load_threshold(Reranker(str(with_threshold(Path(deep_reranker.name), middle)), "cpu"))
    assert fitted is not None
    fitted.save(office / FILE_NAME)
    (Path(deep_reranker.name) / FILE_NAME).unlink()
    present = office / "graphs" / folder.name
    graph = Graph(present, deep_reranker.fingerprint)
    with_exit(present, graph, share=0.0, threshold=middle)
    shown = {name: score for name, score in whole.items() if score >= middle + 0.001}
    assert answers("--min-score", str(middle + 0.001)) == pytest.approx(shown, abs=1e-4)  # it was for another encoder
    assert "with another encoder" in json.loads(lostfound("status", "--json")[1])["threshold"]["graph"]
    with_exit(present, graph, share=0.0, threshold=middle, encoder=encoder.fingerprint)
    assert answers("--all") == pytest.approx(whole, abs=1e-4)
    assert answers("--min-score", str(middle - 0.001)) == pytest.approx(
        {name: score for name, score in whole.items() if score >= middle - 0.001}, abs=1e-4
    )
    assert answers("--min-score", str(middle + 0.001)) == {}  # as all leave
    _, out, _ = lostfound("status", "--json")
    assert json.loads(out)["reranker"]["computed by"] == "OpenVINO, float32, 100% leave early"


def test_of_a_precision_the_graphs_own_figure_counts_before_that_of_torch(
    folder: Path, deep_reranker: Reranker, tmp_path: Path
) -> None:
    copy = with_threshold(shutil.copytree(deep_reranker.name, tmp_path / "reranker"), 0.5)
    fitted = load_threshold(Reranker(str(copy), "cpu"))
    assert fitted is not None
    fitted = fitted.model_copy(update={"precision": "bfloat16", "flipped": {"float32": 0.02}})
    notes = Graph(folder, deep_reranker.fingerprint).notes

    def by_graph(flipped: float) -> Reranker:
        write_notes(folder, notes.model_copy(update={"figures": {"threshold": 0.5, "flipped": flipped}}))
        return Reranker(deep_reranker.name, "cpu", graphs=folder.parent)

    require_precision(fitted, by_graph(flipped=0.001))
    with pytest.raises(FingerprintError, match=r"2\.0%"):
        require_precision(fitted.model_copy(update={"flipped": {"float32": 0.001}}), by_graph(flipped=0.02))


def test_a_graph_that_does_not_fit_on_the_disk_is_an_error_of_the_disk(deep_reranker: Reranker, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))  # the tokenizer fits, the weights do not
    try:
        with pytest.raises(OSError, match=r"model\.xml"):
            save_graph(deep_reranker, variants(int8=False)[-1], [], tmp_path / "graph")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_early_exit_of_another_width_is_refused(folder: Path, deep_reranker: Reranker) -> None:
    graph = Graph(folder, deep_reranker.fingerprint)
    early = with_exit(folder, graph)
    first, *others = early.estimates
    assert first is not None
    narrow = first.model_copy(update={"weights": (0.0,) * 7})
    for wrong in ((narrow, *others), (first,)):
        other = early.model_copy(update={"estimates": wrong})
        write_notes(folder, graph.notes.model_copy(update={"early_exit": other}))
        with pytest.raises(ModelError, match="does not fit its early exit"):
            Graph(folder, deep_reranker.fingerprint)


def test_features_are_the_first_state_the_means_of_both_texts_their_product_and_distance() -> None:
    hidden = np.array([[[1, 2], [3, 4], [5, 8], [100, 100]]], dtype=np.float32)
    mask, types = np.array([[1, 1, 1, 0]]), np.array([[0, 0, 1, 0]])
    np.testing.assert_allclose(features(hidden, mask, types), [[1, 2, 2, 3, 5, 8, 10, 24, 3, 5]])
