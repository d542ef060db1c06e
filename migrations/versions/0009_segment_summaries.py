"""columns for segment summaries, and a count of segments that are done"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Triggers, because workers of the previous release, which has no count, record segments during a rolling upgrade. The
# transaction that records a segment has already locked its job, so that the triggers cannot cause a deadlock.
COUNT_UPDATED = """
create or replace function count_segment_done() returns trigger language plpgsql as $$
begin
    update jobs set segments_done = case
        -- Planned before there was a count.
        when segments_done is null then (
            select count(*) from segments
            where segments.job_id = new.job_id and segments.status not in ('pending', 'running')
        )
        else segments_done + 1
    end
    where id = new.job_id;
    return null;
end $$
"""
# Segments that are copied from another job are already done: one update per statement, not per row.
COUNT_INSERTED = """
create or replace function count_segments_done() returns trigger language plpgsql as $$
begin
    update jobs set segments_done = coalesce(segments_done, 0) + done.count
    from (
        select job_id, count(*) as count from added where status not in ('pending', 'running') group by job_id
    ) as done
    where jobs.id = done.job_id;
    return null;
end $$
"""
ON_UPDATE = """
create or replace trigger segment_done after update of status on segments for each row
when (old.status in ('pending', 'running') and new.status not in ('pending', 'running'))
execute function count_segment_done()
"""
ON_INSERT = """
create or replace trigger segments_done after insert on segments referencing new table as added for each statement
execute function count_segments_done()
"""

# Both process the tables in batches with a commit each, and can be restarted. Locked rows are skipped: readers compute
# a missing summary from ``result``.
FILL_SEGMENTS = """
do $$
declare
    last_job uuid := '00000000-0000-0000-0000-000000000000';
    last_index integer := -1;
begin
    loop
        with batch as (
            select job_id, index from segments
            where people_count is null and result is not null and (job_id, index) > (last_job, last_index)
            order by job_id, index limit 2000 for update skip locked
        ), filled as (
            update segments set
                people_count = coalesce(jsonb_array_length(result -> 'people'), 0),
                faces_found = coalesce((result ->> 'faces_found')::integer, 0),
                faces_scored = coalesce((result ->> 'faces_scored')::integer, 0),
                frames_decoded = coalesce((result ->> 'frames_decoded')::integer, 0),
                engine = result ->> 'engine',
                reasons = coalesce(result -> 'reasons', '[]')
            from batch where segments.job_id = batch.job_id and segments.index = batch.index
        )
        select job_id, index into last_job, last_index from batch order by job_id desc, index desc limit 1;
        exit when not found;
        commit;
    end loop;
end $$
"""
FILL_JOBS = """
do $$
declare
    last uuid := '00000000-0000-0000-0000-000000000000';
begin
    loop
        with batch as (
            select id from jobs
            where segments_done is null and status in ('succeeded', 'failed', 'cancelled') and id > last
            order by id limit 500 for update skip locked
        ), filled as (
            update jobs set segments_done = (
                select count(*) from segments
                where segments.job_id = jobs.id and segments.status not in ('pending', 'running')
            )
            from batch where jobs.id = batch.id
        )
        select id into last from batch order by id desc limit 1;
        exit when not found;
        commit;
    end loop;
end $$
"""


def upgrade() -> None:
    # This part can be repeated: it is committed before the tables are filled, which may be interrupted.
    op.add_column("jobs", sa.Column("segments_done", sa.Integer(), nullable=True), if_not_exists=True)
    # The default applies only to new rows, also those of the previous release; in existing rows null means "not
    # counted".
    op.execute("alter table jobs alter column segments_done set default 0")
    op.add_column("segments", sa.Column("people_count", sa.Integer(), nullable=True), if_not_exists=True)
    op.add_column("segments", sa.Column("faces_found", sa.Integer(), nullable=True), if_not_exists=True)
    op.add_column("segments", sa.Column("faces_scored", sa.Integer(), nullable=True), if_not_exists=True)
    op.add_column("segments", sa.Column("frames_decoded", sa.Integer(), nullable=True), if_not_exists=True)
    op.add_column("segments", sa.Column("engine", sa.String(), nullable=True), if_not_exists=True)
    op.add_column("segments", sa.Column("reasons", postgresql.JSONB(), nullable=True), if_not_exists=True)
    for statement in (COUNT_UPDATED, COUNT_INSERTED, ON_UPDATE, ON_INSERT):
        op.execute(statement)
    with op.get_context().autocommit_block():
        op.execute(FILL_SEGMENTS)
        op.execute(FILL_JOBS)


def downgrade() -> None:
    op.execute("drop trigger segments_done on segments")
    op.execute("drop trigger segment_done on segments")
    op.execute("drop function count_segments_done()")
    op.execute("drop function count_segment_done()")
    for column in ("reasons", "engine", "frames_decoded", "faces_scored", "faces_found", "people_count"):
        op.drop_column("segments", column)
    op.drop_column("jobs", "segments_done")
