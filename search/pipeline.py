"""A search from the query to the matches: retrieve, rerank, threshold."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from search.answers import Answer, Match, Request
from search.encoder import BiEncoder
from search.errors import DatabaseError, ModelError, QueryError
from search.likelihood import Likelihood
from search.reranker import Reranker
from search.retriever import Candidate, Retriever
from search.rule import Rule
from search.text import clean_query, text_of
from search.threshold import is_passed_over, load_threshold, require_precision
from search.types import Advance, Scores
from storage import items
from storage.database import Database
from storage.models import Item

ROUND_PAIRS = 16
"""Reranked between two looks at the clock: about a tenth of a second by a graph, a quarter where most match."""


class SearchPipeline:
    """Answers queries. Safe to share between threads.

    Example:
        >>> pipeline = Application().pipeline  # doctest: +SKIP
        >>> pipeline.search("my black eastpak rucksack").matches[0].reference  # doctest: +SKIP
        'CS-00002'
    """

    def __init__(
        self, database: Database, encoder: BiEncoder, reranker: Reranker, threshold_file: Path | None = None
    ) -> None:
        """Bind the parts; models and index are loaded by the first query.

        Args:
            database: The items.
            encoder: Retrieves.
            reranker: Scores.
            threshold_file: The office's own threshold, used in place of the reranker's where it exists.
        """
        self._encoder = encoder
        self._reranker = reranker
        self._threshold_file = threshold_file
        self._retriever = Retriever(database, encoder)
        self._is_loaded = False

    def search(self, query: str, request: Request | None = None) -> Answer:
        """Answer one query; see `search_many`."""
        return self.search_many([query], request)[0]

    def search_many(
        self, queries: Sequence[str], request: Request | None = None, advance: Advance | None = None
    ) -> list[Answer]:
        """Answer queries together: their pairs share the reranker's batches.

        Args:
            queries: Lost reports; one longer than the encoder reads is cut, with a warning in its answer.
            request: How to search, the same for all.
            advance: Called with the number of pairs reranked since the last call.

        Raises:
            QueryError: A query is empty or not UTF-8, or the request is out of range.
            FingerprintError: No held item has a vector of this encoder, or the threshold is another reranker's.
            DatabaseError: The database cannot be read.
        """
        request = request or Request()
        request.check()
        cleaned = [clean_query(query) for query in queries]
        if not cleaned:
            return []
        if request.deadline is not None or not self._is_loaded:
            self._load(request)
        rule = self._rule(request)
        cut = [self._cut(query) for query in cleaned]
        texts = [text for text, _ in cut]
        until = None if request.deadline is None else time.monotonic() + request.deadline / 1000
        vectors = self._encoder.encode_queries(texts)
        depth = max(request.depth, request.top)
        with self._retriever.retrieve(vectors, depth, request.filters) as (session, retrieval):
            rows = [rule.worth_reranking(row) for row in retrieval.candidates]
            found = _stored(session, {candidate.item_id for row in rows for candidate in row})
        pairs = [
            [(text, text_of(found[candidate.item_id])) for candidate in row]
            for text, row in zip(texts, rows, strict=True)
        ]
        similarities = [[candidate.similarity for candidate in row] for row in rows]
        scores = self._scores(pairs, similarities, rule, until, advance)
        shared_warnings = [
            *rule.warnings,
            *self._encoder.warnings,
            *self._reranker.warnings,
            *self._without_vector_warning(retrieval.without_vector),
            *retrieval.warnings,
        ]
        answers = []
        for (text, was_cut), retrieved, row, row_scores in zip(cut, retrieval.candidates, rows, scores, strict=True):
            candidates = len(retrieved) - len(row) + len(row_scores)
            ranked = sorted(
                zip(row, row_scores, strict=False),  # a deadline leaves out the last
                key=lambda scored: (-scored[1], -scored[0].similarity, scored[0].item_id),
            )
            late = _late_warning(request, candidates, len(retrieved))
            passed = [(candidate, score) for candidate, score in ranked if rule.cut is None or score >= rule.cut]
            said = rule.fitted.probabilities([score for _, score in ranked]) if rule.fitted else [None] * len(ranked)
            shown = list(zip(passed, said, strict=False))[: request.top]
            answers.append(
                Answer(
                    query=text,
                    matches=[
                        _match(rank, found[c.item_id], c, score, p) for rank, ((c, score), p) in enumerate(shown, 1)
                    ],
                    candidates=candidates,
                    retrieved=len(retrieved),
                    reranked=len(ranked),
                    below_threshold=candidates - len(passed),
                    threshold=rule.cut,
                    warnings=[*_cut_warning(text, was_cut), *late, *shared_warnings],
                )
            )
        return answers

    def read(self, query: str) -> tuple[str, bool]:
        """What the models read of a query, and whether it is longer than that.

        Raises:
            QueryError: It is empty or not UTF-8, or the models read nothing of it.
        """
        return self._cut(clean_query(query))

    def _cut(self, query: str) -> tuple[str, bool]:
        text, was_cut = self._encoder.cut(query)
        if not text:
            raise QueryError(f"the model reads nothing of the query {query[:40]!a}; describe the lost item in words")
        return text, was_cut

    def score_pairs(self, pairs: Sequence[tuple[str, str]], advance: Advance | None = None) -> tuple[Scores, list[str]]:
        """Score (lost, found) pairs as a search does.

        Args:
            pairs: n pairs; a lost report is read as a query is.
            advance: Called with the number of pairs scored since the last call.

        Returns:
            Scores in [0, 1], shape (n,), and warnings: of a threshold with whose blend they should have been computed
            and were not, of a model that computes slowly.

        Raises:
            QueryError: Of a lost report, see `read`.
            ModelError: A model cannot be used.
        """
        rule = self._rule(Request(show_all=True))
        read = [(self.read(lost)[0], found) for lost, found in pairs]
        is_blended = rule.fitted is not None and rule.fitted.blend is not None
        cosines = self._encoder.similarities(read) if is_blended else np.zeros(len(read), dtype=np.float32)
        needed = rule.needed(cosines)
        scores = rule.scores(self._reranker.score_pairs(read, advance, needed), cosines)
        return scores, [*rule.warnings, *self._encoder.warnings, *self._reranker.warnings]

    def _scores(
        self,
        pairs: list[list[tuple[str, str]]],
        similarities: list[list[float]],
        rule: Rule,
        until: float | None,
        advance: Advance | None,
    ) -> list[list[float]]:
        """The scores of each query's candidates; of the first ones where the time does not suffice for all."""
        deepest = max(map(len, pairs))
        step = max(1, deepest if until is None else ROUND_PAIRS // len(pairs))
        scores: list[list[float]] = [[] for _ in pairs]
        for start in range(0, deepest, step):
            began = time.monotonic()
            texts = [pair for row in pairs for pair in row[start : start + step]]
            cosines = [cosine for row in similarities for cosine in row[start : start + step]]
            of_pairs = np.array(cosines, dtype=np.float32)
            by_reranker = self._reranker.score_pairs(
                texts, advance, rule.needed(of_pairs), may_leave=self._may_leave(rule)
            )
            values = iter(rule.scores(by_reranker, of_pairs).tolist())
            for row, known in zip(pairs, scores, strict=True):
                known += [next(values) for _ in row[start : start + step]]
            now = time.monotonic()
            if until is not None and now + (now - began) > until:  # the next round would end too late
                break
        return scores

    def _load(self, request: Request) -> None:
        """Compile the reranker's graph, which keeps one core busy, beside all else that the first search needs.

        What a deadline does not count is loaded before it begins.
        """
        with ThreadPoolExecutor(1) as beside:
            graph = beside.submit(lambda: self._reranker.graph)
            self._retriever.load(request.filters)
            graph.result()
        if request.deadline is not None:
            self._reranker.load()
        self._is_loaded = True

    def _may_leave(self, rule: Rule) -> bool:
        """Whether pairs may leave the reranker early by this rule."""
        if rule.fitted is None or not rule.hides:
            return False
        return self._reranker.may_leave_early(rule.fitted.threshold, self._encoder.fingerprint)

    def _without_vector_warning(self, count: int) -> list[str]:
        missing = f"{count} items have no vector of encoder {self._encoder.name!r} and were not searched"
        return [f"{missing}; run `lostfound reindex`"] if count else []

    def _rule(self, request: Request) -> Rule:
        is_fitted_cut = not request.show_all and request.min_score is None
        cut = None if request.show_all else request.min_score
        try:
            fitted = load_threshold(self._reranker, self._threshold_file, self._encoder)
            if fitted is not None:
                require_precision(fitted, self._reranker)
                warnings = self._passed_over_warning()
                return Rule(fitted.threshold if is_fitted_cut else cut, fitted, warnings)
        except ModelError as error:
            if is_fitted_cut:
                raise
            return Rule(cut, None, [f"scores are not calibrated: {error}"])
        missing = f"no threshold is fitted for reranker {self._reranker.name!r}, so nothing is hidden; "
        return Rule(cut, None, [f"{missing}run `lostfound calibrate`"] if is_fitted_cut else [])

    def _passed_over_warning(self) -> list[str]:
        if self._threshold_file is None or not is_passed_over(self._threshold_file, self._reranker):
            return []
        return [
            f"{self._threshold_file} was fitted for another reranker, so the threshold that came with "
            f"{self._reranker.name!r} is used; run `lostfound calibrate`, or delete the file"
        ]


def _stored(session: Session, item_ids: set[int]) -> dict[int, Item]:
    found = items.by_ids(session, item_ids)
    if len(found) < len(item_ids):
        (lost, *_) = item_ids - found.keys()
        raise DatabaseError(f"item number {lost} is in the index and no longer stored; run `lostfound doctor --repair`")
    return found


def _cut_warning(text: str, was_cut: bool) -> list[str]:
    return [f"the query is longer than the model reads; only its first {len(text)} characters count"] if was_cut else []


def _late_warning(request: Request, compared: int, retrieved: int) -> list[str]:
    late = f"the deadline of {request.deadline} ms came after {compared} of {retrieved} candidates"
    return [late] if compared < retrieved else []


def _match(rank: int, item: Item, candidate: Candidate, score: float, probability: float | None) -> Match:
    return Match(
        rank=rank,
        reference=item.reference,
        item_id=item.id,
        description=item.description,
        similarity=candidate.similarity,
        score=score,
        probability=probability,
        likelihood=None if probability is None else Likelihood.of(probability),
        category=item.category,
        colour=item.colour,
        brand=item.brand,
        office=item.office,
        place=item.place,
        found_on=item.found_on,
        status=item.status,
    )
