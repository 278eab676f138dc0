"""The fitted decision rule: which scores are a match, and how probable a match is at a score."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from search.errors import FingerprintError, ModelError
from search.reranker import Reranker
from search.validation import reasons
from search.whole_file import write_whole

FILE_NAME = "threshold.json"


class Figure(BaseModel):
    """A figure with its 95 % interval where it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """As `0.912 (0.897–0.926)`."""
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


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


_SUREST = 1 - 1e-6
"""A calibration may say 1, whose odds are infinite."""


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
        alone = np.minimum(self.alone(found), _SUREST)
        odds = alone / (1 - alone)
        rivals = odds[found >= least].sum() + np.where(found >= least, 0, odds)
        return (odds / (1 + rivals)).tolist()  # type: ignore[no-any-return]


class Threshold(BaseModel):
    """The content of `threshold.json`: a score at or above `threshold` is a match."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(ge=0, le=1)
    policy: str
    """How it was chosen, e.g. `best-f1`."""
    fitted_on: str
    """The pairs that it was fitted on."""
    pairs: int
    """How many these are."""
    figures: dict[str, Figure]
    """What it reaches on the pairs that it was fitted on: `AP`, `F1`, `precision`, `recall`, `accuracy`."""
    calibration: Calibration
    reranker: str
    """Fingerprint of the reranker it was fitted for."""
    precision: str
    """Of the arithmetic that it was fitted in, e.g. `float32`."""
    flipped: dict[str, float]
    """By other precision: the share of the pairs that it puts on the other side of the threshold."""

    def probabilities(self, scores: Sequence[float]) -> list[float]:
        """How probable it is of each candidate that it is the lost thing; see `Calibration.of_candidates`."""
        return self.calibration.of_candidates(scores, self.threshold)

    def save(self, path: Path) -> None:
        """Write the file; an earlier one is replaced as a whole.

        Raises:
            ModelError: It cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, self.model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise ModelError(f"{path} cannot be written: {error.strerror}") from error


MOST_FLIPPED = 0.005
"""A precision that decides more pairs otherwise than this share needs a threshold of its own."""


def load_threshold(reranker: Reranker, office: Path | None = None) -> Threshold | None:
    """The threshold that holds for a reranker: the office's own where it was fitted for it, else the model's.

    Args:
        reranker: Its fingerprint must be the threshold's.
        office: The office's own file; it need not exist.

    Raises:
        FingerprintError: The model's was fitted for another model or text form.
        ModelError: A file cannot be read as a threshold.
    """
    if office is not None and office.exists():
        threshold = _read(office)
        if threshold.reranker == reranker.fingerprint:
            return threshold
    path = reranker.folder / FILE_NAME
    if not path.exists():
        return None
    threshold = _read(path)
    if threshold.reranker != reranker.fingerprint:
        raise FingerprintError(
            f"{path} was fitted for reranker {threshold.reranker[:12]}, this is {reranker.fingerprint[:12]}; "
            f"{_WAYS_OUT}"
        )
    return threshold


def is_passed_over(office: Path, reranker: Reranker) -> bool:
    """Whether the office has a threshold of its own, but for another reranker.

    Raises:
        ModelError: The file cannot be read as a threshold.
    """
    return office.exists() and _read(office).reranker != reranker.fingerprint


def require_precision(threshold: Threshold, reranker: Reranker) -> None:
    """Refuse a threshold whose decisions in the reranker's precision are unknown or others. Loads the model.

    Raises:
        FingerprintError: The precision was not measured, or flips more than 0.5 % of the decisions.
    """
    flipped = {threshold.precision: 0.0, **threshold.flipped}.get(reranker.precision)
    if flipped is None and reranker.graph:
        flipped = reranker.graph.notes.flipped_at(threshold.threshold)
    if flipped is None or flipped > MOST_FLIPPED:
        known = "was not measured" if flipped is None else f"decides {flipped:.1%} of the pairs otherwise"
        raise FingerprintError(
            f"the threshold of reranker {reranker.name!r} was fitted in {threshold.precision}, and "
            f"{reranker.precision} {known}; {_WAYS_OUT}"
        )


_WAYS_OUT = (
    "fit one with `lostfound calibrate`, or measure this one with `lostfound optimise`, or search with a threshold of "
    "your own, --min-score X, or with --all"
)


def _read(path: Path) -> Threshold:
    try:
        return Threshold.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = reasons(error) if isinstance(error, ValidationError) else error.strerror
        raise ModelError(f"{path} is no threshold: {reason}; make one with `lostfound calibrate`") from error
