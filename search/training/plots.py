"""Plots of a training run and of an evaluation, as PNG."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import PrecisionRecallDisplay

from search.training.evaluation import ScoredPairs
from search.training.metrics import CALIBRATION_BINS, Labels, Values, calibration_bins


def plot_log(log: Path, target: Path) -> None:
    """Loss and average precision of a run by step.

    Args:
        log: The `log.csv` of the run.
        target: The PNG.
    """
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 4))
    loss_axes = figure.subplots()
    ap_axes = loss_axes.twinx()
    for axes, column, colour in ((loss_axes, "loss", "tab:blue"), (ap_axes, "average_precision", "tab:red")):
        points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        axes.plot([step for step, _ in points], [value for _, value in points], color=colour, marker=".")
        axes.set_ylabel(column.replace("_", " "), color=colour)
    loss_axes.set_xlabel("step")
    _save(figure, target)


def plot_evaluation(scored: ScoredPairs, threshold: float, folder: Path) -> None:
    """`precision_recall.png`, `scores.png` and `reliability.png` of an evaluation, into a folder that is there."""
    plot_precision_recall(scored.labels, scored.scores, threshold, folder / "precision_recall.png")
    plot_scores(scored.labels, scored.scores, threshold, folder / "scores.png")
    plot_reliability(scored.labels, scored.probabilities, folder / "reliability.png")


def plot_precision_recall(labels: Labels, scores: Values, threshold: float, target: Path) -> None:
    """The precision-recall curve, with the threshold's point on it."""
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    PrecisionRecallDisplay.from_predictions(labels, scores, ax=axes, name="reranker")
    predicted = scores >= threshold
    if predicted.any():
        axes.plot(predicted[labels == 1].mean(), labels[predicted].mean(), "o", label=f"threshold {threshold:.2f}")
    axes.legend()
    _save(figure, target)


def plot_scores(labels: Labels, scores: Values, threshold: float, target: Path) -> None:
    """How the scores of matches and of others are spread."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    bins = np.linspace(0, 1, 41).tolist()
    axes.hist([scores[labels == 0], scores[labels == 1]], bins=bins, label=["others", "matches"], log=True)
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
    axes.set(xlabel="score", ylabel="pairs")
    axes.legend()
    _save(figure, target)


def plot_reliability(labels: Labels, probabilities: Values, target: Path) -> None:
    """The share of matches by probability; on the diagonal the probabilities are true."""
    bins = calibration_bins(probabilities)
    filled = [number for number in range(CALIBRATION_BINS) if (bins == number).any()]
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--")
    axes.plot(
        [probabilities[bins == number].mean() for number in filled],
        [labels[bins == number].mean() for number in filled],
        marker="o",
    )
    axes.set(xlabel="probability", ylabel="share of matches")
    _save(figure, target)


def _save(figure: Figure, target: Path) -> None:
    figure.tight_layout()
    figure.savefig(target, dpi=120)
