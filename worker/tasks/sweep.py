"""
What ``upkeep`` finds left behind, and what it makes of it.

Flushing Redis loses messages, and killing a worker loses what it held. Both leave rows that are open and that nobody
works on. The sweep takes such rows and sends their messages again; because each step is safe to run twice, sending one
too many costs a look at the row and nothing else.
"""

from collections.abc import Mapping

from shared.config import Jobs
from shared.db import SessionFactory, after_commit
from shared.jobs.leases import RetryPolicy, Step, fail_exhausted, queue_for_step, resend_messages

BATCH = 500
"""Rows taken in one transaction, so that it stays short; the next tick takes more."""


def sweep(sessions: SessionFactory, settings: Jobs, policy: RetryPolicy, depths: Mapping[str, int]) -> dict[Step, int]:
    """
    Find what a crash left behind.

    Args:
        depths: Messages that wait, by queue: a lost message is told from a waiting one by it.

    Returns:
        How many messages were sent again, by step.
    """
    counts = {}
    for step in Step:
        with sessions.transaction() as session:
            fail_exhausted(session, step, policy, BATCH)
            # Left to ``tidy``: storage that is away must not hold up the sweep.
            after_commit(session).removals.clear()
        message_timeout_s = (
            settings.resend_after_s if depths[queue_for_step(step)] == 0 else settings.resend_always_after_s
        )
        with sessions.transaction() as session:
            counts[step] = resend_messages(session, step, policy, message_timeout_s, BATCH)
    return counts
