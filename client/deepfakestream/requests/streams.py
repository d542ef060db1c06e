"""Requests about live streams."""

import time
import uuid
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Final

from deepfakestream.calls import Call, Iteration
from deepfakestream.requests.base import Requests, check_events, choose_pause, collect_options, job_path, parse_document
from deepfakestream.retries import RetrySafety
from deepfakestream.streams import Stream, StreamEvent

HELD_S: Final = 20.0
"""How long the service is asked to hold its answer back until there is an event."""
MIN_PAUSE_S: Final = 0.5
"""The least time between two requests without a new event: a busy service answers at once, and may ask for more."""


class StreamRequests(Requests):
    """Requests that begin, follow, stop and erase live streams."""

    @Call
    async def begin_stream(
        self,
        url: str | None = None,
        *,
        push: str | None = None,
        username: str | None = None,
        password: str | None = None,
        model: str | None = None,
        sample_fps: float | None = None,
        segment_seconds: float | None = None,
        duration_limit_s: float | None = None,
        alert_threshold: float | None = None,
        record: str | None = None,
        last_faces: bool | None = None,
        webhook_url: str | None = None,
        webhook_events: Iterable[str] | None = None,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Stream:
        """
        Have the service watch a live stream.

        Args:
            url: Address of the source (RTSP, RTMP, SRT, HLS), without credentials.
            push: ``rtmp``, instead of *url*, if a publisher sends the stream to the service: to ``push.url`` of what is
                returned, which has the key and is shown only this once.
            username: Login of the source.
            password: Password of the source, or the passphrase of SRT.
            model: Name of a checkpoint; the service's default if not given.
            sample_fps: Frames sampled per second, 0.1 to 30; the checkpoint's default if not given.
            segment_seconds: Length of a segment in seconds, 1 to 30; the checkpoint's default if not given.
            duration_limit_s: Seconds after which the stream ends; an hour if not given.
            alert_threshold: Mean score of a person from which on there is an alert; the checkpoint's limits if not
                given.
            record: ``none``, the default, or ``suspicious`` to keep the segments around alerts.
            last_faces: Keep a picture of the newest face of each person while the stream runs; not done if not given.
            webhook_url: Address that the service calls for each alert and at the end.
            webhook_events: Names of the events that it is called for, such as ``stream.ended``; all if not given.
            metadata: Values of your own, which the stream keeps; must be JSON.
            idempotency_key: Generated if not given; with a key of your own a repetition begins no second stream. It
                replaces the key for publishers, as long as nobody has published.

        Raises:
            InvalidRequestError: The address or an option is not acceptable; ``code`` says why.
        """
        options = collect_options(
            url=url,
            push=push,
            model=model,
            sample_fps=sample_fps,
            segment_seconds=segment_seconds,
            duration_limit_s=duration_limit_s,
            alert_threshold=alert_threshold,
            record=record,
            last_faces=last_faces,
            webhook_url=webhook_url,
            webhook_events=check_events(webhook_events),
            metadata=metadata,
        )
        secret = collect_options(username=username, password=password)
        body = {**options, **({"secret": secret} if secret else {})}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return parse_document(Stream, await self._transport.call("POST", "/v1/streams", headers=headers, json=body))

    @Call
    async def stream(self, stream_id: str) -> Stream:
        """Get a stream, without its events. Raises NotFoundError if it does not exist, or belongs to another owner."""
        return parse_document(Stream, await self._transport.call("GET", _path(stream_id)))

    @Iteration
    async def streams(self, *, status: str | None = None, limit: int | None = None) -> AsyncGenerator[Stream, None]:
        """
        Iterate over your streams, newest first.

        Args:
            status: Only streams whose job has this status.
            limit: The most streams to return.
        """
        params = {} if status is None else {"status": status}
        async with aclosing(self._get_items("/v1/streams", params, limit=limit)) as items:
            async for item in items:
                yield parse_document(Stream, item)

    @Iteration
    async def watch(self, stream_id: str, *, after: int = 0) -> AsyncGenerator[StreamEvent, None]:
        """
        Iterate over the events of a stream as they happen, until it has ended.

        Lost connections are made again; an event is returned once.

        Args:
            after: Number of the last event that is known already.

        Raises:
            NotFoundError: The stream does not exist, or was erased meanwhile.
            ConnectionFailedError, RateLimitedError, ServerError: The service did not answer until the retries were
                used up. The stream goes on; call again with the number of the last event.
        """
        while True:
            began = time.monotonic()
            params = {"after": after, "wait_s": HELD_S}
            document = await self._transport.call("GET", _path(stream_id), params=params, wait_s=HELD_S)
            stream = parse_document(Stream, document)
            for event in stream.events:
                after = event.seq
                yield event
            if stream.is_final and after >= stream.last_seq:
                return
            if not stream.events:
                pause_s = choose_pause(stream.poll_after_s, MIN_PAUSE_S)
                await self._transport.driver.sleep(max(0.0, pause_s - (time.monotonic() - began)))

    @Call
    async def stop_stream(self, stream_id: str) -> Stream:
        """Stop a stream; its verdict follows within seconds. Stopping it again changes nothing."""
        return parse_document(Stream, await self._transport.call("POST", _path(stream_id, "stop")))

    @Call
    async def delete_stream(self, stream_id: str) -> None:
        """Erase a stream with its results, events and recorded segments."""
        await self._transport.call("DELETE", _path(stream_id), safety=RetrySafety.DELETION, has_answer=False)


def _path(stream_id: str, *more: str) -> str:
    return job_path(stream_id, *more, collection="streams")
