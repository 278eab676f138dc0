"""Leaving a cross-encoder early: most candidates of a search cannot match, and its lower layers can often tell.

A graph is cut apart. After each part but the last a linear estimate says by how much a pair will exceed the logit that
it needs; only those go on that may reach it. The estimates are fitted by `lostfound optimise` on searches of the
validation split, and serve only if all but one in a hundred of these lose nothing by estimates fitted on others.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from search.types import Floats

RIDGE = 1000.0
"""Penalty on the squares of the weights of standardised features."""

FOLDS = 4
"""Of each half of the searches: what is expected of one comes of an estimate that was fitted on the others."""

MOST_LOST = 0.003
"""Of the searches that find something, the share that an estimate may make lose a match, slack apart: three estimates
together one in a hundred. The very lowest match would move the margin the further, the more searches there are."""

SLACK = 0.3
"""In standard deviations of the estimate's error. With the shipped reranker 0.2 keeps what it must too, but by so
little (0.9905) that another processor's rounding could undo it."""

LEAST_KEPT = 0.99
"""Of the searches that find something, the share that must lose nothing."""

MOST_GOING_ON = 1 / 3
"""Of all candidates, to the end; else it does not pay."""

MOST_LAYERS = 8 / 9
"""Likewise, of the layers that the reranked pairs would go through without it."""

LEAST_SEARCHES = 50
"""That find something, in each half."""

FEATURES = 5
"""For every value of a hidden state."""

JUST_BELOW = 1e-3
"""By how many logits at least a pair that leaves stays below what it needs."""

Features = npt.NDArray[np.float32]
"""Shape (n, FEATURES x width), from hidden states of that width."""

Mask = npt.NDArray[np.bool_]

Numbers = npt.NDArray[np.int64]


class Estimate(BaseModel):
    """By how much a pair will exceed the logit that it needs, and which pairs go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: tuple[FiniteFloat, ...]
    """Of the features, and last of the logit that the pair needs, which tells how similar it is."""
    bias: FiniteFloat
    margin: FiniteFloat
    """Pairs of which this much or more is expected go on; mostly negative."""

    def excess(self, known: Features, needed: Floats) -> npt.NDArray[np.float32]:
        """Estimated, in logits; shape (n,)."""
        return (known @ self._weights + self.weights[-1] * needed + self.bias).astype(np.float32)

    @cached_property
    def _weights(self) -> npt.NDArray[np.float32]:
        return np.array(self.weights[:-1], dtype=np.float32)


class EarlyExit(BaseModel):
    """Which pairs need not be computed to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimates: tuple[Estimate | None, ...]
    """After each part of the graph but the last; None: there none leaves."""
    kept: float = Field(ge=0, le=1)
    """Share of the searches of which no match left, by estimates that were fitted on other searches."""
    searches: int
    """So many those were."""
    reranked: float = Field(ge=0, le=1)
    """Share of the candidates that are similar enough to be reranked."""
    going_on: tuple[float, ...]
    """Share of the reranked pairs that are still there after each part but the last, by the estimates of `kept`."""
    layers: float = Field(ge=0, le=1)
    """Share of the layers that reranked pairs go through, on average; the last one counts in full."""

    @property
    def pays(self) -> bool:
        """Whether it keeps enough, and enough leave."""
        few_go_on = self.layers <= MOST_LAYERS and self.reranked * self.going_on[-1] <= MOST_GOING_ON
        return self.kept >= LEAST_KEPT and few_go_on


def features(hidden: npt.NDArray[np.float32], mask: npt.NDArray[np.int64], types: npt.NDArray[np.int64]) -> Features:
    """What an estimate reads of the hidden states of pairs.

    Args:
        hidden: Shape (n, tokens, width).
        mask: 1 for tokens, 0 for padding; shape (n, tokens).
        types: 0 for tokens of the report, 1 for tokens of the description; likewise.

    Returns:
        The first token's state, the means over report and description, their product and their distance.
    """
    means = []
    for part in (mask * (1 - types), mask * types):
        counts = part.sum(axis=1, keepdims=True).clip(min=1)
        means.append(np.matmul((part / counts).astype(np.float32)[:, None], hidden)[:, 0])
    lost, found = means
    return np.concatenate([hidden[:, 0], lost, found, lost * found, np.abs(lost - found)], axis=1)


def fit_early_exit(
    known: Sequence[Features],
    logits: Floats,
    needed: Floats,
    search: Numbers,
    searches: int,
    cuts: Sequence[float],
    depth: int,
) -> EarlyExit | None:
    """Fit on searches whose two halves have no group of reports in common, only the items.

    Each half is judged by estimates that were fitted on the other; those that serve are fitted on both.

    Args:
        known: Features of all reranked pairs of the searches, after each part of the graph but the last.
        logits: Of the whole model; shape (n,).
        needed: The logit with which each pair would be shown; shape (n,).
        search: The number of each pair's search, from 0; shape (n,).
        searches: So many there were; the first half of them is one half.
        cuts: The shares of the layers after which the graph is cut.
        depth: Candidates of each search, those that are too dissimilar to be reranked included.

    Returns:
        The one by all parts, or without the first, the first two and so on, whichever pays first; None where none does,
        or too few searches find something.
    """
    excess = (logits - needed).astype(np.float32)
    is_first, fold = search < searches // 2, search * 2 * FOLDS // searches % FOLDS
    if min(len(np.unique(search[half & (excess >= 0)])) for half in (is_first, ~is_first)) < LEAST_SEARCHES:
        return None
    estimates = []
    goes_on = np.ones((len(known), len(search)), dtype=bool)
    for number, of_part in enumerate(known):
        for half in (is_first, ~is_first):
            by_half = _estimate(of_part[half], excess[half], needed[half], search[half], fold[half])
            goes_on[number, ~half] = by_half.excess(of_part[~half], needed[~half]) >= by_half.margin
        estimates.append(_estimate(of_part, excess, needed, search, fold))
    for skipped in range(len(known)):
        goes_on[:skipped] = True
        early = _judged(
            [*[None] * skipped, *estimates[skipped:]],
            np.logical_and.accumulate(goes_on),
            search,
            excess >= 0,
            cuts,
            searches * depth,
        )
        if early.pays:
            return early
    return None


def _judged(
    estimates: Sequence[Estimate | None],
    is_there: Mask,
    search: Numbers,
    is_shown: Mask,
    cuts: Sequence[float],
    candidates: int,
) -> EarlyExit:
    """With the figures of what is still there after each part; shape (parts but the last, n)."""
    finding = np.unique(search[is_shown])
    losing = np.unique(search[is_shown & ~is_there[-1]])
    going_on = is_there.mean(axis=1).tolist()
    depths = [after - before for before, after in pairwise([0.0, *cuts, 1.0])]
    return EarlyExit(
        estimates=tuple(estimates),
        kept=1 - len(losing) / len(finding),
        searches=len(finding),
        reranked=len(search) / candidates,
        going_on=tuple(going_on),
        layers=float(np.dot([1.0, *going_on], depths)),
    )


def _estimate(known: Features, targets: Floats, needed: Floats, search: Numbers, fold: Numbers) -> Estimate:
    """By ridge regression.

    The margin is what is expected at least, by a regression on the other folds, of all that a search would show: of all
    but a few searches, and less some slack.
    """
    inputs = np.column_stack([known, needed.astype(np.float32)])
    expected = np.empty(len(targets))
    for number in range(FOLDS):
        weights, bias = _ridge(inputs[fold != number], targets[fold != number])
        expected[fold == number] = inputs[fold == number] @ weights + bias
    is_shown = targets >= 0
    error = float((expected - targets)[is_shown].std())
    least = np.sort([expected[is_shown & (search == number)].min() for number in np.unique(search[is_shown])])
    weights, bias = _ridge(inputs, targets)
    margin = float(least[int(MOST_LOST * len(least))]) - SLACK * error
    return Estimate(weights=tuple(map(float, weights)), bias=bias, margin=margin)


def _ridge(inputs: Features, targets: Floats) -> tuple[Floats, float]:
    """Weights and bias, of inputs as they are."""
    mean, deviation, centre = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6, float(targets.mean())
    scaled = inputs - mean
    scaled /= deviation  # in place, for these may be a quarter of a gigabyte
    gram = scaled.T @ scaled + RIDGE * np.eye(scaled.shape[1], dtype=np.float32)
    weights = np.linalg.solve(gram, scaled.T @ (targets - centre)) / deviation
    return weights, centre - float(mean @ weights)
