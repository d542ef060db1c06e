"""
Names of queues and tasks, and the Celery application of both services.

A message contains only ids. The api sends tasks by name, so that it needs no worker code.
"""

from collections.abc import Iterable
from typing import Final

from celery import Celery
from kombu import Connection, Queue
from kombu.transport.redis import Channel
from kombu.utils.scheduling import priority_cycle

from shared.config import Broker, Jobs
from shared.db import Message

CPU_QUEUE: Final = "deepfakestream.cpu"
GPU_QUEUE: Final = "deepfakestream.gpu"
LIVE_QUEUE: Final = "deepfakestream.live"
"""Segments of live streams, which are not behind those of uploads."""
QUEUES: Final = {"cpu": (CPU_QUEUE,), "gpu": (LIVE_QUEUE, GPU_QUEUE)}
"""Role of a worker → the queues that it consumes. Workers of the role ``stream`` consume none; see ``worker.live``."""
ALL_QUEUES: Final = tuple(queue for queues in QUEUES.values() for queue in queues)

INGEST: Final = "deepfakestream.ingest"
SCORE_SEGMENT: Final = "deepfakestream.score_segment"
SCORE_LIVE: Final = "deepfakestream.score_live"
"""The same for a segment of a live stream."""
FINISH: Final = "deepfakestream.finish"
EXPLAIN: Final = "deepfakestream.explain"
DELIVER_WEBHOOK: Final = "deepfakestream.deliver_webhook"
UPKEEP: Final = "deepfakestream.upkeep"
TIDY: Final = "deepfakestream.tidy"

BEAT_MESSAGE_TTL_S: Final = 3600.0
"""
Ticks of Celery beat that are older than this are dropped, so that they do not accumulate while no cpu worker runs.

The age depends on the clocks of beat and of the worker. Upkeep works as long as they differ by less than this.
"""

QUEUE_OF_TASK: Final = {
    INGEST: CPU_QUEUE,
    SCORE_SEGMENT: GPU_QUEUE,
    SCORE_LIVE: LIVE_QUEUE,
    FINISH: CPU_QUEUE,
    EXPLAIN: GPU_QUEUE,
    DELIVER_WEBHOOK: CPU_QUEUE,
    UPKEEP: CPU_QUEUE,
    TIDY: CPU_QUEUE,
}

PROBE_TIMEOUT_S: Final = 1.0
"""For how long a broker that is asked whether it is there may be silent."""

LOW_PRIORITY: Final = 9
"""The priority that Redis serves last; messages without one are served first. Each priority has a list of its own."""
PRIORITY_OF_TASK: Final = {EXPLAIN: LOW_PRIORITY}
"""Priorities of tasks for which no job waits."""


def list_of_task(task: str) -> str:
    """Return the name of the list in Redis that holds the messages of *task*: that of its queue and priority."""
    queue, priority = QUEUE_OF_TASK[task], PRIORITY_OF_TASK.get(task)
    return queue if priority is None else f"{queue}{Channel.sep}{priority}"


ALL_LISTS: Final = tuple(dict.fromkeys(list_of_task(task) for task in QUEUE_OF_TASK))


class LiveFirst(priority_cycle):
    """The order in which the Redis transport looks into its queues: that of live streams comes before the others."""

    def consume(self, n: int) -> list[str]:
        """Return the names of the first *n* queues. The transport keeps them as a set, without an order."""
        return sorted(self.items[:n], key=lambda queue: (queue != LIVE_QUEUE, queue))


def make_celery(broker: Broker, jobs: Jobs) -> Celery:
    """Make a Celery application with queues and routes, but without tasks."""
    app = Celery("deepfakestream", broker=broker.url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(name) for name in ALL_QUEUES],  # type: ignore[no-untyped-call]
        task_routes={task: {"queue": queue} for task, queue in QUEUE_OF_TASK.items()},
        task_create_missing_queues=False,
        # Results live in Postgres.
        task_ignore_result=True,
        # Messages are acknowledged before the work. The sweep resends those that a crash lost, and limits attempts.
        # With late acknowledgement Redis would repeat a task that crashes its worker for ever.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        broker_transport_options={
            "visibility_timeout": broker.visibility_timeout_s,
            "queue_order_strategy": f"{__name__}:{LiveFirst.__name__}",
            "socket_connect_timeout": 3,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Publishing from a request must not hang if Redis is unavailable: the row is committed and the sweep resends.
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.2},
        task_serializer="json",
        accept_content=["json"],
        timezone="UTC",
        worker_hijack_root_logger=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        beat_schedule={
            "upkeep": {
                "task": UPKEEP,
                "schedule": jobs.sweep_every_s,
                "options": {"expires": BEAT_MESSAGE_TTL_S},
            },
            "tidy": {"task": TIDY, "schedule": jobs.tidy_every_s, "options": {"expires": BEAT_MESSAGE_TTL_S}},
        },
    )
    return app


class Sender:
    """A sender of messages to workers. A lost message is harmless, since the sweep sends it again."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, message: Message) -> None:
        """Send *message* to the queue of its task."""
        ids = {name: value if isinstance(value, int) else str(value) for name, value in message.ids}
        self._app.send_task(
            message.task,
            kwargs=ids,
            queue=QUEUE_OF_TASK[message.task],
            priority=PRIORITY_OF_TASK.get(message.task),
        )

    def depth(self, queue: str) -> int:
        """Return the number of messages in *queue*, of all priorities."""
        lists = {list_of_task(task) for task, name in QUEUE_OF_TASK.items() if name == queue}
        return sum(self.depths(lists).values())

    def depths(self, lists: Iterable[str] = ALL_LISTS) -> dict[str, int]:
        """Return the number of messages in each of *lists*. Raises an error as ``check`` does."""
        with self._connect() as connection:
            client = connection.default_channel.client
            return {name: client.llen(name) for name in lists}

    def check(self) -> None:
        """Raise unless the broker answers, within some ``PROBE_TIMEOUT_S`` if it is silent."""
        with self._connect() as connection:
            connection.default_channel.client.ping()

    def _connect(self) -> Connection:
        """
        Return a connection that asks each address of the broker once, and waits for ``PROBE_TIMEOUT_S`` at most.

        By default Celery waits for 30 seconds, and asks again after 2 and after 4, for which a probe or a scrape of
        metrics cannot wait.
        """
        options: dict[str, float] = {
            "max_retries": self._app.conf.broker_url.count(";"),
            "socket_connect_timeout": PROBE_TIMEOUT_S,
            "socket_timeout": PROBE_TIMEOUT_S,
        }
        connection: Connection = self._app.connection_for_read(transport_options=options)
        return connection
