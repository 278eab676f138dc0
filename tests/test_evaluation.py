"""The figures against cases worked by hand, and the evaluation of models whose every score is known."""

import numpy as np
import pytest

from search.encoder import BiEncoder
from search.reranker import Reranker
from search.training import metrics
from search.training.corpus import LostObject, StrayReport
from search.training.evaluation import Evaluation
from search.training.pairs import twin_pairs


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
    shallow = Evaluation(shipped_encoder, reranker, threshold=0.0, depth=1).searches(inventory)
    assert shallow["reranked"]["recall@10"] == shallow["retrieval"]["recall@1"]
    assert shallow["reranked"]["reports that keep their object"] == shallow["retrieval"]["recall@1"]
    full = Evaluation(shipped_encoder, reranker, threshold=0.0, depth=10).searches(inventory)
    assert full["retrieval"]["recall@10"].value == full["reranked"]["recall@10"].value == 1

    ranks = []
    for entry in things:
        for lost in entry.lost:
            scores = reranker.score(lost, [found for found, _ in inventory])
            ranks.append(1 + int((scores > scores[things.index(entry)]).sum()))
    assert full["reranked"]["MRR"].value == pytest.approx(np.mean([1 / rank for rank in ranks]))


def test_pairs_and_strays_are_judged_at_the_threshold(
    encoder: BiEncoder, reranker: Reranker, things: list[LostObject]
) -> None:
    group_of = {lost: entry.group for entry in things for lost in entry.lost}
    everything = Evaluation(encoder, reranker, threshold=0.0, depth=5).pairs(twin_pairs(things), group_of)
    assert everything["recall"].value == 1
    assert everything["precision"].value == pytest.approx(0.2)
    strays = [StrayReport(report="a wooden leg", split="test"), StrayReport(report="a pike", split="test")]
    inventory = [(entry.found[0], entry) for entry in things]
    for threshold, expected in ((0.0, 0.0), (1.0, 1.0)):
        judged = Evaluation(encoder, reranker, threshold=threshold, depth=5).no_match(strays, inventory)
        assert judged["stray reports answered by no match"].value == expected
