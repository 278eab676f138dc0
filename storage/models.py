"""The mapped tables: items, their vectors, and the change log.

items ──< item_vectors     one vector per item and encoder
  └─────< changes          one entry per committed change of an item
"""

import enum
from datetime import UTC, date, datetime

from sqlalchemy import DateTime, Enum, ForeignKey, Index, LargeBinary, MetaData, String
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAMING_CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UTCDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn an aware datetime into a naive one in UTC."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn the stored naive datetime into an aware one."""
        return value.replace(tzinfo=UTC) if value else None


def utc_now() -> datetime:
    """The present moment, aware."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """The root of the mapped classes."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Status(enum.StrEnum):
    """Where an item is: in the office, back with its owner, or sold, destroyed, given away."""

    HELD = "held"
    RETURNED = "returned"
    DISPOSED = "disposed"


class Item(Base):
    """A found item. Never deleted: an item that leaves the office changes its status."""

    __tablename__ = "items"
    __table_args__ = (
        *(Index(f"ix_items_{column}_status", column, "status") for column in ("category", "office", "found_on")),
        {"sqlite_autoincrement": True},  # an id is never used twice
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(String(4000))
    category: Mapped[str | None] = mapped_column(String(100, collation="NOCASE"))
    colour: Mapped[str | None] = mapped_column(String(100))
    brand: Mapped[str | None] = mapped_column(String(100))
    office: Mapped[str | None] = mapped_column(String(100, collation="NOCASE"))
    place: Mapped[str | None] = mapped_column(String(200))
    found_on: Mapped[date | None] = mapped_column()
    status: Mapped[Status] = mapped_column(
        Enum(
            Status,
            name="status",
            native_enum=False,
            create_constraint=True,
            length=16,
            values_callable=lambda statuses: [status.value for status in statuses],
        ),
        default=Status.HELD,
        index=True,
    )
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now, onupdate=utc_now)


class ItemVector(Base):
    """The embedding of an item's text by one encoder."""

    __tablename__ = "item_vectors"

    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    encoder: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Fingerprint of the encoder; vectors of two encoders are never compared."""
    text_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the text that was encoded, in hex."""
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    """dim little-endian float32 values, unit length."""


class Change(Base):
    """One entry of the change log, written in the transaction of the change itself."""

    __tablename__ = "changes"
    __table_args__ = ({"sqlite_autoincrement": True},)  # a number is never used twice

    number: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    changed_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)
