"""the pinned checkpoint of a job, and the attempts of a delivery"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("manifest", postgresql.JSONB(), nullable=True), if_not_exists=True)
    op.add_column(
        "deliveries", sa.Column("attempts", sa.Integer(), server_default="0", nullable=False), if_not_exists=True
    )
    # The counts are those of ingest, which is done. From here on attempts of the finish step are counted.
    op.execute("update jobs set attempts = 0 where status = 'running' and segments_total is not null")
    with op.get_context().autocommit_block():
        # Expiry finds jobs by the time of their end; without the index it would also read all erased jobs.
        op.drop_index("ix_jobs_expiring", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_expiring",
            "jobs",
            ["finished_at"],
            postgresql_where=sa.text("deleted_at is null"),
            postgresql_concurrently=True,
        )
        op.drop_index("ix_jobs_deleted_at", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_deleted_at",
            "jobs",
            ["deleted_at"],
            postgresql_where=sa.text("deleted_at is not null"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("ix_jobs_deleted_at")
    op.drop_index("ix_jobs_expiring")
    op.drop_column("deliveries", "attempts")
    op.drop_column("jobs", "manifest")
