"""Leaving a cross-encoder early: most candidates of a search cannot match, and two thirds of the layers can tell.

A graph is cut in two. After its lower part a linear estimate of the logit says which pairs could still pass the
threshold; only those go through the upper part. The estimate is fitted by `lostfound optimise` on searches of the
validation split.
"""

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

LOWER_SHARE = 2 / 3
"""Of the layers. Of six, after the fourth a fifth of the pairs go on, after the third more than half must."""

RIDGE = 1000.0
"""Penalty on the squares of the weights of standardised features."""

Features = npt.NDArray[np.float32]
"""Shape (n, 5 width), from hidden states of that width."""


class EarlyExit(BaseModel):
    """Which pairs need not be computed to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(ge=0, le=1)
    """Score; pairs that reach it are meant to go on. With a lower one in use nothing may leave."""
    weights: tuple[float, ...]
    """Of the features."""
    bias: float
    cut: float
    """Pairs with an estimated logit from here on go on."""
    kept: float = Field(ge=0, le=1)
    """Share of held-out searches that lost none of their first ten matches by it."""
    going_on: float = Field(ge=0, le=1)
    """Share of their pairs that went on."""

    def estimates(self, features: Features) -> npt.NDArray[np.float32]:
        """Estimated logits; shape (n,)."""
        logits: npt.NDArray[np.float32] = features @ np.array(self.weights, np.float32) + np.float32(self.bias)
        return logits

    @property
    def highest_logit(self) -> float:
        """The highest logit of a pair that left early: just below the threshold's."""
        return math.log(self.threshold / (1 - self.threshold)) - 1e-3 if 0 < self.threshold < 1 else -1e3


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
    known: Features, logits: npt.NDArray[np.float32], threshold: float, depth: int, shown: int = 10
) -> EarlyExit:
    """Fit on the first half of some searches, look at the other half.

    Args:
        known: Features of all pairs of the searches, one search after the other.
        logits: Of the whole model; shape (n,).
        threshold: Score in (0, 1).
        depth: Pairs of each search.
        shown: Matches that an answer has at most.

    Returns:
        The estimate by ridge regression; the cut is the lowest estimate of a match that a search of the first half
        shows. Whether it pays is for the caller to judge by `kept` and `going_on`.
    """
    half = len(logits) // depth // 2 * depth
    mean, deviation = known[:half].mean(axis=0), known[:half].std(axis=0) + 1e-6
    scaled, centre = (known[:half] - mean) / deviation, float(logits[:half].mean())
    gram = scaled.T @ scaled + RIDGE * np.eye(scaled.shape[1], dtype=np.float32)
    weights = np.linalg.solve(gram, scaled.T @ (logits[:half] - centre)) / deviation
    fitted = EarlyExit(
        threshold=threshold,
        weights=tuple(map(float, weights)),
        bias=centre - float(mean @ weights),
        cut=0,
        kept=0,
        going_on=1,
    )
    estimates = fitted.estimates(known).reshape(-1, depth)
    ranks = np.argsort(np.argsort(-logits.reshape(-1, depth), axis=1, kind="stable"), axis=1)
    is_shown = (ranks < shown) & (logits.reshape(-1, depth) >= math.log(threshold / (1 - threshold)))
    lowest = np.where(is_shown, estimates, np.inf).min(axis=1)
    searches = half // depth
    cut = float(lowest[:searches].min())
    return fitted.model_copy(
        update={
            "cut": cut,
            "kept": float((lowest[searches:] >= cut).mean()),
            "going_on": float((estimates[searches:] >= cut).mean()),
        }
    )


def cut_in_two(network: Any) -> tuple[Any, Any] | None:
    """The lower and the upper part of an OpenVINO model of a BERT; None of one that is built otherwise.

    The lower part has the network's inputs and gives the hidden states, shape (n, tokens, width); the upper part takes
    these before the same inputs. The network itself is no longer of use.
    """
    from openvino import Model, opset13  # noqa: PLC0415  optional

    layers = {int(match[1]) for op in network.get_ops() if (match := _LAYER.search(op.get_friendly_name()))}
    last = round(len(layers) * LOWER_SHARE) - 1
    ends = [op for op in network.get_ordered_ops() if _is_end_of(last, op)]
    if not ends or last < 0 or last + 1 >= len(layers):
        return None
    end = ends[-1].output(0)
    lower = Model([opset13.result(end)], network.get_parameters(), "lower").clone()
    hidden = opset13.parameter(end.get_partial_shape(), end.get_element_type(), "hidden")
    for user in end.get_target_inputs():
        if user.get_node().get_type_name() != "Result":
            user.replace_source_output(hidden.output(0))
    return lower, Model(network.get_results(), [hidden, *network.get_parameters()], "upper")


def _is_end_of(layer: int, op: Any) -> bool:
    """Whether it is of the layer's last normalisation: its scale and shift fall away where they do nothing."""
    name = op.get_friendly_name()
    is_quantiser = "nncf" in name or op.get_type_name() in ("Constant", "FakeQuantize")
    return f"encoder.layer.{layer}.output.LayerNorm" in name and not is_quantiser


_LAYER = re.compile(r"\bencoder\.layer\.(\d+)\.")
