"""The updates: id, start and record."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table of updates."""
    op.create_table(
        "updates",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("started", sa.String(32), nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
