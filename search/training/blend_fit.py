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
        told no better with it, more of it speaks against a match, or there are too few to tell.
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
    scaler, fitted = (step for _, step in _regression().fit(both, labels).steps)
    of_logit, of_cosine = (fitted.coef_[0] / scaler.scale_).tolist()
    if with_cosine >= without or of_logit <= 0 or of_cosine <= 0:
        return None
    intercept = float(fitted.intercept_[0]) - of_logit * scaler.mean_[0] - of_cosine * scaler.mean_[1]
    return of_cosine / of_logit, -intercept / of_cosine


def _regression() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())
