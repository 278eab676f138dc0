"""Reading items: by reference, by id, and the ids that a filter selects."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

import numpy as np
from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.orm import Session

from search.errors import UnknownReferenceError
from search.types import Ids
from storage.chunks import chunks
from storage.models import Item, Status


@dataclass(frozen=True)
class Filters:
    """Which items a search may find; None leaves that side open.

    Office and category ignore the case of ASCII letters.
    """

    status: Status | None = Status.HELD
    office: str | None = None
    category: str | None = None
    found_from: date | None = None
    found_to: date | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on `items`, to be joined by AND. An item without a date is in no range of dates."""
        conditions: list[ColumnElement[bool]] = []
        if self.status is not None:
            conditions.append(Item.status == self.status)
        if self.office is not None:
            conditions.append(Item.office == self.office)
        if self.category is not None:
            conditions.append(Item.category == self.category)
        if self.found_from is not None:
            conditions.append(Item.found_on >= self.found_from)
        if self.found_to is not None:
            conditions.append(Item.found_on <= self.found_to)
        return conditions


HELD = Filters(status=Status.HELD)
"""What the index holds: an item that has left the office is not found by accident."""


def by_reference(session: Session, reference: str) -> Item:
    """The item with this reference.

    Raises:
        UnknownReferenceError: There is none.
    """
    item = session.scalar(select(Item).where(Item.reference == reference))
    if item is None:
        raise UnknownReferenceError(f"no item has the reference {reference!r}; find it with `lostfound search`")
    return item


def by_references(session: Session, references: Collection[str]) -> dict[str, Item]:
    """The items that exist, by reference."""
    return {
        item.reference: item
        for chunk in chunks(references)
        for item in session.scalars(select(Item).where(Item.reference.in_(chunk)))
    }


def by_ids(session: Session, ids: Collection[int]) -> dict[int, Item]:
    """The items that exist, by id."""
    return {item.id: item for chunk in chunks(ids) for item in session.scalars(select(Item).where(Item.id.in_(chunk)))}


def ids_after(session: Session, item_id: int, limit: int) -> list[int]:
    """The next `limit` ids of items of every status, ascending."""
    return list(session.scalars(select(Item.id).where(Item.id > item_id).order_by(Item.id).limit(limit)))


def next_reference(session: Session) -> str:
    """A reference that is free, `LF-000042` from the next id; holds until the write lock is let go.

    It is free also of what was given and then lost by a restore: two things would bear the same tag.
    """
    number = session.scalar(text("SELECT seq FROM sqlite_sequence WHERE name = 'items'")) or 0
    while True:
        number += 1
        reference = f"LF-{number:06d}"
        if not session.scalar(select(Item.id).where(Item.reference == reference)):
            return reference


def select_ids(session: Session, filters: Filters) -> Ids:
    """The ids that the filters select; shape (n,), int64."""
    rows = session.connection().execute(select(Item.id).where(*filters.conditions())).scalars()  # not by the ORM: fast
    return np.fromiter(rows, dtype=np.int64)


def count_by_status(session: Session) -> dict[Status, int]:
    """How many items there are of each status, absent ones as 0."""
    counted = session.execute(select(Item.status, func.count()).group_by(Item.status)).all()
    return dict.fromkeys(Status, 0) | dict(counted)
