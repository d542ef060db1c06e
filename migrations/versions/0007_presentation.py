"""which frames of a video are shown, and how"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("media", sa.Column("presentation", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("media", "presentation")
