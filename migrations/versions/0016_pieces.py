"""find segments by the object of their piece, for the removal of objects without a row"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_segments_storage_key", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_segments_storage_key",
            "segments",
            ["storage_key"],
            postgresql_where=sa.text("storage_key is not null"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("ix_segments_storage_key")
