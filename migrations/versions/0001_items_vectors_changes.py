"""Items, their vectors and the change log.

Revision: 0001, the first
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INDEXED = ("category", "office", "found_on", "status")


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "items",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=4000), nullable=False),
        sa.Column("category", sa.String(length=100, collation="NOCASE"), nullable=True),
        sa.Column("colour", sa.String(length=100), nullable=True),
        sa.Column("brand", sa.String(length=100), nullable=True),
        sa.Column("office", sa.String(length=100, collation="NOCASE"), nullable=True),
        sa.Column("place", sa.String(length=200), nullable=True),
        sa.Column("found_on", sa.Date(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "held", "returned", "disposed", name="status", native_enum=False, create_constraint=True, length=16
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        sa.UniqueConstraint("reference", name="uq_items_reference"),
        sqlite_autoincrement=True,
    )
    for column in INDEXED:
        op.create_index(f"ix_items_{column}", "items", [column])
    op.create_table(
        "item_vectors",
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("text_hash", sa.String(length=64), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_item_vectors_item_id_items"),
        sa.PrimaryKeyConstraint("item_id", "encoder", name="pk_item_vectors"),
    )
    op.create_table(
        "changes",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_changes_item_id_items"),
        sa.PrimaryKeyConstraint("number", name="pk_changes"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop the three tables and all that is in them."""
    op.drop_table("changes")
    op.drop_table("item_vectors")
    op.drop_table("items")
