"""The stored vectors: written with their item, read in bulk for the index."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Row, bindparam, delete, func, insert, or_, select
from sqlalchemy.orm import Session

from search.errors import DatabaseError
from storage.chunks import chunks
from storage.items import Filters, Ids
from storage.models import Item, ItemVector

Vectors = npt.NDArray[np.float32]

LITTLE_ENDIAN_FLOAT32 = np.dtype("<f4")
ROWS_PER_CHUNK = 10_000


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


def drop_other_encoders(session: Session, encoder: str) -> int:
    """Delete the vectors by every encoder but this one; how many there were."""
    other = ItemVector.encoder != encoder
    dropped = session.scalar(select(func.count()).select_from(ItemVector).where(other)) or 0
    session.execute(delete(ItemVector).where(other))
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


def selected(session: Session, encoder: str, filters: Filters) -> Iterator[tuple[Ids, Vectors]]:
    """The vectors by this encoder of the items that the filters select, in chunks.

    Yields:
        ids, shape (n,), int64, ascending, and vectors, shape (n, dim), float32.

    Raises:
        DatabaseError: A stored vector has another length than the others.
    """
    query = (
        select(ItemVector.item_id, ItemVector.vector)
        .join(Item, Item.id == ItemVector.item_id)
        .where(ItemVector.encoder == encoder, *filters.conditions())
        .order_by(ItemVector.item_id)
        .execution_options(yield_per=ROWS_PER_CHUNK)
    )
    dim: int | None = None
    for rows in session.execute(query).partitions():
        dim = dim or len(rows[0].vector) // LITTLE_ENDIAN_FLOAT32.itemsize
        yield _decode(rows, dim)


def of_items(session: Session, encoder: str, item_ids: Collection[int], filters: Filters) -> tuple[Ids, Vectors]:
    """The vectors by this encoder of those of the items that the filters select, as `selected` yields them."""
    rows = [
        row
        for chunk in chunks(item_ids)
        for row in session.execute(
            select(ItemVector.item_id, ItemVector.vector)
            .join(Item, Item.id == ItemVector.item_id)
            .where(ItemVector.encoder == encoder, ItemVector.item_id.in_(chunk), *filters.conditions())
        )
    ]
    if not rows:
        return np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32)
    return _decode(rows, len(rows[0].vector) // LITTLE_ENDIAN_FLOAT32.itemsize)


def count_by_encoder(session: Session) -> dict[str, int]:
    """How many vectors each encoder has made, by fingerprint."""
    counted = session.execute(select(ItemVector.encoder, func.count().label("vectors")).group_by(ItemVector.encoder))
    return {row.encoder: row.vectors for row in counted}


def _decode(rows: Sequence[Row[int, bytes]], dim: int) -> tuple[Ids, Vectors]:
    for item_id, blob in rows:
        if len(blob) != dim * LITTLE_ENDIAN_FLOAT32.itemsize:
            raise DatabaseError(f"the vector of item {item_id} has {len(blob)} bytes, not {dim} float32 values")
    ids = np.array([row.item_id for row in rows], dtype=np.int64)
    vectors = np.frombuffer(b"".join(row.vector for row in rows), dtype=LITTLE_ENDIAN_FLOAT32)
    return ids, vectors.reshape(len(rows), dim).astype(np.float32, copy=False)
