"""notify listeners of the end of a job, and of its erasure"""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The database sends notifications instead of the services, since workers of the previous release end jobs, too. A
# notification is sent when its transaction commits. The channel is ``api.listener.CHANNEL``.
NOTIFY = """
create function jobs_notify_end() returns trigger language plpgsql as $$
begin
    perform pg_notify('deepfakestream_job_ended', new.id::text);
    return null;
end
$$
"""
TRIGGER = """
create trigger notify_end after update of status, deleted_at on jobs for each row
when (
    (new.status in ('succeeded', 'failed', 'cancelled') or new.deleted_at is not null)
    and (new.status, new.deleted_at) is distinct from (old.status, old.deleted_at)
)
execute function jobs_notify_end()
"""


def upgrade() -> None:
    op.execute(NOTIFY)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("drop trigger notify_end on jobs")
    op.execute("drop function jobs_notify_end()")
