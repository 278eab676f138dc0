"""Rows without the item that they belong to: no transaction of ours leaves any, a damaged or edited file may."""

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.orm import Session

from storage.models import Change, Item, ItemVector


def count(session: Session) -> int:
    """How many vectors and changes there are of items that do not exist."""
    return sum(
        session.scalar(select(func.count()).select_from(table).where(_has_no_item(table))) or 0
        for table in (ItemVector, Change)
    )


def delete_all(session: Session) -> None:
    """Delete them."""
    for table in (ItemVector, Change):
        session.execute(delete(table).where(_has_no_item(table)).execution_options(synchronize_session=False))


def _has_no_item(table: type[ItemVector] | type[Change]) -> ColumnElement[bool]:
    return ~exists().where(Item.id == table.item_id)
