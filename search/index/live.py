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
        >>> index = LiveIndex.on(None, 2, START)
        >>> later = Position(1, datetime(2026, 11, 29, tzinfo=UTC))
        >>> index = index.apply(later, [7], np.array([7]), np.array([[1, 0]], dtype=np.float32))
        >>> len(index), index.position.number
        (1, 1)
    """

    position: Position
    """The changes up to this one are in it."""
    ids: Ids
    """Of the items that are not, or no longer so, in the base; shape (n,)."""
    vectors: Vectors
    """Their vectors, shape (n, dim)."""
    base: BaseIndex | None = None
    counted: Mask | None = field(default=None, repr=False)
    """Which ids of the base still count; None: all."""
    replaced: int = 0
    """How many of them do not."""

    @classmethod
    def on(cls, base: BaseIndex | None, dim: int, position: Position) -> "LiveIndex":
        """What the base holds, which is nothing where there is none."""
        return cls(position, np.empty(0, np.int64), np.empty((0, dim), np.float32), base)

    def __len__(self) -> int:
        return len(self.ids) - self.replaced + (len(self.base) if self.base else 0)

    @property
    def changes(self) -> int:
        """Vectors that are not in the base, and those in it that no longer count."""
        return len(self.ids) + self.replaced

    @property
    def reindex_pays(self) -> bool:
        """Whether so much has changed since the base was built that searches are slowed down."""
        return self.changes * self.vectors.shape[1] > SLOW_FROM and self.changes > SLOW_SHARE * len(self)

    def apply(self, position: Position, changed: Sequence[int], ids: Ids, vectors: Vectors) -> "LiveIndex":
        """The index after further changes.

        Args:
            position: That of the last of them.
            changed: Every item with a change.
            ids: Those of them that can be found, shape (n,).
            vectors: Their present vectors, shape (n, dim).
        """
        gone = np.asarray(changed, dtype=np.int64)
        kept = np.isin(self.ids, gone, invert=True)
        in_base = self._in_base(ids, vectors)
        counted, replaced = self._recounted(gone, ids[in_base])
        return replace(
            self,
            position=position,
            ids=np.concatenate([self.ids[kept], ids[~in_base]]),
            vectors=np.concatenate([self.vectors[kept], vectors[~in_base]]),
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
        newer = slice(None) if among is None else np.isin(self.ids, among)
        return merge(of_base, nearest(queries, [(self.ids[newer], self.vectors[newer])], k), k)

    def decoded(self, ids: Ids) -> Vectors:
        """What the index holds of these items' vectors, shape (n, dim); NaN where it holds none."""
        rows = np.full((len(ids), self.vectors.shape[1]), np.nan, dtype=np.float32)
        if self.base is not None and len(self.base):
            in_base = self.base.holds(ids)
            if self.counted is not None:
                in_base[in_base] = self.counted[ids[in_base]]
            if in_base.any():
                rows[in_base] = self.base.decoded(ids[in_base])
        places = {item_id: place for place, item_id in enumerate(self.ids.tolist())}
        newer = [(number, places[item_id]) for number, item_id in enumerate(ids.tolist()) if item_id in places]
        if newer:
            into, taken = zip(*newer, strict=True)
            rows[list(into)] = self.vectors[list(taken)]
        return rows

    def _search_base(self, queries: Vectors, k: int, source: VectorSource, among: Ids | None) -> tuple[Vectors, Ids]:
        if self.base is None or not len(self.base):
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
        if self.base is None or not len(self.base):
            return np.zeros(len(ids), dtype=np.bool_)
        in_base = self.base.holds(ids)
        if in_base.any():
            distances = np.linalg.norm(self.base.decoded(ids[in_base]) - vectors[in_base], axis=1)
            in_base[in_base] = distances <= self.base.largest_error
        return in_base

    def _recounted(self, gone: Ids, back: Ids) -> tuple[Mask | None, int]:
        if self.base is None or not len(self.base):
            return None, 0
        if self.counted is None:
            counted = np.zeros(self.base.ids[-1] + 1, dtype=np.bool_)
            counted[self.base.ids] = True
        else:
            counted = self.counted.copy()
        counted[gone[gone < len(counted)]] = False
        counted[back] = True
        return counted, len(self.base) - int(np.count_nonzero(counted))
