"""
Readers of live streams: workers of the role ``stream``, which consume no queue.

``process`` claims streams that nobody reads, ``run`` is the life of one of them in this process, ``reading`` turns its
source into stored pieces, and ``judging`` follows the scores that come back.
"""
