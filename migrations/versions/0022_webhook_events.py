"""the events that the receiver of a job or a batch gets"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # Null for all events, which is what the release before sends.
    op.add_column("jobs", sa.Column("webhook_events", postgresql.JSONB(), nullable=True))
    op.add_column("batches", sa.Column("webhook_events", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("batches", "webhook_events")
    op.drop_column("jobs", "webhook_events")
