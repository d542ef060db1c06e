"""
The sweep: it finds open steps that no worker runs, and sends their messages again.

Such steps are left when Redis loses messages or a worker is killed. Each step is safe to run twice, so a superfluous
message only costs a query.
"""

from collections.abc import Mapping

from shared.config import Jobs
from shared.db import SessionFactory, after_commit
from shared.jobs.leases import RetryPolicy, Step, fail_exhausted, list_for_step, send_due_messages
from shared.streams.ending import end_overdue_streams

BATCH = 500
"""Rows processed in one transaction, so that it stays short; the next sweep processes more."""


def sweep(sessions: SessionFactory, settings: Jobs, policy: RetryPolicy, depths: Mapping[str, int]) -> dict[Step, int]:
    """
    End streams that no reader ends, fail steps that have no attempts left, and send the messages of open steps again.

    Args:
        depths: Number of waiting messages by list in Redis, of ``ALL_LISTS``. If a list is empty, the message of an
            open step is lost. Explanations have a list of their own, so that many of them do not hide that.

    Returns:
        Number of messages that were sent again, by step.
    """
    with sessions.transaction() as session:
        end_overdue_streams(session, BATCH)
        after_commit(session).removals.clear()
    counts = {}
    for step in Step:
        with sessions.transaction() as session:
            fail_exhausted(session, step, policy, BATCH)
            # Files are removed by ``tidy``: unavailable storage must not delay the sweep.
            after_commit(session).removals.clear()
        name = list_for_step(step)
        if name is None:
            continue
        message_timeout_s = settings.resend_after_s if depths[name] == 0 else settings.resend_always_after_s
        with sessions.transaction() as session:
            counts[step] = send_due_messages(session, step, policy, message_timeout_s, BATCH)
    return counts
