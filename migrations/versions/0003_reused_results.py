"""the job whose result was reused"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("reused_from", sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "reused_from")
