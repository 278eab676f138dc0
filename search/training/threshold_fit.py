"""Fitting the threshold: the score at which F1 on the validation pairs is highest."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

from search.reranker import Reranker
from search.threshold import Threshold
from search.training.pairs import Pair


def fit_threshold(reranker: Reranker, pairs: Sequence[Pair], fitted_on: str) -> Threshold:
    """Fit by best F1, halfway to the next lower score, so that the last digits of a score decide nothing.

    Args:
        reranker: Scores the pairs; the threshold is bound to its fingerprint.
        pairs: Validation pairs of both labels.
        fitted_on: Says in `threshold.json` which pairs these are.
    """
    labels = np.array([pair.label for pair in pairs])
    scores = reranker.score_pairs([(pair.lost, pair.found) for pair in pairs])
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))
    lower = thresholds[best - 1] if best else 0.0
    return Threshold(
        threshold=float(thresholds[best] + lower) / 2,
        policy="best F1",
        fitted_on=fitted_on,
        figures={
            "pairs": len(pairs),
            "positive": round(float(labels.mean()), 4),
            "average_precision": round(float(average_precision_score(labels, scores)), 4),
            "f1": round(float(f1[best]), 4),
            "precision": round(float(precision[best]), 4),
            "recall": round(float(recall[best]), 4),
        },
        reranker=reranker.fingerprint,
    )
