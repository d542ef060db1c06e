"""live streams: their rows, events and pieces, and the data of their webhooks"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The database does all of this, and not the services alone: processes of the release before end and erase jobs as well,
# and do not know of streams.
REMOVE_PIECE = """
create function segments_remove_piece() returns trigger language plpgsql as $$
begin
    insert into removals (storage_key) values (old.storage_key) on conflict do nothing;
    return null;
end
$$
"""
REMOVE_PIECE_TRIGGER = """
create trigger remove_piece after delete on segments for each row
when (old.storage_key is not null)
execute function segments_remove_piece()
"""
END_STREAM = """
create function jobs_end_stream() returns trigger language plpgsql as $$
begin
    update streams set secret = null, rolling = null, state = 'ended', ended_at = coalesce(ended_at, now())
    where job_id = new.id;
    return null;
end
$$
"""
END_STREAM_TRIGGER = """
create trigger end_stream after update of status on jobs for each row
when (new.status in ('succeeded', 'failed', 'cancelled') and new.status is distinct from old.status)
execute function jobs_end_stream()
"""
# The channel is ``api.listener.CHANNEL``.
NOTIFY = """
create function stream_events_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify('deepfakestream_job_ended', new.job_id::text);
    return null;
end
$$
"""
NOTIFY_TRIGGER = """
create trigger notify after insert on stream_events for each row execute function stream_events_notify()
"""
FORGET = """
create or replace function jobs_forget() returns trigger language plpgsql as $$
begin
    new.review := null;
    new.parent_id := null;
    delete from shares where job_id = new.id;
    delete from explanations where job_id = new.id;
    {more}
    return new;
end
$$
"""


def upgrade() -> None:
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "streams",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("secret", postgresql.JSONB(), nullable=True),
        sa.Column("duration_limit_s", sa.Double(), nullable=False),
        sa.Column("alert_threshold", sa.Double(), nullable=True),
        sa.Column("record", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_detail", sa.String(), nullable=True),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("stop_requested_at", timestamp, nullable=True),
        sa.Column("origin_at", timestamp, nullable=True),
        sa.Column("rolling", postgresql.JSONB(), nullable=True),
        sa.Column("people", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("last_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("segments", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dropped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("gaps", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reconnects", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ended_at", timestamp, nullable=True),
        sa.CheckConstraint(
            "state in ('waiting', 'connected', 'away', 'ending', 'ended')", name=op.f("ck_streams_state")
        ),
        sa.CheckConstraint("ending in ('request', 'duration', 'source')", name=op.f("ck_streams_ending")),
        sa.CheckConstraint("record in ('none', 'suspicious')", name=op.f("ck_streams_record")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_streams_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_streams")),
    )
    op.create_index("ix_streams_open", "streams", ["job_id"], postgresql_where=sa.text("ended_at is null"))
    op.create_table(
        "stream_events",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", timestamp, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_stream_events_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_stream_events")),
    )
    op.add_column("segments", sa.Column("storage_key", sa.String(), nullable=True))
    op.add_column("segments", sa.Column("lead_s", sa.Double(), nullable=True))
    op.add_column("deliveries", sa.Column("payload", postgresql.JSONB(), nullable=True))
    op.execute(REMOVE_PIECE)
    op.execute(REMOVE_PIECE_TRIGGER)
    op.execute(END_STREAM)
    op.execute(END_STREAM_TRIGGER)
    op.execute(NOTIFY)
    op.execute(NOTIFY_TRIGGER)
    op.execute(
        FORGET.format(
            more="delete from stream_events where job_id = new.id;\n    delete from streams where job_id = new.id;"
        )
    )


def downgrade() -> None:
    op.execute(FORGET.format(more=""))
    # The release before removes the files, as it does those of erased media.
    op.execute(
        "insert into removals (storage_key) select storage_key from segments where storage_key is not null"
        " on conflict do nothing"
    )
    op.execute("drop trigger remove_piece on segments")
    op.execute("drop function segments_remove_piece()")
    op.execute("drop trigger end_stream on jobs")
    op.execute("drop function jobs_end_stream()")
    op.drop_table("stream_events")
    op.execute("drop function stream_events_notify()")
    op.drop_table("streams")
    op.drop_column("deliveries", "payload")
    op.drop_column("segments", "lead_s")
    op.drop_column("segments", "storage_key")
