"""The index that queries see: a base that does not change, and the changes since."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from search.index.base import BaseIndex, Mask, VectorSource
from search.index.exact import merge, nearest
from search.types import Ids, Position, Vectors

SLOW_FROM = 25_000 * 384
"""Values, the changed vectors times their dimension; comparing them takes some milliseconds."""

SLOW_SHARE = 0.1


@dataclass(frozen=True)
class LiveIndex:
    """The vectors of the items that can be found, at one moment. Never modified: a change makes another one.

    So threads search in one while another thread makes the next.

    Example:
        >>> from datetime import UTC, datetime
        >>> from search.types import START
        >>> index = LiveIndex(START, dim=2)
        >>> later = Position(1, datetime(2026, 11, 29, tzinfo=UTC))
        >>> index = index.apply(later, [7], np.array([7]), np.array([[1, 0]], dtype=np.float32))
        >>> len(index), index.position.number
        (1, 1)
    """

    position: Position
    """The changes up to this one are in it."""
    dim: int
    base: BaseIndex | None = None
    newer: tuple[tuple[Ids, Vectors], ...] = ()
    """The items that are not, or not so, in the base: ids, shape (n,), and vectors, shape (n, dim), in parts."""
    counted: Mask | None = field(default=None, repr=False)
    """Which ids of the base still count; None: all."""
    replaced: int = 0
    """How many of them do not."""

    def __len__(self) -> int:
        return self._newer_count - self.replaced + (len(self.base) if self.base else 0)

    @property
    def _newer_count(self) -> int:
        return sum(len(ids) for ids, _ in self.newer)

    @property
    def changes(self) -> int:
        """Vectors that are not in the base, and those in it that no longer count."""
        return self._newer_count + self.replaced

    @property
    def reindex_pays(self) -> bool:
        """Whether so much has changed since the base was built that searches are slowed down."""
        return self.changes * self.dim > SLOW_FROM and self.changes > SLOW_SHARE * len(self)

    def apply(self, position: Position, changed: Sequence[int], ids: Ids, vectors: Vectors) -> "LiveIndex":
        """The index after further changes.

        Args:
            position: That of the last of them.
            changed: Every item with a change.
            ids: Those of them that can be found, shape (n,).
            vectors: Their present vectors, shape (n, dim).
        """
        gone = np.asarray(changed, dtype=np.int64)
        in_base = self._in_base(ids, vectors)
        counted, replaced = self._recounted(gone, ids[in_base])
        return replace(
            self,
            position=position,
            newer=_joined([*_without(self.newer, gone), (ids[~in_base], vectors[~in_base])]),
            counted=counted,
            replaced=replaced,
        )

    def search(self, queries: Vectors, k: int, source: VectorSource, among: Ids | None = None) -> tuple[Vectors, Ids]:
        """The k nearest neighbours of each query, as `search.index.exact.nearest` returns them.

        Args:
            queries: Shape (q, dim), float32, unit rows.
            k: At least 1; may exceed the number of items.
            source: Of the exact vectors, for a base that is approximate.
            among: Only these ids are looked at, and the answer is exact; None: all.
        """
        of_base = self._search_base(queries, k, source, among)
        newer = self.newer if among is None else _only(self.newer, among)
        return merge(of_base, nearest(queries, newer, k), k)

    def decoded(self, ids: Ids) -> Vectors:
        """What the index holds of these items' vectors, shape (n, dim); NaN where it holds none."""
        rows = np.full((len(ids), self.dim), np.nan, dtype=np.float32)
        if self.base:
            in_base = self.base.holds(ids)
            if self.counted is not None:
                in_base[in_base] = self.counted[ids[in_base]]
            if in_base.any():
                rows[in_base] = self.base.decoded(ids[in_base])
        for newer_ids, newer in self.newer:
            _, wanted, place = np.intersect1d(ids, newer_ids, return_indices=True)
            rows[wanted] = newer[place]
        return rows

    def _search_base(self, queries: Vectors, k: int, source: VectorSource, among: Ids | None) -> tuple[Vectors, Ids]:
        if not self.base:
            return nearest(queries, [], k)
        if among is None:
            return self.base.search(queries, k, source, self.counted)
        chosen = np.zeros(self.base.ids[-1] + 1, dtype=np.bool_)
        chosen[among[among < len(chosen)]] = True
        if self.counted is not None:
            chosen &= self.counted
        return self.base.search(queries, k, source, chosen, is_exact=True)

    def _in_base(self, ids: Ids, vectors: Vectors) -> Mask:
        """Of which items the base holds this very vector: a change of status or place, or back, makes no difference."""
        if not self.base:
            return np.zeros(len(ids), dtype=np.bool_)
        in_base = self.base.holds(ids)
        if in_base.any():
            distances = np.linalg.norm(self.base.decoded(ids[in_base]) - vectors[in_base], axis=1)
            in_base[in_base] = distances <= self.base.largest_error
        return in_base

    def _recounted(self, gone: Ids, back: Ids) -> tuple[Mask | None, int]:
        if not self.base:
            return None, 0
        if self.counted is None:
            counted = np.zeros(self.base.ids[-1] + 1, dtype=np.bool_)
            counted[self.base.ids] = True
        else:
            counted = self.counted.copy()
        counted[gone[gone < len(counted)]] = False
        counted[back] = True
        return counted, len(self.base) - int(np.count_nonzero(counted))


Parts = Sequence[tuple[Ids, Vectors]]


def _without(parts: Parts, gone: Ids) -> Parts:
    """The parts less some ids; a part that has none of them is not copied."""
    kept = ((ids, vectors, np.isin(ids, gone, invert=True)) for ids, vectors in parts)
    return [(ids, vectors) if stays.all() else (ids[stays], vectors[stays]) for ids, vectors, stays in kept]


def _only(parts: Parts, among: Ids) -> Parts:
    chosen = ((ids, vectors, np.isin(ids, among)) for ids, vectors in parts)
    return [(ids[taken], vectors[taken]) for ids, vectors, taken in chosen]


def _joined(parts: Parts) -> tuple[tuple[Ids, Vectors], ...]:
    """The parts, each at least twice as large as the next: few of them, and a vector is copied log n times in all."""
    joined: list[tuple[Ids, Vectors]] = []
    for part in parts:
        ids, vectors = part
        while joined and len(joined[-1][0]) < 2 * len(ids):
            before = joined.pop()
            ids, vectors = np.concatenate([before[0], ids]), np.concatenate([before[1], vectors])
        if len(ids):
            joined.append((ids, vectors))
    return tuple(joined)
