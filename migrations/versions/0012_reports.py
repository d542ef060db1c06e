"""which job a job scores again, what a person found, and links to a report"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The database does it, and not the services alone: a process of the release before erases jobs as well, and does not
# know of these columns.
FORGET = """
create function jobs_forget() returns trigger language plpgsql as $$
begin
    new.review := null;
    new.parent_id := null;
    delete from shares where job_id = new.id;
    return new;
end
$$
"""
TRIGGER = """
create trigger forget before update of deleted_at on jobs for each row
when (new.deleted_at is not null)
execute function jobs_forget()
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.add_column("jobs", sa.Column("review", postgresql.JSONB(), nullable=True))
    op.create_table(
        "shares",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"], name=op.f("fk_shares_api_key_id_api_keys")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_shares_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shares")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_shares_token_sha256")),
    )
    op.create_index("ix_shares_job_id", "shares", ["job_id"])
    op.create_index("ix_shares_expires_at", "shares", ["expires_at"])
    op.execute(FORGET)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("drop trigger forget on jobs")
    op.execute("drop function jobs_forget()")
    op.drop_table("shares")
    op.drop_column("jobs", "review")
    op.drop_column("jobs", "parent_id")
