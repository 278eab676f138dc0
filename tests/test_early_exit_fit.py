"""An early exit keeps what searches find by estimates that were fitted on others, or is not used."""

import numpy as np
import pytest

from search.early_exit import Features, fit_early_exit
from search.early_exit_searches import SEARCHES, _reports
from search.training.corpus import Split, load_corpus

SEARCH = np.repeat(np.arange(200), 100)

CUTS = [0.25, 0.75]


def synthetic(passing: float) -> tuple[list[Features], Features]:
    """Features after two parts, the first of which tell less, and logits of 200 searches of 100 pairs; this share of
    the pairs reaches a logit of 0."""
    rng = np.random.default_rng(3)
    known = rng.normal(size=(20_000, 20)).astype(np.float32)
    logits = known @ rng.normal(size=20) + rng.normal(scale=0.3, size=len(known))
    first = known + rng.normal(scale=1, size=known.shape)
    return [first.astype(np.float32), known], (logits - np.quantile(logits, 1 - passing)).astype(np.float32)


def test_a_fitted_exit_keeps_what_searches_find_and_lets_most_of_the_rest_leave() -> None:
    known, logits = synthetic(passing=0.03)
    offsets = np.random.default_rng(4).normal(size=len(logits))  # a similarity that counts too
    fitted = fit_early_exit(known, (logits + offsets).astype(np.float32), offsets, SEARCH, 200, CUTS, 100)
    assert fitted is not None
    assert fitted.kept >= 0.99
    assert fitted.searches > 160
    after_first, after_second = fitted.going_on
    assert 0.03 < after_second < 0.3 < after_first < 0.7
    assert fitted.layers == pytest.approx(0.25 + 0.5 * after_first + 0.25 * after_second)
    is_there = np.ones(len(logits), dtype=bool)
    for estimate, of_part, share in zip(fitted.estimates, known, fitted.going_on, strict=True):
        assert estimate is not None
        is_there &= estimate.excess(of_part, offsets) >= estimate.margin
        assert is_there.mean() == pytest.approx(share, abs=0.05)
    assert (logits[~is_there] >= 0).sum() <= 2


def test_one_odd_search_of_many_does_not_keep_the_pairs_of_all_others() -> None:
    known, logits = synthetic(passing=0.1)
    search, needed = np.repeat(np.arange(800), 25), np.zeros(len(logits))
    usual = fit_early_exit(known, logits, needed, search, 800, CUTS, 25)
    match, worst = int(np.argmax(logits)), int(np.argmin(logits))
    for of_part in known:
        of_part[match] = of_part[worst]
    odd = fit_early_exit(known, logits, needed, search, 800, CUTS, 25)
    assert usual is not None
    assert odd is not None
    assert odd.going_on == pytest.approx(usual.going_on, abs=0.02)
    for one, other in zip(odd.estimates, usual.estimates, strict=True):
        assert one is not None
        assert other is not None
        assert one.margin == pytest.approx(other.margin, abs=0.5)


def test_the_searches_that_judge_an_exit_share_no_group_with_those_that_it_was_fitted_on() -> None:
    objects = load_corpus().objects[Split.VALIDATION]
    reports = _reports(objects)
    assert len(set(reports)) == SEARCHES
    first, second = (
        {entry.group for entry in objects if half & set(entry.lost)}
        for half in (set(reports[: SEARCHES // 2]), set(reports[SEARCHES // 2 :]))
    )
    assert len(first) > 30
    assert len(second) > 30
    assert not first & second


def test_an_exit_of_which_one_half_learns_what_does_not_hold_in_the_other_is_not_used() -> None:
    known, logits = synthetic(passing=0.03)
    is_second = SEARCH >= 100
    for of_part in known:
        of_part[is_second] *= -1
    assert fit_early_exit(known, logits, np.zeros(len(logits)), SEARCH, 200, CUTS, 100) is None


def test_where_the_first_part_knows_nothing_pairs_leave_after_the_second_alone() -> None:
    (first, second), logits = synthetic(passing=0.03)
    first = np.where(SEARCH[:, None] >= 100, -first, first)
    fitted = fit_early_exit([first, second], logits, np.zeros(len(logits)), SEARCH, 200, CUTS, 100)
    assert fitted is not None
    assert (fitted.estimates[0], fitted.going_on[0], fitted.pays) == (None, 1, True)
    assert fitted.layers == pytest.approx(0.75 + 0.25 * fitted.going_on[1])


def test_an_exit_that_knows_nothing_does_not_pay() -> None:
    known, logits = synthetic(passing=0.03)
    backwards = [of_part[::-1] for of_part in known]
    assert fit_early_exit(backwards, logits, np.zeros(len(logits)), SEARCH, 200, CUTS, 100) is None


def test_an_exit_pays_by_what_is_reranked_of_the_candidates() -> None:
    known, logits = synthetic(passing=0.3)
    few = np.random.default_rng(5).permutation(len(logits)) < len(logits) // 4  # others were too dissimilar
    shown = [[of_part[few] for of_part in known], logits[few], np.zeros(int(few.sum())), SEARCH[few], 200, CUTS]
    fitted = fit_early_exit(*shown, 100)
    assert fitted is not None
    assert (fitted.reranked, fitted.pays, fitted.going_on[-1] > 1 / 3) == (0.25, True, True)
    assert fit_early_exit(*shown, 25) is None
    assert not fitted.model_copy(update={"layers": 0.9}).pays


def test_where_searches_find_nothing_no_exit_is_fitted() -> None:
    known, logits = synthetic(passing=0.03)
    assert fit_early_exit(known, logits - 100, np.zeros(len(logits)), SEARCH, 200, CUTS, 100) is None
