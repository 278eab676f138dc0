"""The fitted decision rule: which scores are a match, and how probable a match is at a score."""

import tempfile
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import FingerprintError, ModelError
from search.reranker import Reranker

FILE_NAME = "threshold.json"


class Figure(BaseModel):
    """A figure with its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As `0.912 (0.897–0.926)`."""
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


class Calibration(BaseModel):
    """From a score to the share of pairs with such a score that match; straight lines between knots.

    Example:
        >>> Calibration(method="platt", scores=(0, 0.5, 1), probabilities=(0, 0.2, 1)).probability(0.25)
        0.1
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    """`isotonic` or `platt`."""
    scores: tuple[float, ...]
    """Rising."""
    probabilities: tuple[float, ...]
    """Never falling, in [0, 1]."""

    def probability(self, score: float) -> float:
        """The probability of a match, in [0, 1]."""
        return float(np.interp(score, self.scores, self.probabilities))


class Threshold(BaseModel):
    """The content of `threshold.json`: a score at or above `threshold` is a match."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(ge=0, le=1)
    policy: str
    """How it was chosen, e.g. `best F1`."""
    fitted_on: str
    """The pairs that it was fitted on."""
    pairs: int
    """How many these are."""
    figures: dict[str, Figure]
    """What it reaches on those pairs: `AP`, `F1`, `precision`, `recall`, `accuracy`."""
    calibration: Calibration
    reranker: str
    """Fingerprint of the reranker it was fitted for."""
    flipped: dict[str, float]
    """By precision of the arithmetic, e.g. `bfloat16`: the share of the pairs that it puts on the other side of the
    threshold. 0 for the precision that it was fitted in; one that is not named was not measured."""

    def save(self, path: Path) -> None:
        """Write the file; an earlier one is replaced as a whole.

        Raises:
            ModelError: It cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as partial:
                partial.write(self.model_dump_json(indent=1) + "\n")
            Path(partial.name).chmod(0o644)
            Path(partial.name).replace(path)
        except OSError as error:
            raise ModelError(f"{path} cannot be written: {error.strerror}") from error


MOST_FLIPPED = 0.005
"""A precision that decides more pairs otherwise than this share needs a threshold of its own."""


def find_threshold(reranker: Reranker, office: Path | None) -> Path | None:
    """The file that holds for a reranker: the office's own, else the one beside the model, else None."""
    candidates = [*([office] if office else []), reranker.folder / FILE_NAME]
    return next((path for path in candidates if path.exists()), None)


def load_threshold(reranker: Reranker, office: Path | None = None) -> Threshold | None:
    """The threshold that holds for a reranker, see `find_threshold`.

    Raises:
        FingerprintError: It was fitted for another model or text form.
        ModelError: The file cannot be read as a threshold.
    """
    path = find_threshold(reranker, office)
    if path is None:
        return None
    try:
        threshold = Threshold.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise ModelError(f"{path} is no threshold: {reason}; make one with `lostfound calibrate`") from error
    if threshold.reranker != reranker.fingerprint:
        raise FingerprintError(
            f"{path} was fitted for reranker {threshold.reranker[:12]}, this is {reranker.fingerprint[:12]}; fit one "
            "with `lostfound calibrate`, or search with a threshold of your own, --min-score X, or with --all"
        )
    return threshold


def require_precision(threshold: Threshold, reranker: Reranker) -> None:
    """Refuse a threshold whose decisions in the reranker's precision are unknown or others. Loads torch.

    Raises:
        FingerprintError: The precision was not measured, or flips more than 0.5 % of the decisions.
    """
    flipped = threshold.flipped.get(reranker.precision)
    if flipped is None or flipped > MOST_FLIPPED:
        known = "was not measured" if flipped is None else f"decides {flipped:.1%} of the pairs otherwise"
        raise FingerprintError(
            f"the threshold of {reranker.name!r} was fitted in {next(iter(threshold.flipped))}, and "
            f"{reranker.precision} {known}; fit one on this machine with `lostfound calibrate`"
        )
