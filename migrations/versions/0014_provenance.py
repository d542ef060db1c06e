"""what is known of the Content Credentials in a media"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("media", sa.Column("provenance", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("media", "provenance")
