"""Live streams that run while faults are injected, and the audit of what was read of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from api.embedded.stack import EmbeddedStack
from tests.faults.cameras import Camera, Trouble, cameras, make_clips
from tests.faults.faults import children_of_group
from tests.faults.receiver import Memory
from tests.inside import postgres_of, services_of

OPTIONS: dict[str, Any] = {
    "segment_seconds": 6.0,
    "sample_fps": 1.0,
    "duration_limit_s": 14400,
    # Every face raises an alert, so that there are many to look at.
    "alert_threshold": 0.0001,
}
MIN_SCORED = 3
AGAIN_S = 0.5
MIN_AWAY_S = 8.0
MIN_AWAY_HLS_S = 16.0
"""An outage of at least this length must show as a gap; a shorter one may be none: what was sent meanwhile is kept."""
UNSEEN_S = 7.0
UNSEEN_HLS_S = 14.0
"""How much shorter that gap may be: by a piece before and one after it, and by what a playlist still lists."""
DRIFT_S = 25.0
"""How far a stream may be behind the clock at its end, since its last piece was read."""
AHEAD_S = 6.0
"""How far its time may be ahead: pictures arrived earlier than usual, or between the request and the end."""
MORE_THREADS, MORE_FILES = 8, 40
"""What a reader may have at its end beyond what it had at its start: connections to stores, and their threads."""


@dataclass
class Reader:
    """What a process of the role has in use."""

    threads: int
    files: int
    children: int
    rss_mb: float


@dataclass
class LiveStreams:
    """Streams that the service was asked to watch, and what their cameras went through."""

    watched: dict[str, Camera]
    """Stream id → camera."""
    trouble: Trouble
    fresh: Reader
    """A reader before the first stream."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Filled by ``audit``."""

    def stop(self, http: httpx.Client, timeout_s: float) -> None:
        """Stop the faults of cameras and then the streams, however often the service does not answer."""
        self.trouble.stop()
        deadline = time.monotonic() + timeout_s
        for stream_id in self.watched:
            while time.monotonic() < deadline:
                with suppress(httpx.HTTPError):
                    if http.post(f"/v1/streams/{stream_id}/stop").status_code == 200:
                        break
                time.sleep(AGAIN_S)

    def audit(self, stack: EmbeddedStack, http: httpx.Client, memory: Memory) -> list[str]:
        """Return what is wrong with the streams, which have been stopped, and with the readers."""
        found = []
        for stream_id, camera in self.watched.items():
            found += [f"{camera.scheme}: {what}" for what in self._audit(stack, http, memory, stream_id, camera)]
        for name, reader in readers_of(stack).items():
            self.figures[name] = vars(reader)
            fresh = self.fresh
            checks = {
                f"has {reader.children} children": reader.children == 0,
                f"has {reader.threads} threads": reader.threads <= fresh.threads + MORE_THREADS,
                f"has {reader.files} open files": reader.files <= fresh.files + MORE_FILES,
                f"uses {reader.rss_mb:.0f} MB": reader.rss_mb <= fresh.rss_mb + 60.0,
            }
            found += [f"{name} {what}" for what, is_so in checks.items() if not is_so]
        return found

    def _audit(
        self, stack: EmbeddedStack, http: httpx.Client, memory: Memory, stream_id: str, camera: Camera
    ) -> list[str]:
        stream = http.get(f"/v1/streams/{stream_id}").json()
        segments = _read_all(http, f"/v1/jobs/{stream_id}/segments", {"limit": 100})
        events = _read_events(http, stream_id)
        counters = stream["counters"]
        unread = {name: [one for one in segments if one["reasons"] == [name]] for name in ("gap", "dropped")}
        scored = [one for one in segments if one["status"] == "scored"]
        judged = [event["data"]["index"] for event in events if event["kind"] == "segment"]
        alerts = [event for event in events if event["kind"] == "alert"]
        delivered = [memory.ids.get(f"{stream_id}/{event['seq']}", set()) for event in alerts]
        origin_s, behind_s = _clock_of(stack, stream_id, segments)
        hidden = _find_hidden(camera, origin_s, unread["gap"] + unread["dropped"], segments)
        self.figures[camera.scheme] = {
            "segments": counters["segments"],
            "gaps": counters["gaps"],
            "gap_s": round(_length(unread["gap"]), 1),
            "dropped": counters["dropped"],
            "scored_s": round(_length(scored), 1),
            "reconnects": counters["reconnects"],
            "alerts": len(alerts),
            "behind_s": round(behind_s, 1),
        }
        checks = {
            f"it is {stream['status']} {stream['error']}": stream["status"] == "succeeded",
            f"its state is {stream['state']}": stream["state"] == "ended",
            "segments are missing or doubled": [one["index"] for one in segments] == list(range(len(segments))),
            "its segments do not follow one another": all(a["end_s"] == b["start_s"] for a, b in pairwise(segments)),
            "a segment has not ended": all(one["status"] in ("scored", "unscorable") for one in segments),
            f"too few segments were scored: {counters}": len(scored) >= MIN_SCORED,
            "its counters are wrong": (counters["gaps"], counters["dropped"], counters["segments"])
            == (len(unread["gap"]), len(unread["dropped"]), len(segments) - len(unread["gap"])),
            "events are missing or doubled": [one["seq"] for one in events] == list(range(1, len(events) + 1)),
            "a segment has no event, or two": judged == list(range(len(segments))),
            "it has not one end": [one["kind"] for one in events].count("ended") == 1,
            "alerts are not raised and cleared in turn": _take_turns(alerts),
            "its people do not match its alerts": _alerting(stream["people"]) <= _raised(alerts),
            "an alert has no webhook, or two": all(len(ids) == 1 for ids in delivered),
            "its end has no webhook, or two": len(memory.ids.get(stream_id, set())) == 1,
            f"its time is {behind_s:.1f} s behind the clock": -AHEAD_S <= behind_s <= DRIFT_S,
            f"its gaps do not show {hidden}": not hidden,
        }
        return [what for what, is_so in checks.items() if not is_so]


@contextmanager
def live_streams(
    stack: EmbeddedStack, http: httpx.Client, folder: Path, webhook_url: str, seed: int
) -> Iterator[LiveStreams]:
    """Run the cameras and have the service watch them; their faults begin with ``trouble.start``."""
    clips = make_clips(folder)
    fresh = next(iter(readers_of(stack).values()))
    with cameras(clips[0], folder / "hls") as sources:
        watched = {}
        for camera in sources:
            made = http.post("/v1/streams", json={"url": camera.url, "webhook_url": webhook_url, **OPTIONS})
            made.raise_for_status()
            watched[str(made.json()["id"])] = camera
        yield LiveStreams(watched, Trouble(sources, clips, seed), fresh)


def readers_of(stack: EmbeddedStack) -> dict[str, Reader]:
    """Return what each reader has in use, by the name of the service."""
    found = {}
    for service in services_of(stack):
        if service.name.startswith("worker-stream") and service.process is not None:
            folder = Path(f"/proc/{service.process.pid}")
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            found[service.name] = Reader(
                int(status["Threads"]),
                len(list((folder / "fd").iterdir())),
                len(children_of_group(service)),
                int(status["VmRSS"].split()[0]) / 1024,
            )
    return found


def _clock_of(stack: EmbeddedStack, stream_id: str, segments: list[dict[str, Any]]) -> tuple[float, float]:
    """Return when the time of the stream was 0, and how far it was behind the clock when its end was requested."""
    query = "select extract(epoch from origin_at), extract(epoch from stop_requested_at) from streams where job_id = %s"
    with postgres_of(stack) as connection:
        row = connection.execute(query, [stream_id]).fetchone()
    if row is None or None in row or not segments:
        return 0.0, float("inf")
    return float(row[0]), float(row[1]) - float(row[0]) - segments[-1]["end_s"]


def _find_hidden(
    camera: Camera, origin_s: float, unread: list[dict[str, Any]], segments: list[dict[str, Any]]
) -> list[str]:
    """Return the outages of *camera* that should show in segments that were not read, and do not."""
    is_hls = camera.scheme == "hls"
    least_s, unseen_s = (MIN_AWAY_HLS_S, UNSEEN_HLS_S) if is_hls else (MIN_AWAY_S, UNSEEN_S)
    end_s = segments[-1]["end_s"] if segments else 0.0
    hidden = []
    for began, ended, kind in camera.away:
        start_s, stop_s = began - origin_s, ended - origin_s
        if stop_s - start_s < least_s or start_s < 0 or stop_s > end_s:
            continue
        near = [one for one in unread if one["end_s"] > start_s - unseen_s and one["start_s"] < stop_s + unseen_s]
        if _length(near) < stop_s - start_s - unseen_s:
            hidden.append(f"{kind} for {stop_s - start_s:.1f} s at {start_s:.0f} s: {_length(near):.1f} s")
    return hidden


def _length(segments: list[dict[str, Any]]) -> float:
    return float(sum(one["end_s"] - one["start_s"] for one in segments))


def _take_turns(alerts: list[dict[str, Any]]) -> bool:
    """Return whether the alerts about each person are raised and cleared in turn, in the order of time."""
    states: dict[int, str] = {}
    last_s = 0.0
    for alert in alerts:
        data = alert["data"]
        if data["action"] == states.get(data["person"], "cleared") or data["time_s"] < last_s:
            return False
        states[data["person"]], last_s = data["action"], data["time_s"]
    return True


def _raised(alerts: list[dict[str, Any]]) -> set[int]:
    last = {alert["data"]["person"]: alert["data"]["action"] for alert in alerts}
    return {person for person, action in last.items() if action == "raised"}


def _alerting(people: list[dict[str, Any]]) -> set[int]:
    return {person["person"] for person in people if person["is_alerting"]}


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
