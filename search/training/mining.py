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

    description: tuple[str, LostObject]
    """With the object that it describes."""
    similarity: float
    """To the report; a cosine."""

    @property
    def found(self) -> str:
        """The text."""
        return self.description[0]

    @property
    def owner(self) -> LostObject:
        """The object."""
        return self.description[1]


class Neighbourhood:
    """All descriptions of some objects with their vectors."""

    def __init__(self, objects: Sequence[LostObject], encoder: BiEncoder) -> None:
        """Encode the descriptions."""
        self.descriptions = [(found, entry) for entry in objects for found in entry.found]
        self._encoder = encoder
        self._vectors = encoder.encode([found for found, _ in self.descriptions])
        self._rows: dict[str, list[int]] = {}
        for row, (_, entry) in enumerate(self.descriptions):
            self._rows.setdefault(entry.object, []).append(row)

    def of(self, reports: Sequence[str]) -> list[list[Near]]:
        """The up to 100 nearest descriptions of each report, the nearest first."""
        return [self._nearest(vector) for vector in self._encoder.encode_queries(reports)]

    def similarity_to_own(self, reports: Sequence[str], owners: Sequence[LostObject]) -> list[float]:
        """How near each report comes to a description of its own object; cosines."""
        vectors = self._encoder.encode_queries(reports)
        return [
            float((self._vectors[self._rows[owner.object]] @ vector).max())
            for vector, owner in zip(vectors, owners, strict=True)
        ]

    def _nearest(self, report: Vectors) -> list[Near]:
        similarities = self._vectors @ report
        count = min(NEAREST, len(similarities))
        part = np.argpartition(-similarities, count - 1)[:count]
        order = part[np.argsort(-similarities[part], kind="stable")]
        return [Near(self.descriptions[row], float(similarities[row])) for row in order]
