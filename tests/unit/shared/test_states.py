import json

import pytest
from sqlalchemy import String, literal, select, update
from sqlalchemy.dialects import postgresql

from shared.errors import Code
from shared.models import Delivery, EnumString, Job, Segment
from shared.states import (
    FINAL_JOB_STATUSES,
    OPEN_DELIVERY_STATUSES,
    OPEN_JOB_STATUSES,
    OPEN_SEGMENT_STATUSES,
    DeliveryStatus,
    JobStatus,
    Reason,
    SegmentStatus,
    Verdict,
)


@pytest.mark.parametrize("words", [JobStatus, SegmentStatus, DeliveryStatus, Verdict, Reason, Code])
def test_a_member_is_written_as_its_value_everywhere(words):
    for word in words:
        plain = word.name.lower()
        assert word == plain
        assert f"{word}" == str(word) == plain
        assert json.dumps({word: [word]}) == json.dumps({plain: [plain]})


def test_every_job_status_is_either_open_or_final():
    assert {*OPEN_JOB_STATUSES} | {*FINAL_JOB_STATUSES} == {*JobStatus}
    assert not {*OPEN_JOB_STATUSES} & {*FINAL_JOB_STATUSES}
    assert {*OPEN_SEGMENT_STATUSES} < {*SegmentStatus}
    assert {*OPEN_DELIVERY_STATUSES} < {*DeliveryStatus}


def test_columns_are_text_and_accept_members_and_strings():
    for column in (Job.status, Job.verdict, Segment.status, Delivery.status):
        assert isinstance(column.type, EnumString)
        assert isinstance(column.type.impl, String)
    for given in (JobStatus.QUEUED, "queued"):
        query = update(Job).where(Job.status == given).values(status=given)
        bound = query.compile(dialect=postgresql.dialect())
        sent = [bound._bind_processors[name](value) for name, value in bound.params.items()]
        assert [(value, type(value)) for value in sent] == [("queued", str)] * 2


def test_rows_give_members_and_unknown_values_as_strings(engine):
    with engine.connect() as connection:
        words = EnumString(JobStatus)
        found = connection.execute(
            select(literal("running").cast(words), literal("paused").cast(words), literal(None).cast(words))
        ).one()
    assert found == ("running", "paused", None)
    assert found[0] is JobStatus.RUNNING
    assert type(found[1]) is str
