"""A steady load of mixed jobs by clients that repeat each request until they get a response."""

import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.clips import astronaut, hopper, make_clip, noise_picture

TIMEOUT_S = 30.0
AGAIN_S = 0.5
EXPLAIN = {"explain": "true"}
OPTIONS = {
    "clip": {"segment_seconds": "4", **EXPLAIN},
    "no face": EXPLAIN,
    "picture": {},
    "damaged": EXPLAIN,
    "two faces": EXPLAIN,
}
FATES = ("wait",) * 6 + ("twice", "cancel", "delete")
"""What a client does with a job: wait for it, submit it twice at the same time, cancel it, or delete it."""


def make_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Return the file and media type of each kind of job."""
    clip = make_clip(folder / "clip.mp4", seconds=8.0)
    both = make_clip(folder / "both.mkv", seconds=3.0, size=(640, 360), faces=(astronaut(), hopper()))
    nobody = make_clip(folder / "nobody.webm", codec="vp8", seconds=3.0, faces=())
    picture = noise_picture(0)
    return {
        "clip": (clip.read_bytes(), "video/mp4"),
        "two faces": (both.read_bytes(), "video/x-matroska"),
        "no face": (nobody.read_bytes(), "video/webm"),
        "picture": (picture, "image/jpeg"),
        # Its header is complete, so the API accepts it.
        "damaged": (picture[: len(picture) // 2], "image/jpeg"),
    }


@dataclass(slots=True)
class Accepted:
    """A job that the service accepted."""

    job_id: str
    kind: str
    fate: str
    key: str


@dataclass
class Load:
    """Clients that run in threads until ``stop``."""

    url: str
    api_key: str
    webhook_url: str
    files: dict[str, tuple[bytes, str]]
    accepted: list[Accepted] = field(default_factory=list)
    duplicated: int = 0
    """Idempotency keys with which two jobs were made."""
    errors: dict[str, int] = field(default_factory=dict)
    """Number of errors that clients got instead of a response, by kind."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, clients: int, seed: int, pause_s: float) -> None:
        """Start the clients; each waits about *pause_s* between jobs."""
        for number in range(clients):
            rng = random.Random(f"{seed}/{number}")
            thread = threading.Thread(target=self._run, args=(rng, pause_s), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float) -> int:
        """Submit no new jobs; return how many clients got no response to their last request within *timeout_s*."""
        self._over.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def submit(self, http: httpx.Client, kind: str, key: str, webhook_url: str | None = None) -> str:
        """Submit a job, repeating the request with the same key until there is a response; return the job's id."""
        data, media_type = self.files[kind]
        options = OPTIONS[kind] | ({"webhook_url": webhook_url} if webhook_url else {})
        headers = {"Content-Type": media_type, "Idempotency-Key": key}
        job: dict[str, Any] = self._until_answered(
            http, "POST", "/v1/jobs", 202, content=data, headers=headers, params=options
        )
        return str(job["id"])

    def connect(self) -> httpx.Client:
        """Open an HTTP client with the API key."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=TIMEOUT_S)

    def _run(self, rng: random.Random, pause_s: float) -> None:
        with self.connect() as http:
            while not self._over.wait(rng.uniform(0.2, 1.8) * pause_s):
                kind, fate = rng.choice(list(self.files)), rng.choice(FATES)
                key = uuid.UUID(int=rng.getrandbits(128)).hex
                job_id = self._submit_twice(http, kind, key) if fate == "twice" else None
                job_id = job_id or self.submit(http, kind, key, self.webhook_url)
                with self._lock:
                    self.accepted.append(Accepted(job_id, kind, fate, key))
                if fate in ("cancel", "delete"):
                    time.sleep(rng.uniform(0.0, 2.0))
                    method, path = ("POST", "/cancel") if fate == "cancel" else ("DELETE", "")
                    # 409: it ended before it could be cancelled. 404: an answer to an earlier DELETE was lost.
                    self._until_answered(http, method, f"/v1/jobs/{job_id}{path}", 200, 204, 404, 409)

    def _submit_twice(self, http: httpx.Client, kind: str, key: str) -> str:
        ids: list[str] = []

        def other() -> None:
            with self.connect() as mine:
                ids.append(self.submit(mine, kind, key, self.webhook_url))

        thread = threading.Thread(target=other)
        thread.start()
        ids.append(self.submit(http, kind, key, self.webhook_url))
        thread.join()
        if len(set(ids)) > 1:
            with self._lock:
                self.duplicated += 1
        return ids[0]

    def _until_answered(self, http: httpx.Client, method: str, path: str, *wanted: int, **given: Any) -> Any:
        while True:
            try:
                answer = http.request(method, path, **given)
            except httpx.TransportError as error:
                self._count(type(error).__name__)
            else:
                if answer.status_code in wanted:
                    return answer.json() if answer.content else None
                self._count(f"{answer.status_code} {answer.json().get('code')}" if answer.content else "empty answer")
            time.sleep(AGAIN_S)

    def _count(self, what: str) -> None:
        with self._lock:
            self.errors[what] = self.errors.get(what, 0) + 1
