"""count the open jobs of an owner without reading others"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_jobs_open_owner", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_open_owner",
            "jobs",
            ["owner"],
            postgresql_where=sa.text("status in ('queued', 'running')"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("ix_jobs_open_owner")
