"""The stored vectors: written with their item, read in bulk for the index."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import ColumnElement, Row, Select, bindparam, delete, exists, func, insert, or_, select
from sqlalchemy.orm import Session, aliased

from search.errors import DatabaseError, FingerprintError
from search.types import Ids, Vectors
from storage.chunks import chunks
from storage.items import HELD, Filters
from storage.models import Item, ItemVector

LITTLE_ENDIAN_FLOAT32 = np.dtype("<f4")
ROWS_PER_CHUNK = 10_000
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class NewVector:
    """A vector to be stored: shape (dim,), float32, unit length."""

    item_id: int
    text_hash: str
    vector: Vectors


def put(session: Session, encoder: str, new: Collection[NewVector]) -> None:
    """Store vectors by `encoder` in place of the item's earlier one, and of any encoder's of an earlier text."""
    if not new:
        return
    rows = [
        {
            "item_id": entry.item_id,
            "encoder": encoder,
            "text_hash": entry.text_hash,
            "vector": entry.vector.astype(LITTLE_ENDIAN_FLOAT32).tobytes(),
        }
        for entry in new
    ]
    outdated = delete(ItemVector).where(
        ItemVector.item_id == bindparam("item"),
        or_(ItemVector.encoder == encoder, ItemVector.text_hash != bindparam("hash")),
    )
    session.connection().execute(outdated, [{"item": row["item_id"], "hash": row["text_hash"]} for row in rows])
    session.execute(insert(ItemVector), rows)


def delete_of(session: Session, encoder: str, item_ids: Collection[int]) -> None:
    """Delete the vectors by this encoder of these items."""
    for chunk in chunks(item_ids):
        session.execute(delete(ItemVector).where(ItemVector.encoder == encoder, ItemVector.item_id.in_(chunk)))


def drop_other_encoders(session: Session, encoder: str, kept: Collection[str], item_ids: Sequence[int]) -> int:
    """Delete vectors by encoders not in `kept` of those of the items that have one by this encoder; how many.

    Args:
        session: Holds the write lock.
        encoder: The one whose vectors stay.
        kept: Others whose vectors stay.
        item_ids: Of neighbouring items, ascending, not empty.
    """
    own = aliased(ItemVector)
    replaced = (
        ItemVector.item_id.between(item_ids[0], item_ids[-1]),
        ItemVector.encoder.not_in({encoder, *kept}),
        exists().where(own.item_id == ItemVector.item_id, own.encoder == encoder),
    )
    dropped = session.scalar(select(func.count()).select_from(ItemVector).where(*replaced)) or 0
    session.execute(delete(ItemVector).where(*replaced).execution_options(synchronize_session=False))
    return dropped


def text_hashes(session: Session, encoder: str, item_ids: Collection[int]) -> dict[int, str]:
    """The hash of the text behind each item's vector by this encoder; items without one are absent."""
    return {
        item_id: text_hash
        for chunk in chunks(item_ids)
        for item_id, text_hash in session.execute(
            select(ItemVector.item_id, ItemVector.text_hash).where(
                ItemVector.encoder == encoder, ItemVector.item_id.in_(chunk)
            )
        )
    }


@dataclass(frozen=True)
class StoredVectors:
    """The vectors by one encoder of the items that the filters select, as one session sees them.

    Raises:
        DatabaseError: From every method: a stored vector is damaged.
    """

    session: Session
    encoder: str
    """Fingerprint."""
    dim: int
    filters: Filters = HELD

    def ids(self) -> Ids:
        """Their item ids, ascending; shape (n,), int64."""
        query = _query(self.encoder, self.filters).with_only_columns(ItemVector.item_id).order_by(ItemVector.item_id)
        return np.fromiter(self.session.scalars(query), dtype=np.int64)

    def parts(self) -> Iterator[tuple[Ids, Vectors]]:
        """All of them, in parts that fit the memory: ids, shape (n,), ascending, and rows, shape (n, dim)."""
        query = _query(self.encoder, self.filters).order_by(ItemVector.item_id)
        for rows in self.session.execute(query.execution_options(yield_per=ROWS_PER_CHUNK)).partitions():
            yield _decode(rows, self.dim)

    def among(self, item_ids: Collection[int]) -> tuple[Ids, Vectors]:
        """Those of these items: ids, shape (n,), and rows, shape (n, dim)."""
        query = _query(self.encoder, self.filters)
        connection = self.session.connection()  # not by the ORM: every search waits for this
        chosen = (connection.execute(query.where(ItemVector.item_id.in_(chunk))) for chunk in chunks(item_ids))
        return _decode([row for result in chosen for row in result], self.dim)

    def rows(self, item_ids: Ids) -> Vectors:
        """One row for each id, in their order, whatever the filters say; shape (n, dim).

        Raises:
            FingerprintError: One of them has no vector.
        """
        ids, rows = replace(self, filters=Filters(status=None)).among(item_ids.tolist())
        order = np.argsort(ids)
        places = np.searchsorted(ids, item_ids, sorter=order)
        if len(ids) < len(item_ids):
            (missing, *_) = set(item_ids.tolist()) - set(ids.tolist())
            raise FingerprintError(
                f"the vector of item number {missing} by encoder {self.encoder[:12]} is gone; run `lostfound reindex`"
            )
        return rows[order[places]]


def damaged(session: Session, encoder: str, dim: int, item_ids: Collection[int]) -> list[int]:
    """Those of the items whose vector by this encoder is not `dim` float32 values of unit length."""
    query = select(ItemVector.item_id, ItemVector.vector).where(ItemVector.encoder == encoder)
    return [
        row.item_id
        for chunk in chunks(item_ids)
        for row in session.execute(query.where(ItemVector.item_id.in_(chunk)))
        if not _is_sound(row.vector, dim)
    ]


def count_without(session: Session, encoder: str, filters: Filters) -> int:
    """How many of the items that the filters select have no vector by this encoder."""
    query = select(func.count()).select_from(Item).where(*_without(encoder, filters))
    return session.scalar(query) or 0


def ids_without(session: Session, encoder: str, filters: Filters, among: Collection[int] | None = None) -> list[int]:
    """Those of the items that the filters select that have no vector by this encoder, ascending."""
    query = select(Item.id).where(*_without(encoder, filters)).order_by(Item.id)
    if among is None:
        return list(session.scalars(query))
    return [item_id for chunk in chunks(among) for item_id in session.scalars(query.where(Item.id.in_(chunk)))]


def count_by_encoder(session: Session) -> dict[str, int]:
    """How many vectors each encoder has made, by fingerprint."""
    counted = session.execute(select(ItemVector.encoder, func.count().label("vectors")).group_by(ItemVector.encoder))
    return {row.encoder: row.vectors for row in counted}


def _without(encoder: str, filters: Filters) -> list[ColumnElement[bool]]:
    has_one = exists().where(ItemVector.item_id == Item.id, ItemVector.encoder == encoder)
    return [*filters.conditions(), ~has_one]


def _query(encoder: str, filters: Filters) -> Select[int, bytes]:
    query = select(ItemVector.item_id, ItemVector.vector).where(ItemVector.encoder == encoder)
    conditions = filters.conditions()
    return query.join(Item, Item.id == ItemVector.item_id).where(*conditions) if conditions else query


def _decode(rows: Sequence[Row[int, bytes]], dim: int) -> tuple[Ids, Vectors]:
    ids = np.array([row.item_id for row in rows], dtype=np.int64)
    size = dim * LITTLE_ENDIAN_FLOAT32.itemsize
    joined = b"".join(row.vector if len(row.vector) == size else bytes(size) for row in rows)
    vectors = np.frombuffer(joined, dtype=LITTLE_ENDIAN_FLOAT32).reshape(len(rows), dim)
    sound = np.abs(np.linalg.norm(vectors, axis=1) - 1) < UNIT_TOLERANCE
    if not sound.all():
        raise DatabaseError(f"the vector of item {ids[~sound][0]} is damaged; run `lostfound reindex`")
    return ids, vectors.astype(np.float32, copy=False)


def _is_sound(blob: bytes, dim: int) -> bool:
    if len(blob) != dim * LITTLE_ENDIAN_FLOAT32.itemsize:
        return False
    return bool(abs(np.linalg.norm(np.frombuffer(blob, dtype=LITTLE_ENDIAN_FLOAT32)) - 1) < UNIT_TOLERANCE)
