"""Fitting the calibration: from scores to probabilities."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from search.likelihood import Calibration
from search.logistic import logit, sigmoid
from search.training.metrics import Labels, Values, brier

FOLDS = 5

LOGITS = np.arange(-12, 12.25, 0.25)
"""Where the knots of a Platt calibration lie."""


def fit_calibration(labels: Labels, scores: Values, clusters: Sequence[str]) -> Calibration:
    """Isotonic or Platt, whichever has the lower Brier score in cross-validation over clusters, fitted on all pairs.

    Args:
        labels: 0 or 1.
        scores: In [0, 1].
        clusters: Pairs of one cluster are in one fold, for they are no independent cases. Of one cluster alone nothing
            can be held out: then it is Platt, whose two numbers learn less noise.
    """
    count = len(set(clusters))
    if count == 1:
        return fit_platt(labels, scores)
    folds = GroupKFold(min(FOLDS, count))

    def error(fit: Callable[[Labels, Values], Calibration]) -> float:
        total = 0.0
        for train, test in folds.split(scores, labels, list(clusters)):
            fitted = fit(labels[train], scores[train])
            total += len(test) * brier(labels[test], fitted.alone(scores[test]))
        return total

    return min((fit_platt, fit_isotonic), key=error)(labels, scores)


def fit_isotonic(labels: Labels, scores: Values) -> Calibration:
    """The never falling steps with the least squared error (Zadrozny and Elkan, 2002), kept off 0 and 1 as Platt's."""
    low, high = _targets(labels)
    fitted = IsotonicRegression(y_min=low, y_max=high).fit(scores, labels)
    return _calibration("isotonic", fitted.X_thresholds_, fitted.y_thresholds_)


def fit_platt(labels: Labels, scores: Values) -> Calibration:
    """A logistic curve over the logit, fitted to smoothed targets (Platt, 1999), as knots a quarter of a logit apart.

    Where higher scores are not the likelier ones there is no such curve; every score then gets the share of matches.
    """
    low, high = _targets(labels)
    weights = np.where(labels == 1, high, low)  # of the target 1; the rest is the weight of 0
    logits = np.tile(logit(scores), 2)[:, None]
    fitted = LogisticRegression(C=np.inf).fit(
        logits, np.repeat([1, 0], len(labels)), sample_weight=np.concatenate([weights, 1 - weights])
    )
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        return _calibration("platt", np.array([0.0, 1.0]), np.full(2, weights.mean()))
    return _calibration("platt", sigmoid(LOGITS), np.clip(sigmoid(slope * LOGITS + intercept), low, high))


def _targets(labels: Labels) -> tuple[float, float]:
    """What 0 and 1 are taken for: after n cases of a kind the next may yet be of the other."""
    matches = int(labels.sum())
    return 1 / (len(labels) - matches + 2), (matches + 1) / (matches + 2)


def _calibration(method: str, scores: Values, values: Values) -> Calibration:
    knots = [(round(float(score), 6), round(float(value), 4)) for score, value in zip(scores, values, strict=True)]
    rising = [knots[0], *(knot for before, knot in pairwise(knots) if knot[0] > before[0])]
    return Calibration(
        method=method, scores=tuple(score for score, _ in rising), probabilities=tuple(value for _, value in rising)
    )
