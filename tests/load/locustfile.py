"""
Clients of the API for locust: some submit small pictures at a fixed rate, others poll jobs.

Usage by hand, against any running service:

    DEEPFAKESTREAM_API_KEY=… locust -f tests/load/locustfile.py --host http://127.0.0.1:8000

``SUBMISSIONS_PER_S`` and ``POLLS_PER_S`` set the rates, each divided among ten users. Responses are counted by outcome:
submissions that were accepted, submissions that were shed properly (429 or 503 with ``Retry-After``), and failures.
"""

import itertools
import os
from io import BytesIO

import gevent
import numpy as np
from locust import FastHttpUser, constant_throughput, events, task
from PIL import Image

USERS = 10
"""Number of users of each class."""
SUBMISSIONS_PER_S = float(os.environ.get("SUBMISSIONS_PER_S", "20"))
POLLS_PER_S = float(os.environ.get("POLLS_PER_S", "20"))
SHED = (429, 503)
HEADERS = {"Authorization": f"Bearer {os.environ.get('DEEPFAKESTREAM_API_KEY', '')}"}

_numbers = itertools.count()
_accepted: list[str] = []


def make_picture(number: int) -> bytes:
    """Make a 64-pixel JPEG without a face that differs from those of other numbers and runs."""
    rng = np.random.default_rng((os.getpid(), number))
    file = BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64)).save(file, "JPEG")
    return file.getvalue()


@events.test_stop.add_listener
def write_accepted_ids(**_) -> None:
    """Write the ids of accepted jobs to ``ACCEPTED_FILE``, so that the load test can wait for them."""
    path = os.environ.get("ACCEPTED_FILE")
    if path:
        with open(path, "w") as file:  # noqa: PTH123 - gevent's own file type has no Path
            file.writelines(f"{job_id}\n" for job_id in _accepted)


class Submitter(FastHttpUser):
    """A client that submits at its rate whatever the responses are, like many independent clients."""

    fixed_count = USERS
    wait_time = constant_throughput(SUBMISSIONS_PER_S / USERS)

    @task
    def submit(self) -> None:
        """Submit a picture."""
        headers = HEADERS | {"Content-Type": "image/jpeg"}
        with self.client.post(
            "/v1/jobs", data=make_picture(next(_numbers)), headers=headers, catch_response=True
        ) as answer:
            if answer.status_code == 202:
                answer.request_meta["name"] = "accepted"
                _accepted.append(answer.json()["id"])
                answer.success()
            elif answer.status_code in SHED and answer.headers.get("Retry-After"):
                answer.request_meta["name"] = "shed"
                answer.success()
            else:
                answer.request_meta["name"] = "not in order"
                answer.failure(f"{answer.status_code}: {answer.text!r:.200}")


class Poller(FastHttpUser):
    """A client that polls the most recently accepted jobs."""

    fixed_count = USERS
    wait_time = constant_throughput(POLLS_PER_S / USERS)

    @task
    def poll(self) -> None:
        """Poll a job."""
        if not _accepted:
            gevent.sleep(0.1)
            return
        job_id = _accepted[-1 - next(_numbers) % min(50, len(_accepted))]
        with self.client.get(f"/v1/jobs/{job_id}", name="poll", headers=HEADERS, catch_response=True) as answer:
            if answer.status_code == 200:
                answer.success()
            else:
                answer.request_meta["name"] = "not in order"
                answer.failure(f"{answer.status_code}: {answer.text!r:.200}")
