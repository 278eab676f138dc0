"""Fitting threshold and calibration of a reranker on pairs that it was not trained on."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
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
    """The highest whose F1 is within the 95 % interval of the best: as good as one can tell, fewer false alarms."""
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
    texts = [(pair.lost, pair.found) for pair in pairs]
    chosen = random.Random(0).sample(range(len(pairs)), min(FLIP_PAIRS, len(pairs)))  # noqa: S311  no secret
    judged = _Judged(
        labels=np.array([pair.is_match for pair in pairs], dtype=np.int64),
        groups=[pair.group for pair in pairs],
        scores=_exactly(reranker, texts, advance),
        similarities=encoder.similarities(texts).astype(np.float64) if encoder else np.zeros(len(pairs)),
        chosen=chosen,
    )
    for other in others:
        with suppress(ModelError):  # some networks overflow in float16: that precision then stays unmeasured
            of_other = other.score_pairs([texts[number] for number in chosen], advance)
            judged.by_others[other.precision] = of_other.astype(np.float64)
    blend = None
    if encoder:
        contradicted = [(pair.lost, pair.found) for pair in contradictions]
        fitted = fit_blend(
            np.concatenate([judged.labels, np.zeros(len(contradicted), dtype=np.int64)]),
            np.concatenate([judged.scores, _exactly(reranker, contradicted, advance)]),
            np.concatenate([judged.similarities, encoder.similarities(contradicted)]),
            [*judged.groups, *(pair.group for pair in contradictions)],
        )
        blend = judged.blend(encoder.fingerprint, *fitted, policy, at) if fitted else None
    return Threshold(
        **judged.rule(lambda scores, _: scores, policy, at),
        policy=policy if policy in (Policy.BEST_F1, Policy.BEST_ACCURACY) else f"{policy} at least {at}",
        fitted_on=fitted_on,
        pairs=len(pairs),
        reranker=reranker.fingerprint,
        precision=reranker.precision,
        blend=blend,
    )


@dataclass(frozen=True)
class _Judged:
    """What the models say of the pairs."""

    labels: Labels
    groups: Sequence[str]
    scores: Values
    similarities: Values
    chosen: Sequence[int]
    """Pairs by which other precisions are judged."""
    by_others: dict[str, Values] = field(default_factory=dict)
    """Scores of the chosen pairs by precision."""

    def blend(self, encoder: str, weight: float, centre: float, policy: Policy, at: float) -> Blend:
        """The rule for scores that the similarity moves."""
        blended = partial(blended_scores, weight, centre)
        rule = self.rule(blended, policy, at)
        reach = blended(self.scores, self.similarities) >= rule["threshold"]
        floor = round(float(np.quantile(self.similarities[reach], PASSED_OVER)), 4)
        return Blend(encoder=encoder, weight=weight, centre=centre, floor=floor, **rule)

    def rule(self, final: Callable[[Values, Values], Values], policy: Policy, at: float) -> dict[str, Any]:
        """Threshold, figures, flipped decisions and calibration for what becomes of scores and similarities."""
        scores = final(self.scores, self.similarities)
        threshold = _threshold(self.labels, scores, self.groups, policy, at)
        predicted = (scores >= threshold).astype(np.int64)
        flipped = {
            name: (final(values, self.similarities[self.chosen]) >= threshold) != predicted[self.chosen]
            for name, values in self.by_others.items()
        }
        return {
            "threshold": threshold,
            "figures": {"AP": figure(metrics.average_precision, self.groups, self.labels, scores)}
            | {name: figure(judge, self.groups, self.labels, predicted) for name, judge in DECISION_FIGURES.items()},
            "flipped": {name: round(float(flips.mean()), 5) for name, flips in flipped.items()},
            "calibration": fit_calibration(self.labels, scores, self.groups),
        }


def _threshold(labels: Labels, scores: Values, groups: Sequence[str], policy: Policy, at: float) -> float:
    threshold = choose_threshold(labels, scores, policy, at)
    if policy is not Policy.BEST_F1:
        return threshold
    low, high = metrics.interval(metrics.f1, groups, labels, (scores >= threshold).astype(np.int64))
    return choose_threshold(labels, scores, policy, at, tolerance=(high - low) / 2)  # after Breiman et al., 1984


def _exactly(reranker: Reranker, pairs: Sequence[tuple[str, str]], advance: Advance | None) -> Values:
    """The model's own scores, of every pair: there is no threshold yet that only some of them come near."""
    needed = np.full(len(pairs), -np.inf)
    return reranker.score_pairs(pairs, advance, needed).astype(np.float64)


DECISION_FIGURES = {
    "F1": metrics.f1,
    "precision": metrics.precision,
    "recall": metrics.recall,
    "accuracy": metrics.accuracy,
}
"""How decisions (labels, predicted) are judged, by name."""


def figure(function: metrics.Metric, clusters: Sequence[str], *columns: metrics.Column) -> Figure:
    """A metric of the columns with its interval, see `metrics.interval`; without where one cluster tells none."""
    if len(set(clusters)) == 1:
        return Figure(value=round(function(*columns), 4))
    low, high = metrics.interval(function, clusters, *columns)
    return Figure(value=round(function(*columns), 4), low=round(low, 4), high=round(high, 4))
