"""
The life of live streams in the database: a stream is a job whose segments keep coming.

``creation`` makes one, ``claims`` gives it to a reader, ``pushing`` to the one at which its publisher arrives, ``keys``
makes the keys of publishers, ``pieces`` adds segments and drops those that cannot be scored in time, ``events`` is what
clients follow, ``ending`` plans the end, and ``cleanup`` is what the end and the erasure of any job do for streams.
docs/streams.md describes it.

The lease of a stream is on the job's row (``Step.STREAM``). Who changes a stream locks the job's row first, as
everywhere; that serialises its segments and its events.
"""
