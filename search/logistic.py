"""From logits to probabilities and back."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from search.types import Floats

SUREST = 1 - 1e-6
"""A score of 1 has an infinite logit and infinite odds: beyond this one is as good as another."""

Array = TypeVar("Array", npt.NDArray[np.float32], npt.NDArray[np.float64])


def sigmoid(logits: Array) -> Array:
    """From logits to probabilities, without overflow: of large logits only the smaller exponential is taken."""
    small = np.exp(-np.abs(logits))
    scores: Array = np.where(logits >= 0, 1, small) / (1 + small)
    return scores


def logit(scores: Floats) -> npt.NDArray[np.float64]:
    """From scores to logits; of 0 and 1 as of a millionth beside them."""
    bounded = np.clip(np.asarray(scores, dtype=np.float64), 1 - SUREST, SUREST)
    logits: npt.NDArray[np.float64] = np.log(bounded / (1 - bounded))
    return logits
