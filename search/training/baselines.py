"""What the reranker is compared with: BM25, and the bi-encoder alone."""

from collections.abc import Callable, Sequence

import bm25s
import numpy as np

from search.encoder import BiEncoder
from search.training.metrics import Values
from search.training.pairs import Pair

Similarity = Callable[[Sequence[str], Sequence[str]], Values]
"""From n lost reports and m found descriptions to similarities of shape (n, m)."""


def bm25(reports: Sequence[str], descriptions: Sequence[str]) -> Values:
    """BM25 as Lucene has it (k1 = 1.5, b = 0.75), without English stop words; the descriptions are the collection."""
    index = bm25s.BM25(method="lucene")
    index.index(bm25s.tokenize(list(descriptions), stopwords="en", show_progress=False), show_progress=False)
    words = bm25s.tokenize(list(reports), stopwords="en", return_ids=False, show_progress=False)
    nothing = np.zeros(len(descriptions))
    return np.array([index.get_scores(tokens) if tokens else nothing for tokens in words], dtype=np.float64)


def bi_encoder(encoder: BiEncoder) -> Similarity:
    """The cosine of the bi-encoder's vectors."""

    def similarity(reports: Sequence[str], descriptions: Sequence[str]) -> Values:
        return (encoder.encode_queries(reports) @ encoder.encode(descriptions).T).astype(np.float64)

    return similarity


def pair_similarities(similarity: Similarity, pairs: Sequence[Pair]) -> Values:
    """The similarity of each pair, shape (n,)."""
    reports = {text: number for number, text in enumerate(dict.fromkeys(pair.lost for pair in pairs))}
    descriptions = {text: number for number, text in enumerate(dict.fromkeys(pair.found for pair in pairs))}
    table = similarity(list(reports), list(descriptions))
    return table[[reports[pair.lost] for pair in pairs], [descriptions[pair.found] for pair in pairs]]
