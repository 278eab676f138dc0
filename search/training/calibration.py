"""Fitting the calibration: from scores to probabilities."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from search.threshold import Calibration
from search.training.metrics import Labels, Values, brier

FOLDS = 5


def fit_calibration(labels: Labels, scores: Values, clusters: Sequence[str]) -> Calibration:
    """Isotonic or Platt, whichever has the lower Brier score in cross-validation over clusters, fitted on all pairs.

    Args:
        labels: 0 or 1, both of them.
        scores: In [0, 1].
        clusters: Pairs of one cluster are in one fold: they are no independent cases.
    """
    folds = GroupKFold(min(FOLDS, len(set(clusters))))

    def error(fit: Callable[[Labels, Values], Calibration]) -> float:
        total = 0.0
        for train, test in folds.split(scores, labels, list(clusters)):
            fitted = fit(labels[train], scores[train])
            total += len(test) * brier(labels[test], probabilities(fitted, scores[test]))
        return total

    # a tie goes to Platt: two numbers cannot learn noise
    return min((fit_platt, fit_isotonic), key=error)(labels, scores)


def probabilities(calibration: Calibration, scores: Values) -> Values:
    """`Calibration.probability` of many scores."""
    return np.interp(scores, calibration.scores, calibration.probabilities)


def fit_isotonic(labels: Labels, scores: Values) -> Calibration:
    """The never falling steps with the least squared error (Zadrozny and Elkan, 2002)."""
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(scores, labels)
    return _calibration("isotonic", fitted.X_thresholds_, fitted.y_thresholds_)


def fit_platt(labels: Labels, scores: Values) -> Calibration:
    """A logistic curve over the logit (Platt, 1999), as knots a quarter of a logit apart.

    With labels of one kind only there is nothing to fit and the score stays as it is.
    """
    grid = np.arange(-12, 12.25, 0.25)
    if len(set(labels.tolist())) == 1:
        return _calibration("platt", _sigmoid(grid), _sigmoid(grid))
    fitted = LogisticRegression(C=np.inf).fit(_logit(scores)[:, None], labels)
    slope, intercept = max(float(fitted.coef_[0, 0]), 0.0), float(fitted.intercept_[0])
    return _calibration("platt", _sigmoid(grid), _sigmoid(slope * grid + intercept))


def _calibration(method: str, scores: Values, values: Values) -> Calibration:
    knots = [(round(float(score), 6), round(float(value), 4)) for score, value in zip(scores, values, strict=True)]
    rising = [knots[0], *(knot for before, knot in pairwise(knots) if knot[0] > before[0])]
    return Calibration(
        method=method, scores=tuple(score for score, _ in rising), probabilities=tuple(value for _, value in rising)
    )


def _sigmoid(logits: Values) -> Values:
    return 1 / (1 + np.exp(-logits))


def _logit(scores: Values) -> Values:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))
