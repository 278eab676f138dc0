"""How good the models are on a split of the corpus: pairs, whole searches, and reports without an object."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from search.encoder import BiEncoder
from search.reranker import Reranker
from search.threshold import Figure, Threshold
from search.training import metrics
from search.training.baselines import Similarity, bi_encoder, bm25, pair_similarities
from search.training.calibration import probabilities
from search.training.corpus import Corpus, LostObject, SeveralReport, Split, StrayReport, VagueReport
from search.training.metrics import Labels, Values
from search.training.pairs import MIXED, Pair, build_pairs, twin_pairs
from search.training.threshold_fit import DECISION_FIGURES, figure
from search.types import Advance

SEED = 42

FEWEST_REPORTS = 20
"""Of a category that gets figures of its own."""

Section = dict[str, Figure]

Inventory = Sequence[tuple[str, LostObject]]
"""Found descriptions with their objects."""

Ranks = Values
"""Per query the rank of its item, 1 is the first, inf a miss."""


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with what the reranker says of them, each of shape (n,)."""

    labels: Labels
    scores: Values
    probabilities: Values


@dataclass(frozen=True)
class Report:
    """All figures on one split, by section and name, and the mixed pairs behind the plots."""

    sections: dict[str, Section]
    mixed: ScoredPairs


@dataclass(frozen=True)
class Results:
    """Searches reranked; both of shape (queries, depth), the most similar candidate first."""

    candidates: npt.NDArray[np.int64]
    """Indices into the inventory."""
    scores: Values


@dataclass(frozen=True)
class Evaluation:
    """Judges an encoder and a reranker with its threshold."""

    encoder: BiEncoder
    reranker: Reranker
    threshold: Threshold
    depth: int
    """Candidates that are reranked in the whole searches."""
    advance: Advance | None = None
    """Called with the number of pairs scored since the last call."""

    def run(self, corpus: Corpus, split: Split) -> Report:
        """All figures on one split; the test split is for reporting, never for choosing."""
        objects, strays = corpus.objects[split], corpus.strays[split]
        inventory = [(entry.found[number % len(entry.found)], entry) for number, entry in enumerate(objects)]
        mixed = build_pairs(objects, strays, self.encoder, MIXED, SEED)
        twins = twin_pairs(objects)
        scored = self.score_pairs(mixed)
        sections = {
            "mixed pairs": self.pairs(mixed, scored),
            "twin pairs": self.pairs(twins, self.score_pairs(twins)),
            **self.searches(inventory),
            "no match": self.no_match(strays, inventory),
            "vague reports": self.vague(corpus.vague[split], inventory),
            "reports of several objects": self.several(corpus.several[split], inventory),
        }
        return Report(sections, scored)

    def score_pairs(self, pairs: Sequence[Pair]) -> ScoredPairs:
        """What the reranker says of pairs with labels."""
        scores = self._score([(pair.lost, pair.found) for pair in pairs])
        labels = np.array([pair.label for pair in pairs], dtype=np.int64)
        return ScoredPairs(labels, scores, probabilities(self.threshold.calibration, scores))

    def pairs(self, pairs: Sequence[Pair], scored: ScoredPairs) -> Section:
        """AP, also of the baselines; F1, precision, recall and accuracy at the threshold; the calibration error."""
        groups = [pair.group for pair in pairs]
        predicted = (scored.scores >= self.threshold.threshold).astype(np.int64)
        section = {"AP": figure(metrics.average_precision, groups, scored.labels, scored.scores)}
        for name, similarity in self._baselines().items():
            similarities = pair_similarities(similarity, pairs)
            section[f"AP of {name}"] = figure(metrics.average_precision, groups, scored.labels, similarities)
        for name, function in DECISION_FIGURES.items():
            section[name] = figure(function, groups, scored.labels, predicted)
        section["calibration error"] = figure(metrics.calibration_error, groups, scored.labels, scored.probabilities)
        return section

    def searches(self, inventory: Inventory) -> dict[str, Section]:
        """Every report searched among one description per object: by the baselines, reranked, and that by category.

        An object that is not retrieved counts as a miss in all.
        """
        queries = [(lost, number) for number, (_, entry) in enumerate(inventory) for lost in entry.lost]
        reports, own = [lost for lost, _ in queries], np.array([number for _, number in queries])
        groups = [inventory[number][1].group for number in own]
        texts = [found for found, _ in inventory]
        sections = {
            f"searches by {name}": ranking_figures(
                _ranks(similarity(reports, texts), own), groups, (1, 5, 10, self.depth)
            )
            for name, similarity in self._baselines().items()
        }
        results = self._search(reports, inventory)
        hit = results.candidates == own[:, None]
        own_score = np.where(hit, results.scores, -np.inf).max(axis=1)
        better = (results.scores > own_score[:, None]).sum(axis=1)
        ranks = np.where(hit.any(axis=1), better + 1.0, np.inf)
        kept = (own_score >= self.threshold.threshold).astype(np.int64)
        sections["searches reranked"] = ranking_figures(ranks, groups, (1, 5, 10)) | {
            "reports that keep their object": figure(metrics.share, groups, kept),
        }
        categories = np.array([inventory[number][1].category for number in own])
        sections["recall@1 reranked by category"] = {
            f"{category} ({count} reports)": figure(
                partial(metrics.recall_at, k=1),
                [group for group, of_this in zip(groups, categories == category, strict=True) if of_this],
                ranks[categories == category],
            )
            for category, count in Counter(categories.tolist()).most_common()
            if count >= FEWEST_REPORTS
        }
        return sections

    def no_match(self, strays: Sequence[StrayReport], inventory: Inventory) -> Section:
        """How often a report without an object is answered so; apart for those of a sixth twin and of another thing."""
        silent = (
            self._search([stray.report for stray in strays], inventory).scores.max(axis=1) < self.threshold.threshold
        )
        groups = np.array([stray.group or stray.report for stray in strays])
        is_twin = np.array([stray.group is not None for stray in strays])
        kinds = {"of all": np.full(len(strays), True), "of a sixth twin": is_twin, "of another thing": ~is_twin}
        return {
            f'"no match" for stray reports {name}': figure(
                metrics.share, groups[chosen].tolist(), silent[chosen].astype(np.int64)
            )
            for name, chosen in kinds.items()
            if chosen.any()
        }

    def vague(self, reports: Sequence[VagueReport], inventory: Inventory) -> Section:
        """How much of the first five is of the group that a vague report fits."""
        group_of = np.array([entry.group for _, entry in inventory])
        first = group_of[self._first([report.report for report in reports], inventory, 5)]
        wanted = np.array([report.group for report in reports])
        return {
            "share of the group in the first 5": figure(
                metrics.share, wanted.tolist(), (first == wanted[:, None]).mean(axis=1)
            )
        }

    def several(self, reports: Sequence[SeveralReport], inventory: Inventory) -> Section:
        """How many of the objects of a report are among the first ten."""
        object_of = np.array([entry.object for _, entry in inventory])
        first = object_of[self._first([report.report for report in reports], inventory, 10)]
        found = [np.isin(report.objects, row).mean() for report, row in zip(reports, first, strict=True)]
        return {
            "objects in the first 10": figure(metrics.share, [report.report for report in reports], np.array(found))
        }

    def _baselines(self) -> dict[str, Similarity]:
        return {"BM25": bm25, "the bi-encoder": bi_encoder(self.encoder)}

    def _first(self, queries: Sequence[str], inventory: Inventory, count: int) -> npt.NDArray[np.int64]:
        """The inventory's indices of the best candidates by score; shape (queries, count)."""
        results = self._search(queries, inventory)
        order = np.argsort(-results.scores, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(results.candidates, order, axis=1)

    def _search(self, queries: Sequence[str], inventory: Inventory) -> Results:
        similarities = bi_encoder(self.encoder)(queries, [found for found, _ in inventory])
        candidates = np.argsort(-similarities, axis=1, kind="stable")[:, : self.depth]
        scores = self._score(
            [(query, inventory[index][0]) for query, row in zip(queries, candidates, strict=True) for index in row]
        )
        return Results(candidates, scores.reshape(candidates.shape))

    def _score(self, pairs: Sequence[tuple[str, str]]) -> Values:
        return self.reranker.score_pairs(pairs, self.advance).astype(np.float64)


def ranking_figures(ranks: Ranks, groups: Sequence[str], ks: Sequence[int]) -> Section:
    """Recall at each k, and MRR."""
    recalls = {f"recall@{k}": figure(partial(metrics.recall_at, k=k), groups, ranks) for k in ks}
    return recalls | {"MRR": figure(metrics.mean_reciprocal_rank, groups, ranks)}


def _ranks(similarities: Values, own: npt.NDArray[np.int64]) -> Ranks:
    """The rank of each query's own item; of items alike the earlier comes first, as in a search."""
    order = np.argsort(-similarities, axis=1, kind="stable")
    ranks: Ranks = (order == own[:, None]).argmax(axis=1) + 1.0
    return ranks
