"""Exact, approximate and live index, against sorted inner products in plain numpy."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.index import build as building
from search.index.base import BaseIndex
from search.index.build import build, measure
from search.index.exact import nearest
from search.index.live import LiveIndex
from search.types import START, Position

DIM = 8


def unit_rows(seed: int, count: int, dim: int = DIM) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def at(number: int) -> Position:
    return Position(number, datetime(2026, 11, 29, microsecond=number, tzinfo=UTC))


def brute_force(query: np.ndarray, vectors: dict[int, np.ndarray], k: int) -> list[float]:
    return sorted((float(query @ vector) for vector in vectors.values()), reverse=True)[:k]


@dataclass
class Stored:
    """Vectors by id, as the database would give them."""

    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    dim: int = DIM

    def ids(self) -> np.ndarray:
        return np.array(sorted(self.vectors), dtype=np.int64)

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        return np.array([self.vectors[int(i)] for i in item_ids], dtype=np.float32).reshape(len(item_ids), self.dim)

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in np.array_split(self.ids(), 3):
            if len(part):
                yield part, self.rows(part)


def nothing(_done: int) -> None:
    pass


def base_of(stored: Stored, *, approximate: bool, monkeypatch: pytest.MonkeyPatch) -> BaseIndex:
    dim = stored.dim
    with monkeypatch.context() as patch:
        patch.setattr(building, "EXACT_UP_TO", 0 if approximate else 10**9)
        index = build(stored, dim, nothing)
    measured = measure(index, stored, unit_rows(5, 20, dim), nothing)
    assert measured.index.is_approximate is approximate
    return measured.index


def check_answer(
    answer: tuple[np.ndarray, np.ndarray], query: np.ndarray, selected: dict[int, np.ndarray], k: int
) -> None:
    """The true k nearest, each with its true similarity."""
    similarities, ids = answer
    found = [int(i) for i in ids[0] if i != -1]
    assert similarities.shape == ids.shape == (1, k)
    assert len(set(found)) == len(found) == min(k, len(selected))
    assert set(found) <= set(selected)
    np.testing.assert_allclose(similarities[0, : len(found)], brute_force(query[0], selected, k), atol=1e-6)
    np.testing.assert_allclose(similarities[0, : len(found)], [query[0] @ selected[i] for i in found], atol=1e-6)
    assert np.isneginf(similarities[0, len(found) :]).all()


changes = st.lists(
    st.tuples(st.lists(st.integers(1, 60), max_size=8, unique=True), st.integers(0, 8), st.integers(0, 2**32 - 1)),
    max_size=12,
)


@given(
    changes=changes,
    base_size=st.sampled_from([0, 1, 40]),
    among=st.none() | st.sets(st.integers(1, 60)),
    k=st.integers(1, 70),
)
@settings(max_examples=150, deadline=None)
def test_the_live_index_equals_brute_force_after_any_changes_and_under_any_filter(
    changes: list[tuple[list[int], int, int]], base_size: int, among: set[int] | None, k: int
) -> None:
    stored = Stored(dict(zip(range(1, base_size + 1), unit_rows(1, base_size), strict=True)))
    base = BaseIndex(build(stored, DIM, nothing), probes=0, largest_error=0.0) if base_size else None
    index = LiveIndex(START, DIM, base)
    for number, (changed, kept, seed) in enumerate(changes, start=1):
        ids = np.array(changed[:kept], dtype=np.int64)
        rows = unit_rows(seed, len(ids))
        for item_id in changed:
            stored.vectors.pop(item_id, None)
        stored.vectors |= dict(zip(ids.tolist(), rows, strict=True))
        index = index.apply(at(number), changed, ids, rows)
    assert len(index) == len(stored.vectors)
    every = np.arange(1, 61)
    decoded = index.decoded(every)
    assert {int(i) for i in every[~np.isnan(decoded).any(axis=1)]} == set(stored.vectors)
    np.testing.assert_allclose(index.decoded(stored.ids()), stored.rows(stored.ids()), atol=1e-6)

    selected = {i: vector for i, vector in stored.vectors.items() if among is None or i in among}
    query = unit_rows(7, 1)
    allowed = None if among is None else np.array(sorted(among), dtype=np.int64)
    check_answer(index.search(query, k, stored, allowed), query, selected, k)


@pytest.fixture(scope="module")
def many() -> Stored:
    """3,000 vectors in clusters, a third of them near twins, some alike, under ids with gaps."""
    centres = unit_rows(2, 60, 32)
    rows = centres[np.arange(3000) % 60] + 0.3 * unit_rows(3, 3000, 32)
    rows[1000:2000] = rows[:1000] + 0.002 * unit_rows(4, 1000, 32)
    rows[2000:2100] = rows[5]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Stored(dict(zip((np.arange(3000) * 7 + 3).tolist(), rows.astype(np.float32), strict=True)), dim=32)


@pytest.mark.parametrize("approximate", [False, True])
def test_a_filter_brings_the_true_nearest_of_every_selection_from_one_item_to_all(
    many: Stored, monkeypatch: pytest.MonkeyPatch, approximate: bool
) -> None:
    base = base_of(many, approximate=approximate, monkeypatch=monkeypatch)
    index = LiveIndex(START, 32, base)
    rng = np.random.default_rng(8)
    gone, new = many.ids()[rng.permutation(3000)[:300]], np.arange(100_000, 100_200)
    index = index.apply(at(1), gone.tolist(), new, unit_rows(9, 200, 32))
    now = {i: v for i, v in many.vectors.items() if i not in set(gone.tolist())}
    now |= dict(zip(new.tolist(), unit_rows(9, 200, 32), strict=True))
    everything = np.array(sorted(now))
    for count in (1, 2, 5, 50, 150, 500, 1500, len(everything)):
        for seed in range(4):
            among = rng.permutation(everything)[:count]
            query = unit_rows(20 + seed, 1, 32) if seed % 2 else many.rows(many.ids()[seed : seed + 1])
            selected = {int(i): now[int(i)] for i in among}
            for k in (1, 10, 100):
                check_answer(index.search(query, k, many, among), query, selected, k)


def test_an_approximate_index_finds_nearly_all_and_says_how_many(many: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(building, "EXACT_UP_TO", 0)
        index = build(many, 32, nothing)
    queries = np.concatenate([unit_rows(6, 40, 32), many.rows(many.ids()[::100])])
    measured = measure(index, many, queries[::2], nothing)
    assert measured.recall >= 0.99
    assert measured.finds_itself >= 0.99
    assert 0 < measured.index.largest_error < 0.05
    assert 1 <= measured.index.probes < measured.index.lists  # it does not read everything
    held_out = queries[1::2]
    for k in (3, 10, 100):
        true, _ = nearest(held_out, many.parts(), k)
        found, _ = measured.index.search(held_out, k, many)
        assert (found >= true[:, -1:] - 1e-5).mean() > 0.96


def test_a_selection_costs_an_approximate_index_nothing_but_time(many: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one list read there are misses; within a selection, even of all, there are none."""
    base = base_of(many, approximate=True, monkeypatch=monkeypatch)
    poor = BaseIndex(base.index, probes=1, largest_error=base.largest_error)
    queries = unit_rows(30, 20, 32)
    true, _ = nearest(queries, many.parts(), 10)
    found, _ = poor.search(queries, 10, many)
    assert (found >= true[:, -1:] - 1e-5).mean() < 0.9
    index = LiveIndex(START, 32, poor)
    for query in queries:
        for k in (10, 100):
            check_answer(index.search(query[None], k, many, many.ids()), query[None], many.vectors, k)


def test_an_approximate_index_brings_as_many_as_are_asked_for(many: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(many, approximate=True, monkeypatch=monkeypatch)
    poor = BaseIndex(base.index, probes=1, largest_error=base.largest_error)
    for k in (50, 2500, 3000, 4000):
        _, ids = poor.search(unit_rows(31, 3, 32), k, many)
        assert ((ids != -1).sum(axis=1) == min(k, 3000)).all()


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
        check_answer((row[None], row_ids[None]), query[None], vectors, k)


@pytest.mark.parametrize("approximate", [False, True])
def test_a_change_that_leaves_the_vector_as_it_was_leaves_the_index_as_it_was(
    many: Stored, monkeypatch: pytest.MonkeyPatch, approximate: bool
) -> None:
    index = LiveIndex(START, 32, base_of(many, approximate=approximate, monkeypatch=monkeypatch))
    ids = many.ids()[::7]
    gone = index.apply(at(1), ids.tolist(), np.empty(0, np.int64), np.empty((0, 32), np.float32))
    assert (len(gone), gone.changes) == (3000 - len(ids), len(ids))
    for earlier in (index, gone):
        later = earlier.apply(at(2), ids.tolist(), ids, many.rows(ids))
        assert (len(later), later.changes) == (3000, 0)
    query = unit_rows(7, 1, 32)
    check_answer(later.search(query, 50, many, many.ids()), query, many.vectors, 50)


def test_it_says_when_a_new_base_would_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(Stored(dict(enumerate(unit_rows(1, 2000), 1))), approximate=False, monkeypatch=monkeypatch)
    index = LiveIndex(START, DIM, base)
    assert not index.reindex_pays
    monkeypatch.setattr("search.index.live.SLOW_FROM", 100 * DIM)
    few, many_ = np.arange(3000, 3050), np.arange(4000, 4500)
    assert not index.apply(at(1), few.tolist(), few, unit_rows(2, 50)).reindex_pays
    index = index.apply(at(2), [], many_, unit_rows(3, 500))
    assert index.changes == 500
    assert index.reindex_pays
    assert index.apply(at(3), list(range(1, 101)), np.empty(0, np.int64), unit_rows(0, 0)).changes == 600
