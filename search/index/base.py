"""The immutable part of an index: what a generation on disk holds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import faiss
import numpy as np
import numpy.typing as npt

from search.index.exact import NO_ID, merge, nearest
from search.types import Ids, Vectors

Mask = npt.NDArray[np.bool_]
"""Shape (largest id + 1,): whether each id counts."""

OVERSAMPLING = 1.2
"""So many times k candidates of an approximate index are compared anew by their exact vectors."""

ROUNDING = 1e-5
"""More than float32 sums of some thousand products of unit vectors differ by."""


class VectorSource(Protocol):
    """Where the exact vectors are, the database in all but name."""

    def ids(self) -> Ids:
        """All ids, ascending."""

    def parts(self) -> Iterator[tuple[Ids, Vectors]]:
        """All ids and rows, in parts."""

    def rows(self, item_ids: Ids) -> Vectors:
        """One row for each id, in their order."""


@dataclass(frozen=True)
class BaseIndex:
    """Nearest neighbours in a FAISS index that does not change.

    It is exact (`IndexFlatIP`), or approximate: an inverted file whose lists hold vectors of one byte per dimension.
    Of that the nearest `probes` lists are read, and what they bring is compared anew by the exact vectors. Within a
    selection all lists are read, and the answer is exact all the same: an exact similarity differs from the one by
    bytes by `largest_error` at most (Cauchy-Schwarz, the query is of unit length), so more candidates are taken until
    none that was left out can belong to the k nearest.
    """

    index: faiss.Index
    """`IndexIDMap` over `IndexFlatIP`, or `IndexIVFScalarQuantizer`."""
    probes: int
    """Lists read by a search without a selection."""
    largest_error: float
    """The largest distance between a vector and what the index holds of it."""

    def __post_init__(self) -> None:
        """Set what a file does not keep: the search of one query by all cores, and where each id is."""
        if self.is_approximate and self.index.direct_map.type == faiss.DirectMap.NoMap:
            self.index.parallel_mode = 1
            self.index.set_direct_map_type(faiss.DirectMap.Hashtable)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @property
    def is_approximate(self) -> bool:
        """Whether it holds the vectors by bytes, in lists of which not all are read."""
        return isinstance(self.index, faiss.IndexIVF)

    @property
    def lists(self) -> int:
        """Lists that its vectors lie in; 1 where it is exact."""
        return int(self.index.nlist) if self.is_approximate else 1

    @cached_property
    def ids(self) -> Ids:
        """All ids, ascending."""
        if not self.is_approximate:
            exact_ids: Ids = faiss.vector_to_array(self.index.id_map)
            return exact_ids
        lists = faiss.downcast_InvertedLists(self.index.invlists)
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
            for number in range(self.index.nlist)
            if lists.list_size(number)
        ]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def holds(self, ids: Ids) -> Mask:
        """Which of the ids are in it; shape (n,)."""
        places = np.searchsorted(self.ids, ids)
        inside = places < len(self.ids)
        inside[inside] = self.ids[places[inside]] == ids[inside]
        return inside

    def decoded(self, ids: Ids) -> Vectors:
        """What the index holds of vectors that are in it; shape (n, dim)."""
        index, keys = (self.index, ids) if self.is_approximate else (self.index.index, np.searchsorted(self.ids, ids))
        decoded: Vectors = index.reconstruct_batch(keys)
        return decoded

    def search(
        self, queries: Vectors, k: int, source: VectorSource, counted: Mask | None = None, *, is_exact: bool = False
    ) -> tuple[Vectors, Ids]:
        """The k nearest neighbours of each query, as `nearest` returns them.

        Args:
            queries: Shape (q, dim), float32, unit rows.
            k: At least 1.
            source: Of the exact vectors; not asked by an exact index.
            counted: Only these are looked at; None: all.
            is_exact: Whether the true k nearest are asked of an approximate index too.
        """
        k_there = max(1, min(k, len(self)))
        selector = None if counted is None else faiss.IDSelectorBitmap(np.packbits(counted, bitorder="little"))
        if self.is_approximate:
            rows = [self._nearest_to(query, k_there, source, selector, is_exact=is_exact) for query in queries]
            similarities, ids = (np.concatenate(column) for column in zip(*rows, strict=True))
        else:
            parameters = faiss.SearchParameters(sel=selector)
            similarities, ids = self.index.search(np.ascontiguousarray(queries), k_there, params=parameters)
            similarities[ids == NO_ID] = -np.inf
        return merge((similarities, ids), nearest(queries, [], k), k)

    def _nearest_to(
        self, query: Vectors, k: int, source: VectorSource, selector: faiss.IDSelector | None, *, is_exact: bool
    ) -> tuple[Vectors, Ids]:
        wanted = math.ceil(OVERSAMPLING * k)
        probes = self.lists if is_exact else self.probes
        while True:
            parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
            by_bytes, ids = self.index.search(query[None], wanted, params=parameters)
            found = ids[0, ids[0] != NO_ID]
            if len(found) < wanted and probes < self.lists:
                probes = self.lists  # these lists hold fewer than are asked for
                continue
            similarities, ids = nearest(query[None], [(found, source.rows(found))], k)
            out_of_reach = by_bytes[0, -1] + self.largest_error + ROUNDING
            if not is_exact or len(found) < wanted or similarities[0, -1] >= out_of_reach:
                return similarities, ids
            wanted *= 4
