"""find the stream of a publisher by the digest of its key"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_streams_push_key_sha256", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_streams_push_key_sha256",
            "streams",
            ["push_key_sha256"],
            postgresql_where=sa.text("push_key_sha256 is not null"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("ix_streams_push_key_sha256")
