"""Fitting the blend: how much a bi-encoder's similarity says beyond the reranker's score."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from search.threshold import logit
from search.training.calibration import FOLDS
from search.training.metrics import Labels, Values


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
        `Blend.weight` and `Blend.centre`; None where the cosine says nothing: pairs of clusters that were held out are
        told no better with it, or more of it speaks against a match.
    """
    alone = logit(scores)[:, None]
    both = np.column_stack([alone, similarities])
    count = len(set(clusters))
    if count < FOLDS:
        return None
    losses = [
        log_loss(
            labels,
            cross_val_predict(
                _regression(), known, labels, groups=clusters, cv=GroupKFold(FOLDS), method="predict_proba"
            ),
            labels=[0, 1],
        )
        for known in (alone, both)
    ]
    scaler, fitted = (step for _, step in _regression().fit(both, labels).steps)
    of_logit, of_cosine = (fitted.coef_[0] / scaler.scale_).tolist()
    if losses[1] >= losses[0] or of_logit <= 0 or of_cosine <= 0:
        return None
    intercept = float(fitted.intercept_[0]) - of_logit * scaler.mean_[0] - of_cosine * scaler.mean_[1]
    return of_cosine / of_logit, -intercept / of_cosine


def _held_out_loss(labels: Labels, known: Values, clusters: Sequence[str]) -> float:
    folds = GroupKFold(FOLDS)
    said = cross_val_predict(_regression(), known, labels, groups=clusters, cv=folds, method="predict_proba")
    return float(log_loss(labels, said, labels=[0, 1]))


def _regression() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())
