"""The figures against cases worked by hand, and the evaluation of models whose every score is known."""

from pathlib import Path

import numpy as np
import pytest

from search.encoder import BiEncoder
from search.likelihood import Calibration
from search.reranker import Reranker
from search.threshold import Threshold
from search.training import metrics
from search.training.baselines import bm25, pair_similarities
from search.training.corpus import Corpus, LostObject, SeveralReport, Split, StrayReport, VagueReport
from search.training.evaluation import Evaluation, Inventory, Queries, Results, by_category, ranks
from search.training.pairs import Origin, Pair, contradicting_pairs, twin_pairs
from search.training.plots import plot_evaluation


def test_decisions_are_judged_as_by_hand() -> None:
    labels, predicted = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0, 0, 0])
    assert metrics.precision(labels, predicted) == pytest.approx(2 / 3)
    assert metrics.recall(labels, predicted) == pytest.approx(2 / 3)
    assert metrics.f1(labels, predicted) == pytest.approx(2 / 3)
    assert metrics.accuracy(labels, predicted) == pytest.approx(6 / 8)
    nothing = np.zeros(8, dtype=np.int64)
    assert metrics.precision(labels, nothing) == metrics.recall(labels, nothing) == metrics.f1(labels, nothing) == 0


def test_average_precision_is_that_of_the_ranking_by_hand() -> None:
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.9, 0.8, 0.7, 0.2])
    assert metrics.average_precision(labels, scores) == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)


def test_an_interval_holds_its_figure_and_is_wider_for_cases_that_hang_together() -> None:
    cases = np.repeat(np.random.default_rng(1).integers(0, 2, 50), 10)
    alone = metrics.interval(metrics.share, [str(number) for number in range(500)], cases)
    together = metrics.interval(metrics.share, [str(number // 10) for number in range(500)], cases)
    assert alone[0] < metrics.share(cases) < alone[1]
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def at(threshold: float) -> Threshold:
    """A threshold, and scores taken for probabilities."""
    return Threshold(
        threshold=threshold, policy="by hand", fitted_on="nothing", pairs=0, figures={}, reranker="",
        precision="float32", flipped={}, calibration=Calibration(method="platt", scores=(0, 1), probabilities=(0, 1)),
    )  # fmt: skip


def thing(number: int, group: str, text: str) -> LostObject:
    return LostObject(
        object=f"{group}-{number}", group=group, kind="thing", category="other", facts=text, owner=text, mistake=False,
        found=(f"found: {text}", f"note: {text}"), lost=(text, f"my {text}"),
    )  # fmt: skip


@pytest.fixture
def things() -> list[LostObject]:
    colours = ("red", "green", "blue", "black", "white")
    return [thing(i, kind, f"{colour} {kind}") for kind in ("umbrella", "hat") for i, colour in enumerate(colours)]


def test_searches_count_a_retrieval_miss_as_a_miss_and_rank_by_score(
    shipped_encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    inventory = Inventory.of(things)
    queries = Queries.of_objects(inventory)
    shallow = Evaluation(shipped_encoder, reranker, at(0.0), depth=1)
    reranked = shallow.searches(queries, shallow.search(queries.texts, inventory))
    retrieved = shallow.baseline_searches(queries, inventory)["searches by the bi-encoder"]["recall@1"]
    assert reranked["recall@10"] == reranked["reports that keep their object"] == retrieved
    full = Evaluation(shipped_encoder, reranker, at(0.0), depth=10)
    baselines = full.baseline_searches(queries, inventory)
    assert baselines["searches by the bi-encoder"]["recall@10"].value == 1
    assert baselines["searches by BM25"]["recall@1"].value == 1  # every report names colour and kind

    results = full.search(queries.texts, inventory)
    places = []
    for lost, number in zip(queries.texts, queries.own, strict=True):
        scores = reranker.score(lost, inventory.texts)
        places.append(1 + int((scores > scores[number]).sum()))
    assert full.searches(queries, results)["MRR"].value == pytest.approx(np.mean([1 / n for n in places]), abs=1e-4)
    assert (np.diff(results.scores, axis=1) <= 0).all()


def test_an_item_tied_with_others_has_the_rank_at_which_it_is_shown(things: list[LostObject]) -> None:
    queries = Queries(["a", "b", "c"], np.array([3, 4, 9]), ["x", "y", "z"])
    results = Results(np.array([[1, 3, 4], [4, 1, 3], [1, 3, 4]]), np.full((3, 3), 0.5))
    assert ranks(results.hits(queries)).tolist() == [2, 1, np.inf]


def test_what_is_shown_is_judged_with_the_strays(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    own = Queries(["a", "b"], np.array([0, 1]), ["x", "y"])
    stray = Queries.of_strays([StrayReport(report="c", split=Split.TEST)])
    found = Results(np.array([[0, 1], [0, 1]]), np.array([[0.9, 0.7], [0.3, 0.2]]))
    lonely = Results(np.array([[5, 6]]), np.array([[0.9, 0.6]]))
    shown = Evaluation(encoder, reranker, at(0.65), depth=2).shown([(own, found), (stray, lonely)])
    assert shown["right"].value == pytest.approx(1 / 3, abs=1e-4)
    # odds of 9 and 7/3, and 1 for none of the two; then 0.9 alone
    right, wrong = 9 / (10 + 7 / 3), 7 / 3 / (10 + 7 / 3)
    assert shown["calibration error"].value == pytest.approx((1 - right + wrong + 0.9) / 3, abs=1e-4)
    assert shown["calibration error"].low is None
    assert Evaluation(encoder, reranker, at(0.95), depth=2).shown([(own, found)]) == {}


def test_pairs_and_strays_are_judged_at_the_threshold(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    evaluation = Evaluation(encoder, reranker, at(0.0), depth=5)
    pairs = twin_pairs(things)
    everything = evaluation.pairs(pairs, evaluation.score_pairs(pairs))
    assert everything["recall"].value == everything["AP of BM25"].value == 1
    assert everything["precision"].value == pytest.approx(0.2)
    strays = [StrayReport(report="a wooden leg", split="test"), StrayReport(report="a pike", split="test")]
    queries = Queries.of_strays(strays)
    results = evaluation.search(queries.texts, Inventory.of(things))
    for threshold, expected in ((0.0, 0.0), (1.0, 1.0)):
        judged = Evaluation(encoder, reranker, at(threshold), depth=5).no_match(strays, queries, results)
        assert judged['"no match" for stray reports of all'].value == expected
        assert judged['"no match" for stray reports of another thing'].value == expected
        assert '"no match" for stray reports of a sixth twin' not in judged


def test_what_contradicts_a_report_is_to_stay_below_the_threshold(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    contradicted = [entry.model_copy(update={"unlike": ("a pike", "two hats")}) for entry in things]
    pairs = contradicting_pairs(contradicted)
    assert len(pairs) == len(things) * 2 * 2
    scores = reranker.score_pairs([(pair.lost, pair.found) for pair in pairs])
    threshold = float(np.median(scores))
    judged = Evaluation(encoder, reranker, at(threshold), depth=5).contradictions(pairs)
    assert judged["held back"].value == pytest.approx((scores < threshold).mean())
    assert 0 < judged["held back"].value < 1


def test_vague_reports_and_those_of_several_objects_are_judged_by_what_comes_first(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    inventory = Inventory.of(things)
    evaluation = Evaluation(encoder, reranker, at(0.0), depth=10)
    first = evaluation.search(["a red hat"], inventory).candidates[0]
    assert sorted(first.tolist()) == list(range(10))
    assert (np.diff(reranker.score("a red hat", inventory.texts)[first]) <= 0).all()
    hats = sum(things[index].group == "hat" for index in first[:5]) / 5
    vague = [VagueReport(report="a red hat", group="hat", split=Split.TEST)]
    assert evaluation.vague(vague, inventory)["share of the group in the first 5"].value == hats
    several = [SeveralReport(report="a red hat", objects=("hat-0", "umbrella-9"), split=Split.TEST)]
    assert evaluation.several(several, inventory)["objects in the first 10"].value == 0.5
    shallow = Evaluation(encoder, reranker, at(0.0), depth=2)
    assert list(shallow.several(several, inventory)) == ["objects in the first 2"]


def test_a_category_with_enough_groups_has_a_figure_of_its_own() -> None:
    umbrellas = [thing(0, f"umbrella{number}", "an umbrella") for number in range(5)]
    inventory = Inventory.of([*umbrellas, thing(0, "hat", "a hat").model_copy(update={"category": "headwear"})])
    queries = Queries.of_objects(inventory)
    results = Results(np.array([[0]] * 12), np.full((12, 1), 0.5))
    section = by_category(queries, results, inventory)
    assert {name: figure.value for name, figure in section.items()} == {"other (10 reports)": 0.2}


def test_bm25_ranks_by_rare_words_and_is_zero_without_a_common_one() -> None:
    reports = ["a red umbrella with a duck", "something quite different", "the"]
    descriptions = ["red umbrella, duck handle", "red umbrella", "blue umbrella"]
    table = bm25(reports, descriptions)
    assert table[0, 0] > table[0, 1] > table[0, 2] > 0
    assert (table[1:] == 0).all()
    pairs = [Pair(reports[0], descriptions[number], 0, Origin.GIVEN, "x") for number in (2, 0)]
    of_both = bm25(reports[:1], [descriptions[2], descriptions[0]])[0]
    np.testing.assert_allclose(pair_similarities(bm25, pairs), of_both)


def test_the_whole_report_of_a_small_corpus_has_every_section(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.training.retrieval.ITEMS", 200)
    corpus = Corpus(
        {Split.TEST: things},
        {Split.TEST: [StrayReport(report="a wooden leg", split=Split.TEST)]},
        {Split.TEST: [VagueReport(report="a hat", group="hat", split=Split.TEST)]},
        {Split.TEST: [SeveralReport(report="hats", objects=("hat-0",), split=Split.TEST)]},
    )
    report = Evaluation(encoder, reranker, at(0.5), depth=5).run(corpus, Split.TEST)
    assert list(report.sections) == [
        "mixed pairs", "twin pairs", "searches by BM25", "searches by the bi-encoder",
        "retrieval among 20,000 items", "searches reranked", "recall@1 reranked by category", "no match",
        "shown matches", "contradictions", "vague reports", "reports of several objects",
    ]  # fmt: skip
    assert report.sections["recall@1 reranked by category"] == {}  # two groups are too few
    assert report.mixed.labels.sum() == 40
    Path("plots").mkdir()
    plot_evaluation(report.mixed, 0.5, Path("plots"))
    assert {path.name for path in Path("plots").iterdir()} == {"precision_recall.png", "scores.png", "reliability.png"}
