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
from search.training.corpus import Corpus, SeveralReport, Split, StrayReport, VagueReport
from search.training.metrics import Labels, Values
from search.training.pairs import Pair, contradicting_pairs, mixed_pairs, twin_pairs
from search.training.retrieval import ITEMS, retrieval
from search.training.searches import Indices, Inventory, Queries, Section, ranking_figures, ranks
from search.training.threshold_fit import DECISION_FIGURES, figure
from search.types import Advance

FEWEST_GROUPS = 5
"""Of a category that gets a figure of its own."""


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with what the reranker says of them, each of shape (n,)."""

    labels: Labels
    scores: Values
    probabilities: Values
    by_reranker: Values
    """The reranker's scores without the encoder's similarity."""
    similarities: Values
    """The encoder's, alone."""


@dataclass(frozen=True)
class Report:
    """All figures on one split, by section and name, and the mixed pairs behind the plots."""

    sections: dict[str, Section]
    mixed: ScoredPairs


@dataclass(frozen=True)
class Results:
    """Searches reranked, the best candidate first; of equal scores the more similar one, as in the pipeline."""

    candidates: Indices
    """Shape (q, depth), indices into the inventory."""
    scores: Values
    """Shape (q, depth), falling."""

    def hits(self, queries: Queries) -> npt.NDArray[np.bool_]:
        """Shape (q, depth): which candidate is the report's own object."""
        is_own: npt.NDArray[np.bool_] = self.candidates == queries.own[:, None]
        return is_own


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
        objects, strays = corpus.of(split)
        inventory = Inventory.of(objects)
        mixed, twins = mixed_pairs(corpus, split, self.encoder.device), twin_pairs(objects)
        scored = self.score_pairs(mixed)
        queries, lonely = Queries.of_objects(inventory), Queries.of_strays(strays)
        results, lonely_results = self.search(queries.texts, inventory), self.search(lonely.texts, inventory)
        sections = {
            "mixed pairs": self.pairs(mixed, scored),
            "twin pairs": self.pairs(twins, self.score_pairs(twins)),
            **self.baseline_searches(queries, inventory),
            f"retrieval among {ITEMS:,} items": retrieval(self.encoder, objects),
            "searches reranked": self.searches(queries, results),
            "recall@1 reranked by category": by_category(queries, results, inventory),
            "no match": self.no_match(strays, lonely, lonely_results),
            "shown matches": self.shown([(queries, results), (lonely, lonely_results)]),
            "contradictions": self.contradictions(contradicting_pairs(objects)),
            "vague reports": self.vague(corpus.vague[split], inventory),
            "reports of several objects": self.several(corpus.several[split], inventory),
        }
        return Report(sections, scored)

    def score_pairs(self, pairs: Sequence[Pair]) -> ScoredPairs:
        """What the reranker says of pairs with labels."""
        texts = [(pair.lost, pair.found) for pair in pairs]
        similarities = self.encoder.similarities(texts).astype(np.float64)
        by_reranker = self._by_reranker(texts, similarities)
        scores = self._final(by_reranker, similarities)
        labels = np.array([pair.is_match for pair in pairs], dtype=np.int64)
        return ScoredPairs(labels, scores, self.threshold.calibration.alone(scores), by_reranker, similarities)

    def pairs(self, pairs: Sequence[Pair], scored: ScoredPairs) -> Section:
        """AP, also of the baselines; F1, precision, recall and accuracy at the threshold; the calibration error."""
        groups = [pair.group for pair in pairs]
        predicted = (scored.scores >= self.threshold.threshold).astype(np.int64)
        by = {
            "AP": scored.scores,
            "AP of the reranker alone": scored.by_reranker,
            "AP of BM25": pair_similarities(bm25, pairs),
            "AP of the bi-encoder": scored.similarities,
        }
        section = {
            name: figure(metrics.average_precision, groups, scored.labels, values) for name, values in by.items()
        }
        for name, function in DECISION_FIGURES.items():
            section[name] = figure(function, groups, scored.labels, predicted)
        section["calibration error"] = calibration_figure(scored.labels, scored.probabilities)
        return section

    def search(self, reports: Sequence[str], inventory: Inventory) -> Results:
        """Retrieve and rerank; what is too dissimilar to be reranked has a score of 0."""
        similarities = bi_encoder(self.encoder)(reports, inventory.texts)
        candidates = np.argsort(-similarities, axis=1, kind="stable")[:, : self.depth]
        near = np.take_along_axis(similarities, candidates, axis=1)
        worth = near >= self.threshold.floor
        asked = np.repeat(np.arange(len(reports)), worth.sum(axis=1)).tolist()
        pairs = [(reports[row], inventory.texts[index]) for row, index in zip(asked, candidates[worth], strict=True)]
        scores = np.zeros_like(near)
        scores[worth] = self._final(self._by_reranker(pairs, near[worth]), near[worth])
        order = np.argsort(-scores, axis=1, kind="stable")
        return Results(np.take_along_axis(candidates, order, axis=1), np.take_along_axis(scores, order, axis=1))

    def baseline_searches(self, queries: Queries, inventory: Inventory) -> dict[str, Section]:
        """The same searches without the reranker."""
        sections = {}
        for name, similarity in self._baselines().items():
            order = np.argsort(-similarity(queries.texts, inventory.texts), axis=1, kind="stable")
            sections[f"searches by {name}"] = ranking_figures(
                ranks(order == queries.own[:, None]), queries.groups, (1, 5, 10, self.depth)
            )
        return sections

    def searches(self, queries: Queries, results: Results) -> Section:
        """Recall and MRR, and the reports whose object is shown. One that is not retrieved counts as a miss in all."""
        hits = results.hits(queries)
        kept = np.asarray((hits & (results.scores >= self.threshold.threshold)).any(axis=1), dtype=np.int64)
        return ranking_figures(ranks(hits), queries.groups, (1, 5, 10)) | {
            "reports that keep their object": figure(metrics.share, queries.groups, kept),
        }

    def no_match(self, strays: Sequence[StrayReport], queries: Queries, results: Results) -> Section:
        """How often a report without an object is answered so; apart for those of a sixth twin and of another thing."""
        is_silent = results.scores[:, 0] < self.threshold.threshold
        is_twin = np.array([stray.group is not None for stray in strays])
        kinds = {"of all": np.full(len(strays), True), "of a sixth twin": is_twin, "of another thing": ~is_twin}
        section = {}
        for name, chosen in kinds.items():
            if chosen.any():
                groups = np.array(queries.groups)[chosen].tolist()
                silent: Labels = is_silent[chosen].astype(np.int64)
                section[f'"no match" for stray reports {name}'] = figure(metrics.share, groups, silent)
        return section

    def shown(self, searches: Sequence[tuple[Queries, Results]]) -> Section:
        """Of all that a clerk is shown, strays included: how much is right, and how true its probabilities are."""
        is_shown = [results.scores >= self.threshold.threshold for _, results in searches]
        right = [results.hits(queries)[chosen] for (queries, results), chosen in zip(searches, is_shown, strict=True)]
        labels = np.concatenate(right).astype(np.int64)
        said = [
            probability
            for (_, results), chosen in zip(searches, is_shown, strict=True)
            for row, shown in zip(results.scores, chosen, strict=True)
            for probability in self.threshold.probabilities(row[shown].tolist())
        ]
        groups = [
            group
            for (queries, _), chosen in zip(searches, is_shown, strict=True)
            for group, count in zip(queries.groups, chosen.sum(axis=1), strict=True)
            for _ in range(count)
        ]
        if not groups:
            return {}
        return {
            "right": figure(metrics.share, groups, labels),
            "calibration error": calibration_figure(labels, np.array(said)),
        }

    def contradictions(self, pairs: Sequence[Pair]) -> Section:
        """How often a description that contradicts the report in one plain point stays below the threshold."""
        if not pairs:
            return {}
        held_back = np.asarray(self.score_pairs(pairs).scores < self.threshold.threshold, dtype=np.int64)
        return {"held back": figure(metrics.share, [pair.group for pair in pairs], held_back)}

    def vague(self, reports: Sequence[VagueReport], inventory: Inventory) -> Section:
        """How much of the first five is of the group that a vague report fits."""
        groups = np.array([entry.group for entry in inventory.objects])
        wanted = np.array([report.group for report in reports])
        first = groups[self.search([report.report for report in reports], inventory).candidates[:, :5]]
        shares = (first == wanted[:, None]).mean(axis=1)
        return {f"share of the group in the first {first.shape[1]}": figure(metrics.share, wanted.tolist(), shares)}

    def several(self, reports: Sequence[SeveralReport], inventory: Inventory) -> Section:
        """How many of the objects of a report are among the first ten."""
        names = np.array([entry.object for entry in inventory.objects])
        texts = [report.report for report in reports]
        first = names[self.search(texts, inventory).candidates[:, :10]]
        shares = np.array([np.isin(report.objects, row).mean() for report, row in zip(reports, first, strict=True)])
        return {f"objects in the first {first.shape[1]}": figure(metrics.share, texts, shares)}

    def _baselines(self) -> dict[str, Similarity]:
        return {"BM25": bm25, "the bi-encoder": bi_encoder(self.encoder)}

    def _final(self, by_reranker: Values, similarities: Values) -> Values:
        return self.threshold.scores(by_reranker, similarities).astype(np.float64)

    def _by_reranker(self, pairs: Sequence[tuple[str, str]], similarities: Values) -> Values:
        needed = self.threshold.needed(similarities)
        return self.reranker.score_pairs(pairs, self.advance, needed).astype(np.float64)


def by_category(queries: Queries, results: Results, inventory: Inventory) -> Section:
    """Recall@1 of every category with enough groups, the largest first."""
    places = ranks(results.hits(queries))
    categories = np.array([inventory.objects[number].category for number in queries.own])
    groups = np.array(queries.groups)
    section = {}
    for category, count in Counter(categories.tolist()).most_common():
        chosen = categories == category
        if len(set(groups[chosen])) >= FEWEST_GROUPS:
            section[f"{category} ({count} reports)"] = figure(
                partial(metrics.recall_at, k=1), groups[chosen].tolist(), places[chosen]
            )
    return section


def calibration_figure(labels: Labels, said: Values) -> Figure:
    """The calibration error, without an interval: the bootstrap of a mean of absolute gaps is biased upwards."""
    return Figure(value=round(metrics.calibration_error(labels, said), 4))
