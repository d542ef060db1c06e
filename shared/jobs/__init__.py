"""
The state machine of a job: every change of state is a function that takes a session and flushes at most.

    queued ──lease──► running ──record_plan, record_segment…──► succeeded
       │                 │
       └─── end_job, cancel_job ───► failed | cancelled

A worker that works on a row holds a lease: a token and an expiry time, both in the row. Every write of a result checks
the token, so that a worker whose lease expired cannot overwrite the result of its successor. Functions that change a
job lock its row first, so that exactly one transaction ends the last open segment.
"""
