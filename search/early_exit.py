"""Leaving a cross-encoder early: most candidates of a search cannot match, and two thirds of the layers can tell.

A graph is cut in two. After its lower part a linear estimate of the logit says which pairs could still pass the
threshold; only those go through the upper part. The estimate is fitted by `lostfound optimise` on searches of the
validation split, and serves only if of the searches that were held out all but one in a hundred lose nothing by it.
"""

import re
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from search.types import Floats

LOWER_SHARE = 2 / 3
"""Of the layers. Of six, after the fourth a quarter of the pairs must go on, after the third more than half."""

RIDGE = 1000.0
"""Penalty on the squares of the weights of standardised features."""

SLACK = 1.5
"""In standard deviations of the estimate's error. With the shipped reranker the least of 0.5, 1 and 1.5 with which
either half of the searches keeps what it must where the other is fitted on."""

LEAST_KEPT = 0.99
"""Of the held-out searches that find something, the share that must lose nothing."""

MOST_GOING_ON = 1 / 3
"""Of the candidates of all held-out searches; else it does not pay."""

MOST_OF_RERANKED = 2 / 3
"""Likewise of those that are reranked: it saves a ninth of their layers at least."""

LEAST_SEARCHES = 50
"""That find something, in each half."""

FEATURES = 5
"""For every value of a hidden state."""

JUST_BELOW = 1e-3
"""By how many logits at least a pair that leaves stays below what it needs."""

Features = npt.NDArray[np.float32]
"""Shape (n, FEATURES x width), from hidden states of that width."""


class EarlyExit(BaseModel):
    """Which pairs need not be computed to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: tuple[FiniteFloat, ...]
    """Of the features."""
    bias: FiniteFloat
    margin: FiniteFloat
    """Pairs whose estimated logit is at least this far above the one that they need go on; mostly negative."""
    kept: float = Field(ge=0, le=1)
    """Share of the held-out searches of which no match left."""
    searches: int
    """So many those were."""
    reranked: float = Field(ge=0, le=1)
    """Share of the candidates that are similar enough to be reranked."""
    going_on: float = Field(ge=0, le=1)
    """Share of the reranked pairs of held-out searches that went on."""

    @property
    def pays(self) -> bool:
        """Whether it keeps enough, and enough leave."""
        few_go_on = self.going_on <= MOST_OF_RERANKED and self.reranked * self.going_on <= MOST_GOING_ON
        return self.kept >= LEAST_KEPT and few_go_on

    def estimates(self, known: Features) -> npt.NDArray[np.float32]:
        """Estimated logits; shape (n,)."""
        logits: npt.NDArray[np.float32] = known @ self._weights + np.float32(self.bias)
        return logits

    @cached_property
    def _weights(self) -> npt.NDArray[np.float32]:
        return np.array(self.weights, dtype=np.float32)


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
    known: Features, logits: Floats, needed: Floats, search: npt.NDArray[np.int64], searches: int, depth: int
) -> EarlyExit | None:
    """Fit on the first half of some searches, look at the other half; None where too few of them find something.

    Args:
        known: Features of all reranked pairs of the searches.
        logits: Of the whole model; shape (n,).
        needed: The logit with which each pair would be shown; shape (n,).
        search: The number of each pair's search, from 0; shape (n,).
        searches: So many there were.
        depth: Candidates of each, those that are too dissimilar to be reranked included.

    Returns:
        The estimate by ridge regression; the margin is the lowest of a pair of the first half that would be shown, and
        some slack below, or whether the other half holds a lower one would be chance.
    """
    first = search < searches // 2
    if first.all() or not first.any():
        return None
    mean, deviation = known[first].mean(axis=0), known[first].std(axis=0) + 1e-6
    scaled, centre = (known[first] - mean) / deviation, float(logits[first].mean())
    gram = scaled.T @ scaled + RIDGE * np.eye(scaled.shape[1], dtype=np.float32)
    weights = np.linalg.solve(gram, scaled.T @ (logits[first] - centre)) / deviation
    bias = centre - float(mean @ weights)
    estimates, is_shown = known @ weights + bias, logits >= needed
    margins = estimates - needed
    lowest = np.full(searches, np.inf)
    np.minimum.at(lowest, search[is_shown], margins[is_shown])
    of_first, of_others = (half[np.isfinite(half)] for half in (lowest[: searches // 2], lowest[searches // 2 :]))
    if min(len(of_first), len(of_others)) < LEAST_SEARCHES:
        return None
    error = float((estimates - logits)[first & is_shown].std())
    margin = float(of_first.min()) - SLACK * error
    return EarlyExit(
        weights=tuple(map(float, weights)),
        bias=bias,
        margin=margin,
        kept=float((of_others >= margin).mean()),
        searches=len(of_others),
        reranked=len(search) / (searches * depth),
        going_on=float((margins[~first] >= margin).mean()),
    )


def cut_in_two(network: Any, openvino: Any) -> tuple[Any, Any] | None:
    """The lower and the upper part of an OpenVINO model of a BERT; None of one that is built otherwise.

    The lower part has the network's inputs and gives the hidden states, shape (n, tokens, width); the upper part takes
    these before the same inputs. The network itself is no longer of use.
    """
    opset, model = openvino.opset13, openvino.Model
    layers = {int(match[1]) for op in network.get_ops() if (match := _LAYER.search(op.get_friendly_name()))}
    last = round(len(layers) * LOWER_SHARE) - 1
    ends = [op.output(0) for op in network.get_ordered_ops() if _is_end_of(last, op)]
    if not ends or last + 1 >= len(layers):
        return None
    end = ends[-1]
    shape = end.get_partial_shape()
    if len(shape) != 3 or shape[2].is_dynamic:  # noqa: PLR2004
        return None
    lower = model([opset.result(end)], network.get_parameters(), "lower").clone()
    hidden = opset.parameter(shape, end.get_element_type(), "hidden")
    for user in end.get_target_inputs():
        if user.get_node().get_type_name() != "Result":
            user.replace_source_output(hidden.output(0))
    return lower, model(network.get_results(), [hidden, *network.get_parameters()], "upper")


def _is_end_of(layer: int, op: Any) -> bool:
    """Whether it is of the layer's last normalisation: its scale and shift fall away where they do nothing."""
    name, kind = op.get_friendly_name(), op.get_type_name()
    return f"encoder.layer.{layer}.output.LayerNorm" in name and "nncf" not in name and kind in _NORMALISING


_NORMALISING = ("MVN", "Multiply", "Add")

_LAYER = re.compile(r"\bencoder\.layer\.(\d+)\.")
