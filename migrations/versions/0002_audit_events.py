"""append-only audit events"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

REFUSE = """
create function audit_events_refuse_change() returns trigger language plpgsql as $$
declare
    expires_before text := nullif(current_setting('deepfakestream.audit_expires_before', true), '');
begin
    -- Retention says so for its own transaction, and may only take away what has grown old.
    if tg_op = 'DELETE' and expires_before is not null then
        if old.at < expires_before::timestamptz then
            return old;
        end if;
    end if;
    raise exception 'audit events are neither changed nor removed';
end
$$
"""


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at"], unique=False)
    op.create_index("ix_audit_events_owner", "audit_events", ["owner", "at"], unique=False)
    op.create_index("ix_audit_events_job_id", "audit_events", ["job_id"], unique=False)
    op.execute(REFUSE)
    op.execute(
        "create trigger refuse_change before update or delete on audit_events"
        " for each row execute function audit_events_refuse_change()"
    )
    op.execute(
        "create trigger refuse_truncate before truncate on audit_events"
        " for each statement execute function audit_events_refuse_change()"
    )


def downgrade() -> None:
    op.drop_table("audit_events")
    op.execute("drop function audit_events_refuse_change()")
