"""The embedded stack before anything of it runs: its folder, its lock and its ports."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from deepfakestream.embedded_state import announce_stack

from api.embedded import ports
from api.embedded import stack as stack_module
from api.embedded.errors import StackError
from api.embedded.processes import Service
from api.embedded.servers import Postgres, Redis
from api.embedded.stack import EmbeddedStack
from tests.unit.client.services import running_state


@pytest.fixture
def taken():
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("option", "service"),
    [
        pytest.param("--port", "the api", id="api"),
        pytest.param("--flower-port", "Flower", id="flower"),
        pytest.param("--push-port", "publishers", id="publishers"),
    ],
)
def test_a_port_that_is_taken_is_reported_before_anything_starts(command, tmp_path, taken, option, service):
    done = command("--state", tmp_path / "state", "up", option, taken)
    assert done.exit_code == 1
    assert done.output.strip().count("\n") == 0, "one sentence, and no step before it"
    assert f"port {taken}, for {service}, is taken" in done.output
    assert f"choose another one with {option}" in done.output


def test_a_stack_starts_beside_other_stacks(command, tmp_path, taken):
    """Commands that work on a running stack have to be told which of several; a command that starts one has not."""
    with (
        running_state(tmp_path / "a", "http://127.0.0.1:9") as first,
        running_state(tmp_path / "b", "http://127.0.0.1:9") as second,
        announce_stack(first),
        announce_stack(second),
    ):
        assert "choose one with --state" in command("keys", "list").output
        done = command("up", "--port", taken)
    assert f"port {taken}, for the api, is taken" in done.output


def test_api_and_flower_need_different_ports(command, tmp_path):
    done = command("--state", tmp_path / "state", "up", "--port", 5999, "--flower-port", 5999)
    assert done.exit_code == 1
    assert "port 5999 is given to both" in done.output


def test_default_ports_are_free_and_differ(taken, monkeypatch):
    first = ports.find_free_port()
    for name in ("API_PORT", "FLOWER_PORT"):
        monkeypatch.setattr(ports, name, first)
    for given in ((None, None), (first, None), (None, first)):
        port, flower_port = ports.choose_ports(*given)
        assert first in (port, flower_port)
        assert port != flower_port
    assert ports.find_free_port(start=taken) != taken


class BesideAnother(EmbeddedStack):
    """A stack of one small server, in whose way another program comes once the ports are chosen."""

    def __init__(self, state, *, name="api", times=1, **given):
        super().__init__(state, **given)
        self.name, self.times, self.tried = name, times, []
        for answer in ("readyz", "healthcheck"):
            state.mkdir(exist_ok=True)
            (state / answer).write_text("ok")
        (state / "logs").mkdir()
        self.others = ExitStack()

    def _add_services(self, environment, port, flower_port):
        wanted = {"api": port, "flower": flower_port}
        self.tried.append(wanted[self.name])
        if len(self.tried) <= self.times:
            other = HTTPServer(("127.0.0.1", wanted[self.name]), BaseHTTPRequestHandler)
            threading.Thread(target=other.serve_forever, daemon=True).start()
            self.others.callback(other.server_close)
            self.others.callback(other.shutdown)
        for name, its_port in wanted.items():
            command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(its_port)]
            self._add(name, command, environment, port=its_port)

    def start(self):
        with self.others:
            self._listen(dict(os.environ))
            self.others.pop_all().close()

    def stop(self):
        for service in self._services:
            service.stop()


@pytest.mark.parametrize("name", ["api", "flower"])
def test_a_port_taken_during_the_start_is_replaced(tmp_path, name):
    said = []
    stack = BesideAnother(tmp_path / "state", name=name, say=said.append)
    try:
        stack.start()
        assert len(stack.tried) == 2
        assert stack.tried[0] != stack.tried[1]
        assert str(stack.tried[1]) in {"api": stack.url, "flower": stack.flower_url}[name]
        assert [service.name for service in stack._services] == ["api", "flower"]
        assert any(f"port {stack.tried[0]}" in line and "another one" in line for line in said)
    finally:
        stack.stop()


@pytest.mark.parametrize(
    ("name", "option"), [("api", "--port"), ("flower", "--flower-port")], ids=["of the api", "of Flower"]
)
def test_a_port_taken_repeatedly_is_an_error_that_names_its_option(tmp_path, name, option, monkeypatch):
    monkeypatch.setattr(stack_module, "MAX_PORT_ATTEMPTS", 2)
    stack = BesideAnother(tmp_path / "state", name=name, times=2)
    try:
        with pytest.raises(StackError) as raised:
            stack.start()
    finally:
        stack.stop()
    assert "\n" not in str(raised.value)
    assert f"port {stack.tried[-1]}, for " in str(raised.value)
    assert f"up {option}'" in str(raised.value)


def test_a_given_port_taken_during_the_start_is_an_error_that_names_its_option(tmp_path):
    given = ports.find_free_port()
    stack = BesideAnother(tmp_path / "state", port=given)
    try:
        with pytest.raises(StackError, match=f"^port {given}, for the api, is taken: choose another one with --port"):
            stack.start()
    finally:
        stack.stop()


def test_log_lines_of_an_earlier_start_are_not_quoted(tmp_path):
    log = tmp_path / "log"
    log.write_text("Address already in use\n")
    service = Service("one", ["/bin/echo", "now"], environment={}, folder=tmp_path, log=log)
    service.start().wait()
    assert service.last_lines() == "now"


def test_the_message_of_gunicorn_for_a_taken_port_is_recognised(tmp_path, taken):
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{taken}", "--no-control-socket", "none:none"]
    service = Service("api", command, environment=dict(os.environ), folder=tmp_path, log=tmp_path / "log", port=taken)
    service.start()
    try:
        until = time.monotonic() + 20
        while not ports.reports_port_in_use(service.last_lines()) and time.monotonic() < until:
            time.sleep(0.05)
        assert ports.reports_port_in_use(service.last_lines())
    finally:
        service.stop()


@pytest.mark.parametrize("name", ["up", "demo"])
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda folder: folder / "file", id="a file"),
        pytest.param(lambda folder: folder / "file" / "inside", id="inside a file"),
        pytest.param(lambda _: "/proc/state", id="where no folder can be made"),
        pytest.param(lambda _: "/proc", id="a folder that takes no files"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_an_unusable_state_folder_is_one_error_sentence(command, tmp_path, name, place):
    (tmp_path / "file").write_text("")
    done = command(name, DEEPFAKESTREAM_STATE=str(place(tmp_path)))
    assert done.exit_code == 1
    assert done.output.strip().count("\n") == 0
    assert "choose another folder with --state" in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("inside", ["logs", "secrets", "lock"])
def test_an_unusable_part_of_the_state_folder_is_one_error_sentence(tmp_path, inside):
    (tmp_path / "state").mkdir()
    if inside == "lock":
        (tmp_path / "state" / inside).mkdir()
    else:
        (tmp_path / "state" / inside).write_text("")
    with pytest.raises(StackError, match=f"state.*{inside}|{inside}.*state"):
        EmbeddedStack(tmp_path / "state").__enter__()


def test_missing_packages_are_one_error_sentence_before_anything_starts(command, tmp_path, monkeypatch):
    needed = {"api": ("flask",), "worker": ("no_such_package", "torch")}
    monkeypatch.setattr(stack_module, "PACKAGES_OF_EXTRAS", needed)
    done = command("--state", tmp_path / "state", "up")
    assert done.exit_code == 1
    assert done.output == (
        "Error: the embedded stack needs packages that are not installed (no_such_package):"
        " install deepfakestream-server[api,worker]\n"
    )
    assert not (tmp_path / "state").exists()


def test_a_full_disk_is_one_error_sentence(tmp_path):
    class OnAFullDisk(Postgres):
        def start(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    stack = EmbeddedStack(tmp_path)
    stack._postgres = OnAFullDisk(tmp_path / "postgres")
    with pytest.raises(StackError, match="No space left on device"):
        stack.__enter__()
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_data_of_another_postgres_version_is_one_error_sentence(tmp_path):
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("7\n")
    with pytest.raises(StackError, match="Postgres could not be started"):
        Postgres(tmp_path / "postgres").start()


def test_a_command_that_looks_for_a_stack_does_not_block_its_start(tmp_path):
    stack = EmbeddedStack(tmp_path)
    with (tmp_path / "lock").open("w") as looked:
        fcntl.flock(looked, fcntl.LOCK_SH)
        soon = threading.Timer(0.05, fcntl.flock, (looked, fcntl.LOCK_UN))
        soon.start()
        stack._take_lock()
        soon.join()
    stack._stop()


def test_the_hint_is_a_valid_command_line(tmp_path, monkeypatch):
    from api.embedded.commands import program_for_another_terminal

    program = tmp_path / "a venv" / "bin" / "deepfakestream"
    program.parent.mkdir(parents=True)
    shutil.copy("/bin/true", program)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program_for_another_terminal(tmp_path / "state", is_announced=True) == f"'{program}'"
    assert (
        program_for_another_terminal(tmp_path / "a state", is_announced=False)
        == f"'{program}' --state '{tmp_path}/a state'"
    )
    monkeypatch.setenv("PATH", str(program.parent))
    assert program_for_another_terminal(tmp_path / "state", is_announced=True) == "deepfakestream"


SIGNALLED = """
import os, signal
from api.embedded.commands import _stop_on_signals
signal.signal(signal.SIGHUP, signal.{before})
_stop_on_signals()
try:
    os.kill(os.getpid(), signal.{number})
    print("goes on")
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGHUP)
    print("stops")
"""


@pytest.mark.parametrize(
    ("before", "number", "said"),
    [("SIG_DFL", "SIGHUP", "stops"), ("SIG_IGN", "SIGHUP", "goes on")],
    ids=["terminal closed, twice", "nohup"],
)
def test_a_hangup_stops_a_stack_once_unless_it_is_ignored(before, number, said):
    code = SIGNALLED.format(before=before, number=number)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


def test_the_start_waits_for_redis_only_while_it_runs(tmp_path):
    redis = Redis(tmp_path / "redis")
    with subprocess.Popen(redis.command(), stdout=subprocess.DEVNULL) as process:
        try:
            redis.wait(process)
        finally:
            process.terminate()
    began = time.monotonic()
    with pytest.raises(StackError, match="Redis did not start"):
        redis.wait(process)
    assert time.monotonic() - began < 10
