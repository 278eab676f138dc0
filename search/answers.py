"""What a search is asked and what it answers."""

from dataclasses import dataclass, field
from datetime import date

from search.errors import QueryError
from search.likelihood import Likelihood
from storage.items import Filters
from storage.models import Status


@dataclass(frozen=True)
class Request:
    """How to search, for one query or many."""

    top: int = 10
    """Matches in an answer at most."""
    depth: int = 100
    """Candidates retrieved and reranked; `top` where that is more."""
    min_score: float | None = None
    """Threshold in place of the fitted one, in [0, 1]."""
    show_all: bool = False
    """Keep what is below the threshold."""
    filters: Filters = field(default_factory=Filters)
    deadline: int | None = None
    """Milliseconds, once the models are loaded, after which no further candidates are reranked, the most similar having
    come first; the first few are in any case. For queries that are answered together it bounds the time of all."""

    def check(self) -> None:
        """Refuse what is out of range.

        Raises:
            QueryError: A number is, or the first day is after the last.
        """
        for name in ("top", "depth"):
            if getattr(self, name) < 1:
                raise QueryError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.deadline is not None and self.deadline < 1:
            raise QueryError(f"deadline is {self.deadline} ms, it must be at least 1")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise QueryError(f"min_score is {self.min_score}, a score lies between 0 and 1")
        first, last = self.filters.found_from, self.filters.found_to
        if first and last and first > last:
            raise QueryError(f"the first day, {first}, is after the last, {last}")


@dataclass(frozen=True)
class Match:
    """A found item, with why it is where it is."""

    rank: int
    """1 is the best."""
    reference: str
    item_id: int
    description: str
    similarity: float
    """Cosine of the bi-encoder's vectors, in [-1, 1]."""
    score: float
    """In [0, 1]; the threshold is compared with it. The cross-encoder's, moved by the similarity where there is a
    `Blend` with this bi-encoder."""
    probability: float | None
    """That it is the lost thing, if at most one of all that reach the fitted threshold is, shown or not
    (`Calibration.of_candidates`); None where the reranker is not calibrated."""
    likelihood: Likelihood | None
    """The probability in words."""
    category: str | None
    colour: str | None
    brand: str | None
    office: str | None
    place: str | None
    found_on: date | None
    status: Status


@dataclass(frozen=True)
class Answer:
    """The matches of one query, best first; none is an answer too."""

    query: str
    """As it was read, without what was cut off."""
    matches: list[Match]
    candidates: int
    """Items that were compared: reranked, or passed over for a similarity at which nothing reaches the threshold."""
    retrieved: int
    """Items that would have been, had there been no deadline."""
    reranked: int
    """Items that the cross-encoder scored."""
    below_threshold: int
    """Candidates that are not shown for their score."""
    threshold: float | None
    """The one applied; None: all are shown."""
    warnings: list[str]
