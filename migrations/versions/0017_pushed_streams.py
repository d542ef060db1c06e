"""streams that are published to the service: the digest of the key, and since when the publisher is away"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("streams", sa.Column("push_key_sha256", sa.LargeBinary(), nullable=True))
    op.add_column("streams", sa.Column("away_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # Readers of the release before would look for an address that these streams do not have.
    op.execute(
        "update jobs set status = 'cancelled', finished_at = now() from streams where streams.job_id = jobs.id"
        " and streams.push_key_sha256 is not null and jobs.status in ('queued', 'running')"
    )
    op.drop_column("streams", "away_since")
    op.drop_column("streams", "push_key_sha256")
