"""The figures by which retrieval and reranking are judged, one function each."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Column = npt.NDArray[np.generic]
Metric = Callable[..., float]

RESAMPLES = 1000

CALIBRATION_BINS = 10


def average_precision(labels: Labels, scores: Values) -> float:
    """AP = sum over ranks n of (recall_n - recall_{n-1}) * precision_n, scikit-learn's; 0 where none is positive.

    >>> round(average_precision(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7])), 4)  # 1/2 * 1 + 1/2 * 2/3
    0.8333
    """
    return float(average_precision_score(labels, scores)) if labels.any() else 0.0


def precision(labels: Labels, predicted: Labels) -> float:
    """True positives among the predicted ones; 0 where none is predicted."""
    return float(labels[predicted == 1].mean()) if predicted.any() else 0.0


def recall(labels: Labels, predicted: Labels) -> float:
    """True positives among the positive ones; 0 where none is positive."""
    return float(predicted[labels == 1].mean()) if labels.any() else 0.0


def f1(labels: Labels, predicted: Labels) -> float:
    """2 TP / (2 TP + FP + FN).

    >>> f1(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0]))
    0.5
    """
    total = labels.sum() + predicted.sum()
    return float(2 * (labels & predicted).sum() / total) if total else 0.0


def accuracy(labels: Labels, predicted: Labels) -> float:
    """The share of right decisions."""
    return float((labels == predicted).mean())


def brier(labels: Labels, probabilities: Values) -> float:
    """The mean squared error of probabilities (Brier, 1950)."""
    return float(np.square(probabilities - labels).mean())


def calibration_error(labels: Labels, probabilities: Values) -> float:
    """Expected calibration error (Naeini et al., 2015).

    The mean over ten bins of equal width, weighted by their pairs, of the gap between mean probability and share of
    matches.

    >>> round(calibration_error(np.array([1, 0, 1, 1]), np.array([0.55, 0.55, 0.95, 0.95])), 3)
    0.05
    """
    bins = calibration_bins(probabilities)
    gaps = np.bincount(bins, weights=probabilities - labels, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibration_bins(probabilities: Values) -> Labels:
    """The bin of each probability, 0 to 9."""
    return np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def share(cases: Labels | Values) -> float:
    """The mean of cases that are 0, 1, or something between."""
    return float(cases.mean())


def recall_at(ranks: Values, k: int) -> float:
    """The share of queries whose item is among the first k; a rank is 1 for the first and inf for a miss.

    >>> recall_at(np.array([1, 3, np.inf]), 2)
    0.3333333333333333
    """
    return float((ranks <= k).mean())


def mean_reciprocal_rank(ranks: Values) -> float:
    """The mean of 1 / rank, a miss counting 0.

    >>> mean_reciprocal_rank(np.array([1, 2, np.inf]))
    0.5
    """
    return float((1 / ranks).mean())


def interval(figure: Metric, clusters: Sequence[str], *columns: Column, seed: int = 42) -> tuple[float, float]:
    """95 % bootstrap interval of a figure, resampling whole clusters: reports of one group are no independent cases.

    Args:
        figure: Takes the resampled columns.
        clusters: The cluster of each row.
        *columns: Arrays with a row per case.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    names, index = np.unique(np.array(clusters), return_inverse=True)
    rows_of = [np.flatnonzero(index == number) for number in range(len(names))]
    values = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rows_of[number] for number in rng.integers(0, len(names), len(names))])
        values.append(figure(*(column[rows] for column in columns)))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
