"""What a search shows: the fitted threshold with its blend, or what the query asks for in its place."""

from dataclasses import dataclass

import numpy as np

from search.logistic import logit
from search.retriever import Candidate
from search.threshold import Threshold
from search.types import Floats, Scores, Vectors


@dataclass(frozen=True)
class Rule:
    """Which candidates are shown, and how probable they are said to be."""

    cut: float | None
    fitted: Threshold | None
    warnings: list[str]

    @property
    def hides(self) -> bool:
        """Whether what does not reach the fitted threshold need not be known."""
        return self.fitted is not None and self.cut is not None and self.cut >= self.fitted.threshold

    def needed(self, similarities: Vectors) -> Floats | None:
        """The logits with which pairs of these similarities are shown, or with `--all` as matches; None: not known."""
        if self.fitted is None:
            return None if self.cut is None else np.full(len(similarities), logit(np.array(self.cut)))
        at = self.fitted.threshold
        return self.fitted.needed(similarities, at if self.cut is None else min(at, self.cut))

    def worth_reranking(self, row: list[Candidate]) -> list[Candidate]:
        """The first candidates, without those too dissimilar to be shown."""
        if self.fitted is None or not self.hides:
            return row
        return [candidate for candidate in row if candidate.similarity >= self.fitted.floor]

    def scores(self, by_reranker: Scores, similarities: Vectors) -> Scores:
        """What the cut is compared with."""
        return self.fitted.scores(by_reranker, similarities).astype(np.float32) if self.fitted else by_reranker
