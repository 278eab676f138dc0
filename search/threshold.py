"""The fitted decision rule: which scores are a match, and how probable a match is at a score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from search.encoder import BiEncoder
from search.errors import FingerprintError, ModelError
from search.likelihood import Calibration
from search.logistic import logit, sigmoid
from search.reranker import Reranker
from search.types import Floats
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


class Blend(BaseModel):
    """How the bi-encoder's similarity moves the reranker's score, and the decision rule for what comes of it.

    Two models err differently, and so their sum errs less: of the logit l and the cosine c the blended score is the
    sigmoid of l + weight (c - centre).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    """Fingerprint of the bi-encoder."""
    weight: float = Field(gt=0, allow_inf_nan=False)
    """Logits per unit of cosine."""
    centre: FiniteFloat
    """The cosine that moves nothing."""
    floor: FiniteFloat
    """Below this cosine the reranker is not asked: of the validation pairs that reach the threshold one in 200 lies
    lower."""
    threshold: float = Field(ge=0, le=1)
    figures: dict[str, Figure]
    flipped: dict[str, float]
    calibration: Calibration

    def scores(self, scores: Floats, similarities: Floats) -> Floats:
        """Blended scores.

        Args:
            scores: The reranker's, in [0, 1]; shape (n,).
            similarities: Cosines of the same pairs, in [-1, 1].

        Example:
            >>> calibration = Calibration(method="platt", scores=(0, 1), probabilities=(0, 1))
            >>> blend = Blend(encoder="", weight=10, centre=0.6, floor=0.3, threshold=0.5, figures={}, flipped={},
            ...     calibration=calibration)
            >>> blend.scores(np.array([0.5, 0.5, 0.5]), np.array([0.5, 0.6, 0.7])).round(2).tolist()
            [0.27, 0.5, 0.73]
        """
        return blended_scores(self.weight, self.centre, scores, similarities)


def blended_scores(weight: float, centre: float, scores: Floats, similarities: Floats) -> npt.NDArray[np.float64]:
    """See `Blend.scores`."""
    return sigmoid(logit(scores) + weight * (similarities.astype(np.float64) - centre))


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
    blend: Blend | None = None
    """Holds in place of the reranker alone where its bi-encoder retrieves."""

    def with_encoder(self, encoder: BiEncoder | None) -> "Threshold":
        """Of a threshold as it was fitted: the rule that holds with this bi-encoder, the blend's if it is of it."""
        blend = self.blend
        if blend is None or encoder is None or blend.encoder != encoder.fingerprint:
            return self.model_copy(update={"blend": None})
        return self.model_copy(update={name: getattr(blend, name) for name in _OF_THE_BLEND})

    def scores(self, scores: Floats, similarities: Floats) -> Floats:
        """What is compared with the threshold: blended scores, or without a blend the reranker's as they are."""
        return self.blend.scores(scores, similarities) if self.blend else scores

    def needed(self, similarities: Floats, at: float | None = None) -> Floats:
        """The logit that the reranker must give pairs of these similarities to reach a score; shape (n,).

        Args:
            similarities: Cosines of the pairs; shape (n,).
            at: The score; None: the threshold.
        """
        logits = np.full(len(similarities), logit(np.array(self.threshold if at is None else at)))
        return logits - self.blend.weight * (similarities - self.blend.centre) if self.blend else logits

    @property
    def floor(self) -> float:
        """The lowest similarity of a pair that a search reranks; see `Blend.floor`."""
        return self.blend.floor if self.blend else -1.0

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


_OF_THE_BLEND = ("threshold", "figures", "flipped", "calibration")

MOST_FLIPPED = 0.005
"""A precision that decides more pairs otherwise than this share needs a threshold of its own."""


def load_threshold(
    reranker: Reranker, office: Path | None = None, encoder: BiEncoder | None = None
) -> Threshold | None:
    """The threshold that holds for a reranker: the office's own where it was fitted for it, else the model's.

    Args:
        reranker: Its fingerprint must be the threshold's.
        office: The office's own file; it need not exist.
        encoder: Retrieves; where there is a blend with it that holds. None: the rule of the reranker alone.

    Raises:
        FingerprintError: The model's was fitted for another model or text form.
        ModelError: A file cannot be read as a threshold.
    """
    of_office = _read(office) if office is not None else None
    if of_office is not None and of_office.reranker == reranker.fingerprint:
        return of_office.with_encoder(encoder)
    path = reranker.folder / FILE_NAME
    threshold = _read(path)
    if threshold is None:
        return None
    if threshold.reranker != reranker.fingerprint:
        raise FingerprintError(
            f"{path} was fitted for reranker {threshold.reranker[:12]}, this is {reranker.fingerprint[:12]}; "
            f"fit one with `lostfound calibrate`, {_OR_NONE}"
        )
    return threshold.with_encoder(encoder)


def is_passed_over(office: Path, reranker: Reranker) -> bool:
    """Whether the office has a threshold of its own, but for another reranker.

    Raises:
        ModelError: The file cannot be read as a threshold.
    """
    threshold = _read(office)
    return threshold is not None and threshold.reranker != reranker.fingerprint


def require_precision(threshold: Threshold, reranker: Reranker) -> None:
    """Refuse a threshold whose decisions in the reranker's precision are unknown or others. Loads the model.

    Raises:
        FingerprintError: The precision was not measured, or flips more than 0.5 % of the decisions.
    """
    # A graph's own figure comes first: torch may have been measured in a precision of the same name.
    flipped = reranker.graph.notes.flipped_at(threshold.threshold) if reranker.graph else None
    if flipped is None:
        flipped = {threshold.precision: 0.0, **threshold.flipped}.get(reranker.precision)
    if flipped is None or flipped > MOST_FLIPPED:
        known = "was not measured" if flipped is None else f"decides {flipped:.1%} of the pairs otherwise"
        has_graphs = reranker.graph_folder and reranker.runs_on_cpu
        measure = "measure this one with `lostfound optimise`, " if has_graphs else ""
        raise FingerprintError(
            f"the threshold of reranker {reranker.name!r} was fitted in {threshold.precision}, and "
            f"{reranker.precision} {known}; {measure}fit one with `lostfound calibrate`, {_OR_NONE}"
        )


_OR_NONE = "or search with a threshold of your own, --min-score X, or with --all"


def _read(path: Path) -> Threshold | None:
    try:
        return Threshold.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        reason = reasons(error) if isinstance(error, ValidationError) else error.strerror
        raise ModelError(f"{path} is no threshold: {reason}; make one with `lostfound calibrate`") from error
