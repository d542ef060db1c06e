"""explanations of jobs, whose images are removed with their rows"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The database does it, and not the services alone: a process of the release before erases jobs as well, and does not
# know of explanations. What it leaves in ``removals``, its task ``tidy`` removes.
REMOVE_IMAGES = """
create function explanations_remove_images() returns trigger language plpgsql as $$
begin
    insert into removals (storage_key) values (old.storage_key) on conflict do nothing;
    return null;
end
$$
"""
TRIGGER = """
create trigger remove_images after delete on explanations for each row
when (old.storage_key is not null)
execute function explanations_remove_images()
"""
FORGET = """
create or replace function jobs_forget() returns trigger language plpgsql as $$
begin
    new.review := null;
    new.parent_id := null;
    delete from shares where job_id = new.id;
    {more}
    return new;
end
$$
"""


def upgrade() -> None:
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "explanations",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_detail", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("leased_until", timestamp, nullable=True),
        sa.Column("sent_at", timestamp, nullable=True),
        sa.Column("send_after", timestamp, server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", timestamp, server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", timestamp, nullable=True),
        sa.Column("finished_at", timestamp, nullable=True),
        sa.CheckConstraint(
            "status in ('pending', 'running', 'succeeded', 'failed')", name=op.f("ck_explanations_status")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_explanations_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_explanations")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_explanations_storage_key")),
    )
    op.create_index(
        "ix_explanations_open",
        "explanations",
        ["send_after"],
        postgresql_where=sa.text("status in ('pending', 'running')"),
    )
    op.execute(REMOVE_IMAGES)
    op.execute(TRIGGER)
    op.execute(FORGET.format(more="delete from explanations where job_id = new.id;"))


def downgrade() -> None:
    op.execute(FORGET.format(more=""))
    # The release before removes the files, as it does those of erased media.
    op.execute(
        "insert into removals (storage_key) select storage_key from explanations where storage_key is not null"
        " on conflict do nothing"
    )
    op.drop_table("explanations")
    op.execute("drop function explanations_remove_images()")
