"""Indexes that a filtered search reads alone: the filter's column, then the status.

Without the status in them SQLite takes the index on the status, and reads nearly every row.

Revision: 0002, after 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FILTERED = ("category", "office", "found_on")


def upgrade() -> None:
    """Put the status behind each column."""
    for column in FILTERED:
        op.drop_index(f"ix_items_{column}", "items")
        op.create_index(f"ix_items_{column}_status", "items", [column, "status"])


def downgrade() -> None:
    """Take it out again."""
    for column in FILTERED:
        op.drop_index(f"ix_items_{column}_status", "items")
        op.create_index(f"ix_items_{column}", "items", [column])
