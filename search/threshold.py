"""The fitted decision rule: which scores are a match."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import FingerprintError, ModelError
from search.reranker import Reranker

FILE_NAME = "threshold.json"


class Threshold(BaseModel):
    """The content of `threshold.json`: a score at or above `threshold` is a match."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(ge=0, le=1)
    policy: str
    """How it was chosen, e.g. `best F1`."""
    fitted_on: str
    """The pairs that it was fitted on."""
    figures: dict[str, float]
    """What it reaches on those pairs: `precision`, `recall`, `f1`, `average_precision`, `pairs`."""
    reranker: str
    """Fingerprint of the reranker it was fitted for."""

    def save(self, folder: Path) -> None:
        """Write `threshold.json` beside the model."""
        (folder / FILE_NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_threshold(reranker: Reranker) -> Threshold | None:
    """The threshold that lies beside the reranker, None where it has none.

    Raises:
        FingerprintError: It was fitted for another model or text form.
        ModelError: The file cannot be read as a threshold.
    """
    path = reranker.folder / FILE_NAME
    if not path.exists():
        return None
    try:
        threshold = Threshold.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise ModelError(f"{path} is no threshold: {reason}; put the one that came with the model back") from error
    if threshold.reranker != reranker.fingerprint:
        raise FingerprintError(
            f"{path} was fitted for reranker {threshold.reranker[:12]}, this is {reranker.fingerprint[:12]}; "
            "put the weights back, or search with a threshold of your own, --min-score X, or with --all"
        )
    return threshold
