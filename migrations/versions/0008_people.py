"""people followed over the whole media"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("findings", postgresql.JSONB(), nullable=True))
    op.add_column("segments", sa.Column("looks", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("segments", "looks")
    op.drop_column("jobs", "findings")
