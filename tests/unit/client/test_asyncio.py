"""What only ``AsyncClient`` promises: cancellation, tasks beside one another, and an event loop that nothing blocks."""

import asyncio
import inspect
import io
import socketserver
import threading
import time
from contextlib import closing, contextmanager, suppress

import pytest
from deepfakestream import AsyncClient, Client
from deepfakestream.drivers import BlockingDriver, complete, iterate

from tests.unit.client.services import answer, job, problem


@contextmanager
def silent_service():
    """A server that reads and never answers; yields its address and the open connections with a request."""
    connections = set()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with suppress(ConnectionError):
                while self.request.recv(65536):
                    connections.add(self)
            connections.discard(self)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", connections
        finally:
            server.shutdown()
            thread.join()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - sockets set no event
            await asyncio.sleep(0.005)


async def take_all(items):
    return [item async for item in items]


REQUESTS = {
    "get": lambda client, _: client.get("x"),
    "wait": lambda client, _: client.wait("x"),
    "list": lambda client, _: take_all(client.list()),
    "watch": lambda client, _: take_all(client.watch("x")),
    "submit": lambda client, _: client.submit(io.BytesIO(b"x" * 1_000_000)),
    "evidence": lambda client, folder: client.evidence("x", folder / "a.zip"),
    "report": lambda client, folder: client.report("x", folder / "a.pdf"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_cancelling_a_task_closes_its_connection_and_leaves_no_file(tmp_path, request_):
    async def main():
        async with AsyncClient(url, "dfs_key") as client:
            task = asyncio.create_task(request_(client, tmp_path))
            await until(lambda: connections)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The client is still open, so nothing else closes them.
            await until(lambda: not connections and len(asyncio.all_tasks()) == 1)

    with silent_service() as (url, connections):
        asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_a_pause_between_attempts_can_be_cancelled(server):
    server.answers = [problem(503, "x", **{"Retry-After": "60"})]

    async def main():
        async with AsyncClient(server.url, "dfs_key") as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.get("x")

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10
    assert len(server.requests) == 1


def test_tasks_share_a_client(server, no_pauses):  # noqa: ARG001 - it changes how the client pauses
    server.answers = [problem(503, "x"), *[answer(job())] * 8]

    async def main():
        async with AsyncClient(server.url, "dfs_key") as client:
            return await asyncio.gather(*(client.get("x") for _ in range(8)))

    assert [found.status for found in asyncio.run(main())] == ["succeeded"] * 8


class RecordingFile(io.BytesIO):
    """A file that records which threads read it."""

    def __init__(self, data):
        super().__init__(data)
        self.readers = set()

    def read(self, size=-1, /):
        self.readers.add(threading.get_ident())
        return super().read(size)


@pytest.mark.parametrize("direct", [False, True])
def test_files_are_not_read_in_the_event_loop(server, direct):
    place = {"id": "u", "method": "PUT", "url": f"{server.url}/put", "headers": {}}
    server.answers = [*([answer(place, 201), (200, {}, b"")] if direct else []), answer(job("queued"), 202)]
    file = RecordingFile(b"x" * 600_000)

    async def main():
        async with AsyncClient(server.url, "dfs_key") as client:
            await client.submit(file, direct=direct)
        return threading.get_ident()

    assert asyncio.run(main()) not in file.readers
    assert file.readers


def test_a_slow_file_holds_up_no_other_task(server):
    class SlowFile(io.BytesIO):
        def read(self, size=-1, /):
            time.sleep(0.3)
            return super().read(size)

    server.answers = [answer(job("queued"), 202)]

    async def main():
        longest_s = 0.0
        async with AsyncClient(server.url, "dfs_key") as client:
            task = asyncio.create_task(client.submit(SlowFile(b"x" * 10)))
            while not task.done():
                began = time.monotonic()
                await asyncio.sleep(0.001)
                longest_s = max(longest_s, time.monotonic() - began)
            await task
        return longest_s

    assert asyncio.run(main()) < 0.25


def test_the_blocking_client_works_inside_an_event_loop_as_in_a_notebook(server):
    server.answers = [answer({"items": [job()] * 2, "next_cursor": None}), answer(job())]

    async def main():
        with Client(server.url, "dfs_key") as client:
            with closing(client.list()) as jobs:
                next(jobs)
            return client.get("x")

    assert asyncio.run(main()).status == "succeeded"


def test_a_coroutine_that_needs_an_event_loop_is_no_endless_wait():
    with pytest.raises(RuntimeError, match="waits for an event loop"):
        complete(asyncio.sleep(0.0))


def test_an_iterator_that_is_left_early_closes_what_it_iterates_over():
    left = []

    async def numbers():
        try:
            for number in range(9):
                await BlockingDriver().sleep(0.0)
                yield number
        finally:
            left.append("closed")

    for number in (items := iterate(numbers())):
        if number == 3:
            break
    items.close()
    assert left == ["closed"]


PUBLIC = [name for name in dir(Client) if not name.startswith("_") and name not in ("close", "verify_webhook")]


@pytest.mark.parametrize("name", PUBLIC)
def test_both_clients_have_the_same_methods(name):
    blocking, awaited = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(blocking).parameters == inspect.signature(awaited).parameters
    assert blocking.__doc__ == awaited.__doc__
    assert blocking.__doc__
    assert inspect.iscoroutinefunction(awaited) or inspect.isasyncgenfunction(awaited)
    assert not inspect.iscoroutinefunction(blocking)
    assert "Async" not in str(inspect.signature(blocking))


def test_neither_client_has_methods_that_the_other_lacks():
    assert {*dir(AsyncClient)} - {*dir(Client)} == {"aclose", "__aenter__", "__aexit__"}
    assert {*dir(Client)} - {*dir(AsyncClient)} == {"close", "__enter__", "__exit__"}
