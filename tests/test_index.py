"""The live index and the brute force, against sorted inner products in plain numpy."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.index.exact import nearest
from search.index.live import LiveIndex

DIM = 8


def unit_rows(seed: int, count: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(query: np.ndarray, vectors: dict[int, np.ndarray], k: int) -> list[float]:
    return sorted((float(query @ vector) for vector in vectors.values()), reverse=True)[:k]


@dataclass
class Shadow:
    """A live index and the vectors that it should hold."""

    index: LiveIndex = field(default_factory=lambda: LiveIndex(dim=DIM, last_change=0))
    vectors: dict[int, np.ndarray] = field(default_factory=dict)

    def change(self, changed: list[int], kept: list[int], seed: int) -> None:
        rows = unit_rows(seed, len(kept))
        for item_id in changed:
            self.vectors.pop(item_id, None)
        self.vectors |= dict(zip(kept, rows, strict=True))
        self.index.apply(self.index.last_change + 1, changed, np.array(kept, dtype=np.int64), rows)


changes = st.lists(
    st.tuples(st.lists(st.integers(1, 30), max_size=8, unique=True), st.integers(0, 8), st.integers(0, 2**32 - 1)),
    max_size=12,
)


@given(changes=changes, among=st.none() | st.sets(st.integers(1, 30)), k=st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_the_index_equals_brute_force_after_any_changes_and_under_any_filter(
    changes: list[tuple[list[int], int, int]], among: set[int] | None, k: int
) -> None:
    shadow = Shadow()
    for changed, kept, seed in changes:
        shadow.change(changed, changed[:kept], seed)
    assert len(shadow.index) == len(shadow.vectors)
    selected = {i: vector for i, vector in shadow.vectors.items() if among is None or i in among}
    query = unit_rows(7, 1)
    allowed = None if among is None else np.array(sorted(among), dtype=np.int64)
    similarities, ids = shadow.index.search(query, k, allowed)

    found = [int(i) for i in ids[0] if i != -1]
    assert len(set(found)) == len(found) == min(k, len(selected))
    assert set(found) <= set(selected)
    np.testing.assert_allclose(similarities[0, : len(found)], brute_force(query[0], selected, k), atol=1e-6)
    assert np.isneginf(similarities[0, len(found) :]).all()


@given(sizes=st.lists(st.integers(0, 20), max_size=5), k=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_nearest_among_parts_equals_brute_force_over_all_of_them(sizes: list[int], k: int) -> None:
    parts, vectors = [], {}
    for number, size in enumerate(sizes):
        ids = np.arange(100 * number, 100 * number + size, dtype=np.int64)
        rows = unit_rows(number, size)
        parts.append((ids, rows))
        vectors |= dict(zip(ids.tolist(), rows, strict=True))
    queries = unit_rows(99, 3)
    similarities, ids = nearest(queries, parts, k)
    for row, row_ids, query in zip(similarities, ids, queries, strict=True):
        found = [int(i) for i in row_ids if i != -1]
        assert len(found) == min(k, len(vectors))
        np.testing.assert_allclose(row[: len(found)], brute_force(query, vectors, k), atol=1e-6)


def test_changes_that_are_in_the_index_are_not_applied_again() -> None:
    index = LiveIndex(dim=DIM, last_change=5)
    index.apply(5, [1], np.array([1]), unit_rows(0, 1))
    assert len(index) == 0
    index.apply(6, [1], np.array([1]), unit_rows(0, 1))
    assert (len(index), index.last_change) == (1, 6)


def test_a_query_of_another_dimension_is_no_answer() -> None:
    index = LiveIndex(dim=DIM, last_change=0)
    index.add(np.array([1]), unit_rows(0, 1))
    with pytest.raises(AssertionError):
        index.search(np.ones((1, DIM + 1), dtype=np.float32), 1)
