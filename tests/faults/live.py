"""A live stream that runs while faults are injected: a real sender, and the audit of what was read."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from tests.clips import make_clip
from worker.media.ffmpeg import find_ffmpeg

SEGMENT_S = 2.0
MIN_SCORED = 3
AGAIN_S = 0.5


class LiveStream:
    """A stream that the service was asked to watch."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id

    def stop(self, http: httpx.Client, timeout_s: float) -> None:
        """Stop the stream, however often the service does not answer."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if http.post(f"/v1/streams/{self.stream_id}/stop").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(AGAIN_S)

    def audit(self, http: httpx.Client) -> list[str]:
        """Return what is wrong with the stream, which has been stopped."""
        stream = http.get(f"/v1/streams/{self.stream_id}").json()
        segments = _read_all(http, f"/v1/jobs/{self.stream_id}/segments", {"limit": 100})
        events = _read_events(http, self.stream_id)
        counters = stream["counters"]
        gaps = sum(segment["reasons"] == ["gap"] for segment in segments)
        dropped = sum(segment["reasons"] == ["dropped"] for segment in segments)
        judged = [event["data"]["index"] for event in events if event["kind"] == "segment"]
        checks = {
            f"it is {stream['status']}": stream["status"] == "succeeded",
            f"its state is {stream['state']}": stream["state"] == "ended",
            "segments are missing or doubled": [one["index"] for one in segments] == list(range(len(segments))),
            "its segments do not follow one another": all(
                before["end_s"] == after["start_s"] for before, after in pairwise(segments)
            ),
            "a segment has not ended": all(one["status"] in ("scored", "unscorable") for one in segments),
            f"too few segments were scored: {len(segments)} {counters}": sum(
                one["status"] == "scored" for one in segments
            )
            >= MIN_SCORED,
            "its counters are wrong": (counters["gaps"], counters["dropped"]) == (gaps, dropped)
            and counters["segments"] == len(segments) - gaps,
            "events are missing or doubled": [one["seq"] for one in events] == list(range(1, len(events) + 1)),
            "a segment has no event, or two": judged == list(range(len(segments))),
            "it has not one end": [one["kind"] for one in events].count("ended") == 1,
        }
        return [what for what, is_so in checks.items() if not is_so]


@contextmanager
def live_stream(http: httpx.Client, folder: Path) -> Iterator[LiveStream]:
    """Send a clip over and over, in real time, and have the service watch it."""
    clip = make_clip(folder / "live.ts", seconds=10.0, extra=("-g", "10", "-bf", "0"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    body: dict[str, Any] = {"url": f"udp://127.0.0.1:{port}", "segment_seconds": SEGMENT_S, "duration_limit_s": 14400}
    made = http.post("/v1/streams", json=body)
    made.raise_for_status()
    command = [find_ffmpeg(), "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy"]
    command += ["-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sender:
        try:
            yield LiveStream(made.json()["id"])
        finally:
            sender.kill()


def _read_all(http: httpx.Client, path: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = http.get(path, params=params | cursor).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


def _read_events(http: httpx.Client, stream_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while True:
        after = events[-1]["seq"] if events else 0
        page = http.get(f"/v1/streams/{stream_id}", params={"after": after}).json()["events"]
        if not page:
            return events
        events += page
