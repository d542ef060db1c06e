"""The command that serves Flower, against a real Redis."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "worker", "flower"]


def environment_of(password, url, port):
    settings = {
        "DATABASE__URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
        "BROKER__URL": url,
        "STORAGE__URL": "file:///nonexistent",
        "WORKER__FLOWER__PORT": str(port),
        "WORKER__FLOWER__PASSWORD": password,
        "WORKER__FLOWER__URL_PREFIX": "/ops/flower",
    }
    return {**os.environ, **{f"DEEPFAKESTREAM_{name}": value for name, value in settings.items()}}


@pytest.fixture(scope="module")
def flower(redis_server):
    port = free_port()
    environment = environment_of("open sesame", redis_server.url, port)
    with subprocess.Popen(COMMAND, cwd=ROOT, env=environment) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        client.get("/ops/flower/healthcheck")
                        break
                    except httpx.TransportError:
                        assert time.monotonic() < deadline
                        time.sleep(0.1)
                yield client
        finally:
            process.terminate()


@pytest.mark.parametrize(
    "path",
    ["/", "/ops/flower/", "/ops/flower/metrics", "/ops/flower/static/css/flower.css", "/healthcheck", "/none", "//"],
)
@pytest.mark.parametrize("auth", [None, ("operator", "wrong"), ("operator", "öffne dich")])
def test_every_path_asks_for_the_password(flower, path, auth):
    answer = flower.get(path, auth=auth)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="flower"')


def test_the_page_is_below_the_prefix(flower):
    page = flower.get("/ops/flower/", auth=("operator", "open sesame"))
    assert page.status_code == 200
    assert "/ops/flower/static/" in page.text


def test_the_health_check_alone_is_open(flower):
    answer = flower.get("/ops/flower/healthcheck")
    assert (answer.status_code, answer.text) == (200, "OK")


@pytest.mark.parametrize(
    ("user", "password", "named"),
    [
        pytest.param("operator", "", "password", id="empty"),
        pytest.param("operator", "one,two", "password", id="comma"),
        pytest.param("operator", "öffne dich", "password", id="umlaut"),
        pytest.param("a,b", "open sesame", "user", id="comma in the user"),
        pytest.param("a:b", "open sesame", "user", id="colon in the user"),
    ],
)
def test_a_login_that_flower_cannot_check_is_refused(user, password, named):
    environment = environment_of(password, "redis://127.0.0.1:1/0", free_port())
    environment["DEEPFAKESTREAM_WORKER__FLOWER__USER"] = user
    ended = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"worker.flower.{named} ")
