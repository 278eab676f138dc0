"""The change log: which items changed, in the order of the commits."""

from collections.abc import Iterable

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from storage.models import Change


def append(session: Session, item_ids: Iterable[int]) -> None:
    """Log one change per item; belongs in the transaction that makes the change."""
    entries = [{"item_id": item_id} for item_id in item_ids]
    if entries:
        session.execute(insert(Change), entries)


def last_number(session: Session) -> int:
    """The number of the newest change, 0 before the first."""
    return session.scalar(select(func.max(Change.number))) or 0


def lineage(session: Session) -> int:
    """Another number after every restore of a backup; change numbers of two lineages are not to be compared."""
    return int(session.connection().exec_driver_sql("PRAGMA user_version").scalar_one())


def items_since(session: Session, number: int) -> list[int]:
    """The ids of the items with a change later than `number`, each once."""
    return list(session.scalars(select(Change.item_id).where(Change.number > number).distinct()))
