"""tokens of direct uploads that the api takes itself"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0025"
down_revision: str | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # Null for files that go to storage themselves, which are the only ones that the release before announces.
    op.add_column("uploads", sa.Column("token_sha256", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "token_sha256")
