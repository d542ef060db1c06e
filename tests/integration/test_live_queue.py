"""Workers take segments of live streams before those of uploads, with a real broker and a real consumer."""

import uuid

from kombu import Consumer

from shared.config import Broker, Jobs
from shared.db import Message
from shared.queues import GPU_QUEUE, LIVE_QUEUE, QUEUES, SCORE_LIVE, SCORE_SEGMENT, Sender, make_celery


def test_live_segments_are_taken_before_those_of_uploads(redis_server):
    app = make_celery(Broker(url=redis_server.url), Jobs())
    sender, taken = Sender(app), []

    def take(_body, message):
        message.ack()
        taken.append(message.headers["task"])

    with app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.queue_purge(GPU_QUEUE)
        channel.queue_purge(LIVE_QUEUE)
        for index in range(20):
            sender.send(Message(SCORE_SEGMENT, (("job_id", uuid.uuid4()), ("index", index))))
        for index in range(5):
            sender.send(Message(SCORE_LIVE, (("job_id", uuid.uuid4()), ("index", index))))
        queues = [queue for queue in app.conf.task_queues if queue.name in QUEUES["gpu"]]
        # The order in which queues are declared is not the one in which they are read.
        consumer = Consumer(channel, queues[::-1], callbacks=[take], accept=["json"], prefetch_count=1)
        with consumer:
            while len(taken) < 25:
                connection.drain_events(timeout=5)
    assert taken == [SCORE_LIVE] * 5 + [SCORE_SEGMENT] * 20
