"""The change log: which items changed, in the order of the commits."""

from collections.abc import Iterable

from sqlalchemy import delete, exists, func, insert, select, text
from sqlalchemy.orm import Session

from search.types import START, Position
from storage.models import Change, Item


def append(session: Session, item_ids: Iterable[int]) -> None:
    """Log one change per item; belongs in the transaction that makes the change."""
    entries = [{"item_id": item_id} for item_id in item_ids]
    if entries:
        session.execute(insert(Change), entries)


def newest(session: Session) -> Position:
    """The position behind the last change."""
    row = session.execute(select(Change.number, Change.changed_at).order_by(Change.number.desc()).limit(1)).first()
    return Position(row.number, row.changed_at) if row else START


def reaches(session: Session, position: Position) -> bool:
    """Whether the log has all changes since a position.

    False where the log was shortened past it, and where it was taken in another history: before a restore, or in
    another database.
    """
    if position == START:
        first = session.scalar(select(func.min(Change.number)))
        given = session.scalar(text("SELECT seq FROM sqlite_sequence WHERE name = 'changes'"))
        return first == 1 or not given or not session.scalar(select(exists().where(Item.id > 0)))
    return session.scalar(select(Change.changed_at).where(Change.number == position.number)) == position.changed_at


def items_since(session: Session, position: Position) -> list[int]:
    """The ids of the items with a change later than `position`, each once."""
    return list(session.scalars(select(Change.item_id).where(Change.number > position.number).distinct()))


def shorten(session: Session, needed: Position, limit: int) -> int:
    """Delete the oldest changes, `limit` at most, that nobody at `needed` or later asks for; how many.

    The entry of `needed` itself stays, for `reaches` to know it by.
    """
    oldest = session.scalar(select(func.min(Change.number))) or 0
    outdated = Change.number < min(needed.number, oldest + limit)
    count = session.scalar(select(func.count()).select_from(Change).where(outdated)) or 0
    session.execute(delete(Change).where(outdated).execution_options(synchronize_session=False))
    return count


def count_since(session: Session, position: Position) -> int:
    """How many items have a change later than `position`."""
    return session.scalar(select(func.count(Change.item_id.distinct())).where(Change.number > position.number)) or 0
