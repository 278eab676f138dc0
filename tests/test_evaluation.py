"""The figures against cases worked by hand, and the evaluation of models whose every score is known."""

from pathlib import Path

import numpy as np
import pytest

from search.encoder import BiEncoder
from search.reranker import Reranker
from search.threshold import Calibration, Threshold
from search.training import metrics
from search.training.baselines import bm25, pair_similarities
from search.training.corpus import Corpus, LostObject, SeveralReport, Split, StrayReport, VagueReport
from search.training.evaluation import Evaluation
from search.training.pairs import Origin, Pair, twin_pairs
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
        threshold=threshold, policy="by hand", fitted_on="nothing", pairs=0, figures={}, reranker="", flipped={},
        calibration=Calibration(method="platt", scores=(0, 1), probabilities=(0, 1)),
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


def test_searches_count_a_retrieval_miss_as_a_miss_and_ranks_by_score(
    shipped_encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    inventory = [(entry.found[0], entry) for entry in things]
    shallow = Evaluation(shipped_encoder, reranker, at(0.0), depth=1).searches(inventory)
    retrieved = shallow["searches by the bi-encoder"]["recall@1"]
    assert shallow["searches reranked"]["recall@10"] == retrieved
    assert shallow["searches reranked"]["reports that keep their object"] == retrieved
    full = Evaluation(shipped_encoder, reranker, at(0.0), depth=10).searches(inventory)
    assert full["searches by the bi-encoder"]["recall@10"].value == full["searches reranked"]["recall@10"].value == 1
    assert full["searches by BM25"]["recall@1"].value == 1  # every report names colour and kind

    ranks = []
    for entry in things:
        for lost in entry.lost:
            scores = reranker.score(lost, [found for found, _ in inventory])
            ranks.append(1 + int((scores > scores[things.index(entry)]).sum()))
    assert full["searches reranked"]["MRR"].value == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-4)


def test_pairs_and_strays_are_judged_at_the_threshold(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    evaluation = Evaluation(encoder, reranker, at(0.0), depth=5)
    pairs = twin_pairs(things)
    everything = evaluation.pairs(pairs, evaluation.score_pairs(pairs))
    assert everything["recall"].value == everything["AP of BM25"].value == 1
    assert everything["precision"].value == pytest.approx(0.2)
    strays = [StrayReport(report="a wooden leg", split="test"), StrayReport(report="a pike", split="test")]
    inventory = [(entry.found[0], entry) for entry in things]
    for threshold, expected in ((0.0, 0.0), (1.0, 1.0)):
        judged = Evaluation(encoder, reranker, at(threshold), depth=5).no_match(strays, inventory)
        assert judged['"no match" for stray reports of all'].value == expected
        assert judged['"no match" for stray reports of another thing'].value == expected
        assert '"no match" for stray reports of a sixth twin' not in judged


def test_vague_reports_and_those_of_several_objects_are_judged_by_what_comes_first(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    inventory = [(entry.found[0], entry) for entry in things]
    evaluation = Evaluation(encoder, reranker, at(0.0), depth=10)
    first = evaluation._first(["a red hat"], inventory, 10)[0]
    assert sorted(first.tolist()) == list(range(10))
    scores = reranker.score("a red hat", [found for found, _ in inventory])
    assert (np.diff(scores[first]) <= 0).all()
    hats = sum(things[index].group == "hat" for index in first[:5]) / 5
    vague = [VagueReport(report="a red hat", group="hat", split=Split.TEST)]
    assert evaluation.vague(vague, inventory)["share of the group in the first 5"].value == hats
    several = [SeveralReport(report="a red hat", objects=("hat-0", "umbrella-9"), split=Split.TEST)]
    assert evaluation.several(several, inventory)["objects in the first 10"].value == 0.5


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
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    corpus = Corpus(
        {Split.TEST: things},
        {Split.TEST: [StrayReport(report="a wooden leg", split=Split.TEST)]},
        {Split.TEST: [VagueReport(report="a hat", group="hat", split=Split.TEST)]},
        {Split.TEST: [SeveralReport(report="hats", objects=("hat-0",), split=Split.TEST)]},
    )
    report = Evaluation(encoder, reranker, at(0.5), depth=5).run(corpus, Split.TEST)
    assert list(report.sections) == [
        "mixed pairs", "twin pairs", "searches by BM25", "searches by the bi-encoder", "searches reranked",
        "recall@1 reranked by category", "no match", "vague reports", "reports of several objects",
    ]  # fmt: skip
    assert list(report.sections["recall@1 reranked by category"]) == ["other (20 reports)"]
    assert report.mixed.labels.sum() == 40
    plot_evaluation(report.mixed, 0.5, Path("plots"))
    assert {path.name for path in Path("plots").iterdir()} == {"precision_recall.png", "scores.png", "reliability.png"}
