"""How good the models are on a split of the corpus: pairs, whole searches, and reports without an object."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from search.encoder import BiEncoder
from search.reranker import Reranker
from search.training import metrics
from search.training.corpus import Corpus, LostObject, Split, StrayReport
from search.training.pairs import MIXED, Pair, build_pairs, twin_pairs
from search.types import Advance

SEED = 42


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval, from a bootstrap over groups."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As `0.912 (0.897–0.926)`."""
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


Inventory = Sequence[tuple[str, LostObject]]
"""Found descriptions with their objects."""


def figure(function: Callable[..., float], clusters: Sequence[str], *columns: npt.NDArray[Any]) -> Figure:
    """A metric of the columns with its interval; see `metrics.interval`."""
    return Figure(function(*columns), *metrics.interval(function, clusters, *columns))


@dataclass(frozen=True)
class Evaluation:
    """Judges an encoder and a reranker."""

    encoder: BiEncoder
    reranker: Reranker
    threshold: float
    """A score from it on is a match."""
    depth: int
    """Candidates that are reranked in the whole searches."""
    advance: Advance | None = None
    """Called with the number of pairs scored since the last call."""

    def run(self, corpus: Corpus, split: Split) -> dict[str, dict[str, Figure]]:
        """All figures on one split; the test split is for reporting, never for choosing.

        Returns:
            Sections `mixed pairs`, `twin pairs`, `retrieval`, `reranked`, `no match`, each figures by name.
        """
        objects, strays = corpus.objects[split], corpus.strays[split]
        inventory = [(entry.found[number % 2], entry) for number, entry in enumerate(objects)]
        group_of = {lost: entry.group for entry in objects for lost in entry.lost}
        group_of |= {stray.report: stray.group or stray.report for stray in strays}
        return {
            "mixed pairs": self.pairs(build_pairs(objects, strays, self.encoder, MIXED, SEED), group_of),
            "twin pairs": self.pairs(twin_pairs(objects), group_of),
            **self.searches(inventory),
            "no match": self.no_match(strays, inventory),
        }

    def pairs(self, pairs: Sequence[Pair], group_of: dict[str, str]) -> dict[str, Figure]:
        """AP, and F1, precision, recall and accuracy at the threshold."""
        scores = self._score([(pair.lost, pair.found) for pair in pairs])
        labels = np.array([pair.label for pair in pairs], dtype=np.int64)
        predicted = (scores >= self.threshold).astype(np.int64)
        groups = [group_of[pair.lost] for pair in pairs]
        return {
            "AP": figure(metrics.average_precision, groups, labels, scores),
            "F1": figure(metrics.f1, groups, labels, predicted),
            "precision": figure(metrics.precision, groups, labels, predicted),
            "recall": figure(metrics.recall, groups, labels, predicted),
            "accuracy": figure(metrics.accuracy, groups, labels, predicted),
        }

    def searches(self, inventory: Inventory) -> dict[str, dict[str, Figure]]:
        """Every report searched among one description per object, before and after reranking.

        An object that is not retrieved counts as a miss in both.
        """
        queries = [(lost, number) for number, (_, entry) in enumerate(inventory) for lost in entry.lost]
        candidates, scores = self._search([lost for lost, _ in queries], inventory)
        hit = candidates == np.array([number for _, number in queries])[:, None]
        own = np.where(hit, scores, -np.inf).max(axis=1)
        better = (scores > own[:, None]).sum(axis=1)
        retrieved = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf)
        reranked = np.where(hit.any(axis=1), better + 1.0, np.inf)
        groups = [inventory[number][1].group for _, number in queries]
        sections = {
            name: {f"recall@{k}": figure(partial(metrics.recall_at, k=k), groups, ranks) for k in ks}
            | {"MRR": figure(metrics.mean_reciprocal_rank, groups, ranks)}
            for name, ranks, ks in (
                ("retrieval", retrieved, (1, 5, 10, self.depth)),
                ("reranked", reranked, (1, 5, 10)),
            )
        }
        sections["reranked"]["reports that keep their object"] = figure(
            metrics.share, groups, (own >= self.threshold).astype(np.int64)
        )
        return sections

    def no_match(self, strays: Sequence[StrayReport], inventory: Inventory) -> dict[str, Figure]:
        """How often a report without an object is answered so."""
        _, scores = self._search([stray.report for stray in strays], inventory)
        silent = (scores.max(axis=1) < self.threshold).astype(np.int64)
        groups = [stray.group or stray.report for stray in strays]
        return {"stray reports answered by no match": figure(metrics.share, groups, silent)}

    def _search(
        self, queries: Sequence[str], inventory: Inventory
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Candidates as indices into the inventory, the most similar first, and their scores; (queries, depth) each."""
        similarities = self.encoder.encode(queries) @ self.encoder.encode([found for found, _ in inventory]).T
        candidates = np.argsort(-similarities, axis=1, kind="stable")[:, : self.depth]
        scores = self._score(
            [(query, inventory[index][0]) for query, row in zip(queries, candidates, strict=True) for index in row]
        )
        return candidates, scores.reshape(candidates.shape)

    def _score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        return self.reranker.score_pairs(pairs, self.advance).astype(np.float64)
