"""which job a job scores again, and what a person found"""

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
    op.execute(FORGET)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("drop trigger forget on jobs")
    op.execute("drop function jobs_forget()")
    op.drop_column("jobs", "review")
    op.drop_column("jobs", "parent_id")
