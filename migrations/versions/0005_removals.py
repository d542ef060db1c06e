"""pending removals of files, and the claim and digest of direct uploads"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "removals",
        sa.Column("storage_key", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("storage_key", name=op.f("pk_removals")),
    )
    op.add_column("uploads", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("source_sha256", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "source_sha256")
    op.drop_column("uploads", "claimed_at")
    op.drop_table("removals")
