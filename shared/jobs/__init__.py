"""
The life of a job: every change of state, as functions that take a session and flush at most.

    queued ──lease──► running ──record_plan, record_segment…──► succeeded
       │                 │
       └─── end_job, cancel_job ───► failed | cancelled

A worker that works on a row holds a lease: a token and a time, both in the row. Every write of a result names the
token, so a worker that was taken for dead and comes back cannot overwrite its successor. Functions that change a
job lock its row first, which orders them; "the last open segment" is therefore seen by exactly one transaction.
"""
