"""From a score to how probable a match is, as a number and in words."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from search.logistic import SUREST


class Likelihood(StrEnum):
    """A probability in a clerk's words."""

    VERY_LIKELY = "very likely"
    """0.8 or more."""
    POSSIBLE = "possible"
    """0.4 or more."""
    UNLIKELY = "unlikely"

    @classmethod
    def of(cls, probability: float) -> "Likelihood":
        """The words for a probability.

        >>> str(Likelihood.of(0.85))
        'very likely'
        """
        if probability >= 0.8:  # noqa: PLR2004
            return cls.VERY_LIKELY
        return cls.POSSIBLE if probability >= 0.4 else cls.UNLIKELY  # noqa: PLR2004


class Calibration(BaseModel):
    """From a score to the share of pairs with such a score that match; straight lines between knots.

    Example:
        >>> Calibration(method="platt", scores=(0, 0.5, 1), probabilities=(0, 0.2, 1)).alone([0.25]).tolist()
        [0.1]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    """`isotonic` or `platt`."""
    scores: tuple[float, ...] = Field(min_length=1)
    """Rising."""
    probabilities: tuple[float, ...]
    """One per score, never falling, in [0, 1]."""

    @model_validator(mode="after")
    def _is_monotone(self) -> "Calibration":
        rises = all(low < high for low, high in pairwise(self.scores))
        never_falls = all(low <= high for low, high in pairwise((0.0, *self.probabilities, 1.0)))
        if len(self.scores) != len(self.probabilities) or not rises or not never_falls:
            raise ValueError("is no calibration: scores must rise, and probabilities never fall, within [0, 1]")
        return self

    def alone(self, scores: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The probability that each of some pairs matches, looked at alone; in [0, 1], of the shape of the scores."""
        return np.interp(scores, self.scores, self.probabilities)

    def of_candidates(self, scores: Sequence[float], least: float) -> list[float]:
        """How probable it is of each of a search's candidates that it is the lost thing, if at most one is.

        The odds p / (1 - p) that each has alone share the certainty with the 1 that stands for none of them: what is
        left of independent pairs when no two match at once. So near twins that all look right take from one another.

        Args:
            scores: n of them.
            least: Only candidates with this score or a higher one take from the others; the many that are hopeless
                would be too much together.

        Returns:
            One per score, in [0, 1], never falling with the score; of those from `least` on together at most 1.

        Example:
            >>> alone = Calibration(method="platt", scores=(0, 1), probabilities=(0, 1))
            >>> [[round(p, 2) for p in alone.of_candidates(scores, 0.5)] for scores in ([0.9, 0.2], [0.9, 0.8])]
            [[0.9, 0.02], [0.64, 0.29]]
        """
        found = np.array(scores)
        alone = np.minimum(self.alone(found), SUREST)
        odds = alone / (1 - alone)
        rivals = odds[found >= least].sum() + np.where(found >= least, 0, odds)
        return (odds / (1 + rivals)).tolist()  # type: ignore[no-any-return]
