"""Fitting the blend: how much a bi-encoder's similarity says beyond the reranker's score."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from search.logistic import logit
from search.training.calibration import FOLDS
from search.training.metrics import Labels, Values, average_precision

MULTIPLES = (0.5, 0.7, 1, 1.4, 2, 2.8, 4)
"""Of the regression's weight, among which the best is chosen: where a reranker's few errors are confident ones, the
regression makes too little of the similarity."""


def fit_blend(
    labels: Labels, scores: Values, similarities: Values, clusters: Sequence[str]
) -> tuple[float, float] | None:
    """Weight and centre of a blend, by logistic regression of the label on logit and cosine.

    Args:
        labels: 0 or 1; shape (n,).
        scores: The reranker's, in [0, 1].
        similarities: Cosines of the same pairs.
        clusters: Pairs of one cluster are no independent cases.

    Returns:
        `Blend.weight`, the multiple of the regression's with the best average precision, and `Blend.centre`; None where
        the cosine says nothing: pairs of clusters that were held out are told no better with it, more of it speaks
        against a match, or there are too few to tell.
    """
    alone = logit(scores)[:, None]
    both = np.column_stack([alone, similarities])
    if len(set(clusters)) < FOLDS:
        return None
    folds = list(GroupKFold(FOLDS).split(both, labels, clusters))
    if any(len(set(labels[train].tolist())) == 1 for train, _ in folds):
        return None
    without, with_cosine = (
        log_loss(labels, cross_val_predict(_regression(), known, labels, cv=folds, method="predict_proba"))
        for known in (alone, both)
    )
    (of_logit, of_cosine), _ = _fitted(both, labels)
    if with_cosine >= without or of_logit <= 0 or of_cosine <= 0:
        return None
    weights = [multiple * of_cosine / of_logit for multiple in MULTIPLES]
    weight = max(weights, key=lambda weight: average_precision(labels, alone[:, 0] + weight * similarities))
    (slope,), intercept = _fitted(alone + weight * similarities[:, None], labels)
    return weight, -intercept / (slope * weight)


def _fitted(known: Values, labels: Labels) -> tuple[list[float], float]:
    """Coefficients and intercept, of the values as they are."""
    scaler, fitted = (step for _, step in _regression().fit(known, labels).steps)
    coefficients = fitted.coef_[0] / scaler.scale_
    return coefficients.tolist(), float(fitted.intercept_[0] - coefficients @ scaler.mean_)


def _regression() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())
