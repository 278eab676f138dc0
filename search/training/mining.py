"""Descriptions near a report, found by a bi-encoder: what hard negatives are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.encoder import BiEncoder
from search.training.corpus import LostObject
from search.types import Vectors

NEAREST = 100
"""Descriptions that are looked at for a report: some are of its own group."""


@dataclass(frozen=True)
class Near:
    """A description near a report."""

    found: str
    owner: LostObject
    similarity: float
    """To the report; a cosine."""


class Neighbourhood:
    """All descriptions of some objects with their vectors."""

    def __init__(self, objects: Sequence[LostObject], encoder: BiEncoder) -> None:
        """Encode the descriptions."""
        self._descriptions = [(found, entry) for entry in objects for found in entry.found]
        self._vectors = encoder.encode([found for found, _ in self._descriptions])
        self._rows: dict[str, list[int]] = {}
        for row, (_, entry) in enumerate(self._descriptions):
            self._rows.setdefault(entry.object, []).append(row)

    def of(self, report: Vectors) -> list[Near]:
        """The up to 100 descriptions nearest to a report, the nearest first.

        Args:
            report: Its vector, shape (dim,), of the same encoder.
        """
        similarities = self._vectors @ report
        count = min(NEAREST, len(similarities))
        part = np.argpartition(-similarities, count - 1)[:count]
        order = part[np.argsort(-similarities[part], kind="stable")]
        nearest = zip((self._descriptions[row] for row in order), similarities[order].tolist(), strict=True)
        return [Near(found, owner, similarity) for (found, owner), similarity in nearest]

    def similarity_to_own(self, report: Vectors, owner: LostObject) -> float:
        """How near a report, given as for `of`, comes to a description of its own object; a cosine."""
        return float((self._vectors[self._rows[owner.object]] @ report).max())
