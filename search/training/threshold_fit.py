"""Fitting threshold and calibration of a reranker on pairs that it was not trained on."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any

import numpy as np

from search.encoder import BiEncoder
from search.errors import ModelError, TrainingError
from search.reranker import Reranker
from search.threshold import Blend, Figure, Threshold, blended_scores
from search.training import metrics
from search.training.blend_fit import fit_blend
from search.training.calibration import fit_calibration
from search.training.metrics import Labels, Values
from search.training.pairs import Pair
from search.types import Advance

FLIP_PAIRS = 2000
"""By how many pairs another precision is judged: 0.5 % of them are ten. A CPU computes slowly in float16."""


PASSED_OVER = 0.005
"""Share of the validation pairs above the threshold that a search may pass over for their low similarity."""


class Policy(StrEnum):
    """What a threshold is chosen for."""

    BEST_F1 = "best-f1"
    """The highest whose F1 is within one standard error of the best: as good as one can tell, fewer false alarms."""
    BEST_ACCURACY = "best-accuracy"
    PRECISION = "precision"
    """The lowest that keeps the precision at or above a value."""
    RECALL = "recall"
    """The highest that keeps the recall at or above a value."""


def choose_threshold(labels: Labels, scores: Values, policy: Policy, at: float = 0.9, tolerance: float = 0.0) -> float:
    """The cut that serves a policy best, halfway to the next lower score: the last digits of a score decide nothing.

    Args:
        labels: Shape (n,), 0 or 1, both of them.
        scores: Shape (n,), in [0, 1].
        policy: What it is chosen for; of several cuts as good the highest, for the policy `precision` the lowest.
        at: The value that the policies `precision` and `recall` keep.
        tolerance: By how much F1 may be below the best under the policy `best-f1`.

    Raises:
        TrainingError: No cut keeps that precision, or the labels are all alike.

    Example:
        >>> scores, labels = np.array([0.1, 0.3, 0.5, 0.7, 0.9]), np.array([0, 1, 0, 1, 1])
        >>> choose_threshold(labels, scores, Policy.RECALL, 0.6)  # 0.7 and 0.9 are two of three
        0.6
        >>> round(choose_threshold(labels, scores, Policy.PRECISION, 0.75), 3)  # from 0.3 on three of four match
        0.2
    """
    require_both_labels(labels)
    cuts = np.unique(scores)[::-1]
    order = np.argsort(-scores, kind="stable")
    counts = np.searchsorted(-scores[order], -cuts, side="right")  # pairs at or above each cut
    hits = np.cumsum(labels[order])[counts - 1]
    positives = labels.sum()
    precision, recall = hits / counts, hits / positives
    match policy:
        case Policy.BEST_F1:
            f1 = 2 * hits / (counts + positives)
            best = int(np.flatnonzero(f1 >= f1.max() - tolerance)[0])
        case Policy.BEST_ACCURACY:
            best = int(np.argmax(hits - (counts - hits)))
        case Policy.PRECISION:
            kept = np.flatnonzero(precision >= at)
            if not len(kept):
                raise TrainingError(
                    f"no threshold keeps a precision of {at}; the highest there is is {precision.max():.3f}"
                )
            best = int(kept[-1])
        case Policy.RECALL:
            best = int(np.flatnonzero(recall >= at)[0])
    lower = cuts[best + 1] if best + 1 < len(cuts) else 0.0
    return float(cuts[best] + lower) / 2


def require_both_labels(labels: Labels) -> None:
    """Refuse pairs that no threshold can be fitted on.

    Raises:
        TrainingError: They are all matches, or none is.
    """
    if len(set(labels.tolist())) == 1:
        raise TrainingError(
            f"all {len(labels)} validation pairs {'match' if labels[0] else 'do not match'}; a threshold needs both "
            "kinds, give more pairs"
        )


def fit_threshold(
    reranker: Reranker,
    pairs: Sequence[Pair],
    fitted_on: str,
    policy: Policy = Policy.BEST_F1,
    at: float = 0.9,
    others: Sequence[Reranker] = (),
    encoder: BiEncoder | None = None,
    contradictions: Sequence[Pair] = (),
    advance: Advance | None = None,
) -> Threshold:
    """Fit threshold and calibration, of the reranker alone and of its blend with a bi-encoder.

    Args:
        reranker: Scores the pairs; the threshold is bound to its fingerprint and precision.
        pairs: Validation pairs, matches and others.
        fitted_on: Says in `threshold.json` which pairs these are.
        policy: See `choose_threshold`.
        at: Likewise.
        others: The same model in other precisions, for which the flipped decisions are measured.
        encoder: Is blended in, where its similarity says something beyond the score.
        contradictions: Pairs that do not match beside which the blend is fitted too: the similarity says little of
            them, and without them it would count for more than is good.
        advance: Called with the number of pairs scored since the last call.

    Raises:
        TrainingError: The policy cannot be served by these pairs.
        ModelError: A model cannot be used.
    """
    labels = np.array([pair.is_match for pair in pairs], dtype=np.int64)
    groups = [pair.group for pair in pairs]
    texts = [(pair.lost, pair.found) for pair in pairs]
    scores = reranker.score_pairs(texts, advance).astype(np.float64)
    chosen = random.Random(0).sample(range(len(pairs)), min(FLIP_PAIRS, len(pairs)))  # noqa: S311  no secret
    of_others: dict[str, Values] = {}
    for other in others:
        with suppress(ModelError):  # some networks overflow in float16: that precision then stays unmeasured
            of_others[other.precision] = other.score_pairs([texts[i] for i in chosen], advance).astype(np.float64)

    def rule(blended: Callable[[Values, Values], Values], similarities: Values) -> dict[str, Any]:
        final = blended(scores, similarities)
        threshold = _threshold(labels, final, groups, policy, at)
        predicted = (final >= threshold).astype(np.int64)
        flipped = {
            name: (blended(values, similarities[chosen]) >= threshold) != predicted[chosen]
            for name, values in of_others.items()
        }
        return {
            "threshold": threshold,
            "figures": {"AP": figure(metrics.average_precision, groups, labels, final)}
            | {name: figure(function, groups, labels, predicted) for name, function in DECISION_FIGURES.items()},
            "flipped": {name: round(float(flips.mean()), 5) for name, flips in flipped.items()},
            "calibration": fit_calibration(labels, final, groups),
        }

    similarities = np.zeros(len(pairs)) if encoder is None else encoder.similarities(texts).astype(np.float64)
    weights = None
    if encoder is not None:
        others_too = [(pair.lost, pair.found) for pair in contradictions]
        weights = fit_blend(
            np.concatenate([labels, np.zeros(len(others_too), dtype=np.int64)]),
            np.concatenate([scores, reranker.score_pairs(others_too, advance)]),
            np.concatenate([similarities, encoder.similarities(others_too)]),
            [*groups, *(pair.group for pair in contradictions)],
        )
    blend = None
    if encoder is not None and weights is not None:

        def blended(by_reranker: Values, cosines: Values) -> Values:
            return blended_scores(*weights, by_reranker, cosines).astype(np.float64)

        fields = rule(blended, similarities)
        reached = blended(scores, similarities) >= fields["threshold"]
        floor = round(float(np.quantile(similarities[reached], PASSED_OVER)), 4)
        weight, centre = weights
        blend = Blend(encoder=encoder.fingerprint, weight=weight, centre=centre, floor=floor, **fields)
    return Threshold(
        **rule(lambda plain, _: plain, similarities),
        policy=policy if policy in (Policy.BEST_F1, Policy.BEST_ACCURACY) else f"{policy} at least {at}",
        fitted_on=fitted_on,
        pairs=len(pairs),
        reranker=reranker.fingerprint,
        precision=reranker.precision,
        blend=blend,
    )


def _threshold(labels: Labels, scores: Values, groups: Sequence[str], policy: Policy, at: float) -> float:
    threshold = choose_threshold(labels, scores, policy, at)
    if policy is not Policy.BEST_F1:
        return threshold
    low, high = metrics.interval(metrics.f1, groups, labels, (scores >= threshold).astype(np.int64))
    one_standard_error = (high - low) / (2 * 1.96)  # as in Breiman et al., 1984
    return choose_threshold(labels, scores, policy, at, tolerance=one_standard_error)


DECISION_FIGURES = {
    "F1": metrics.f1,
    "precision": metrics.precision,
    "recall": metrics.recall,
    "accuracy": metrics.accuracy,
}
"""How decisions (labels, predicted) are judged, by name."""


def figure(function: metrics.Metric, clusters: Sequence[str], *columns: metrics.Column) -> Figure:
    """A metric of the columns with its interval; see `metrics.interval`."""
    low, high = metrics.interval(function, clusters, *columns)
    return Figure(value=round(function(*columns), 4), low=round(low, 4), high=round(high, 4))
