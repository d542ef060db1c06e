"""the newest faces of the people in a live stream, while it runs"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# By the database, since processes of the release before end and erase streams as well; erasing the stream's row erases
# its faces by the foreign key.
END_STREAM = """
create or replace function jobs_end_stream() returns trigger language plpgsql as $$
begin
    update streams set secret = null, rolling = null, state = 'ended', ended_at = coalesce(ended_at, now())
    where job_id = new.id;
    {more}
    return null;
end
$$
"""


def upgrade() -> None:
    op.add_column("streams", sa.Column("last_faces", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "stream_faces",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("within", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("person", sa.Integer(), nullable=True),
        sa.Column("time_s", sa.Double(), nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["streams.job_id"], name=op.f("fk_stream_faces_job_id_streams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "index", "within", name=op.f("pk_stream_faces")),
    )
    op.execute(END_STREAM.format(more="delete from stream_faces where job_id = new.id;"))


def downgrade() -> None:
    op.execute(END_STREAM.format(more=""))
    op.drop_table("stream_faces")
    op.drop_column("streams", "last_faces")
