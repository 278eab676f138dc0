"""Asks an office as a search does, and compares the answer with brute force over the stored vectors."""

import numpy as np

from search.encoder import BiEncoder
from search.index.generations import Generations
from search.retriever import Retriever
from storage.database import Database
from storage.items import HELD
from storage.vectors import StoredVectors


def generations_of(database: Database) -> Generations:
    return Generations(database.index_folder)


def search(retriever: Retriever, encoder: BiEncoder, depth: int = 400) -> tuple[dict[int, float], list[str]]:
    """Similarity by id of what a query finds, and the warnings; checked against brute force in the same snapshot."""
    query = encoder.encode_queries(["a hat with 3 marks"])
    with retriever.retrieve(query, depth, HELD) as (session, retrieval):
        stored = StoredVectors(session, encoder.fingerprint, encoder.dim)
        true = {int(i): float(s) for ids, rows in stored.parts() for i, s in zip(ids, rows @ query[0], strict=True)}
    found = {candidate.item_id: candidate.similarity for candidate in retrieval.candidates[0]}
    best = sorted(true, key=lambda i: -true[i])[:depth]
    assert len(found) == len(best)
    np.testing.assert_allclose(list(found.values()), [true[i] for i in best], atol=1e-5)
    np.testing.assert_allclose(list(found.values()), [true[i] for i in found], atol=1e-5)
    return found, retrieval.warnings
