"""what checkpoints are given to judge, by day and kind, without owners"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "inputs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("bins", sa.Integer(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("fake", sa.BigInteger(), nullable=False),
        sa.Column("real", sa.BigInteger(), nullable=False),
        sa.Column("inconclusive", sa.BigInteger(), nullable=False),
        sa.Column("not_applicable", sa.BigInteger(), nullable=False),
        sa.Column("scores", sa.BigInteger(), nullable=False),
        sa.Column("scores_in_band", sa.BigInteger(), nullable=False),
        sa.Column("faces", sa.BigInteger(), nullable=False),
        sa.Column("too_small", sa.BigInteger(), nullable=False),
        sa.Column("too_blurred", sa.BigInteger(), nullable=False),
        sa.Column("turned", sa.BigInteger(), nullable=False),
        sa.Column("size_px", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("sharpness", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("luma", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inputs")),
    )
    op.create_index("ix_inputs_day", "inputs", ["day"])


def downgrade() -> None:
    op.drop_table("inputs")
