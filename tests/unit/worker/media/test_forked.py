"""Tests of forked decoders with real processes: they are confined as those that are started as programs are."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.errors import DecodeTimeoutError
from worker.media import forked
from worker.media.forked import ForkedProcess, LauncherError, Launchers, PythonDecoder
from worker.media.process import CancelToken
from worker.media.sandbox import Sandbox, sandbox

ROOT = Path(__file__).resolve().parents[4]
HEAD = "import json, os, resource, signal, socket, sys, time\ncalls = []\ndef main(path, request, output):\n"
TAIL = "\nif __name__ == '__main__':\n    sys.exit(main(sys.argv[1], json.loads(sys.argv[2]), sys.stdout.buffer))\n"

pytestmark = pytest.mark.skipif(not sandbox().dies_with_parent, reason="this system has no setpriv")
needs_namespace = pytest.mark.skipif(not sandbox().has_no_network, reason="this system allows no namespace of networks")


@pytest.fixture(autouse=True)
def launchers(monkeypatch):
    """Launchers of this test alone, which end with it."""
    own = Launchers()
    monkeypatch.setattr(forked, "launchers", own)
    yield own
    own.end()


@pytest.fixture
def decoder(tmp_path):
    """Return a function that makes a decoder from the lines of its ``main``."""

    def make(body, request=None, *, name="decoder", timeout_s=30.0, cancel_token=None):
        script = tmp_path / f"{name}.py"
        if not script.exists():
            script.write_text(HEAD + "\n".join(f"    {line}" for line in body.splitlines()) + TAIL)
        return PythonDecoder(script, tmp_path, request or {}, timeout_s=timeout_s, cancel_token=cancel_token)

    return make


def said(child):
    """Run *child* to its end; return its output."""
    with child:
        return child.stdout.read().decode().strip()


def is_forked(child):
    """Whether *child*, which was started, was forked."""
    return isinstance(child._process, ForkedProcess)


FACTS = """
status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
facts = {
    'limits': {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == 'RLIMIT_'},
    'environment': dict(os.environ),
    'status': {name: status[name] for name in ('NoNewPrivs', 'Seccomp', 'Umask')},
    'rights': {name: status[name] for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')},
    'descriptors': [number for number in range(256) if os.path.exists(f'/proc/self/fd/{number}')],
    'input': os.readlink('/proc/self/fd/0'),
    'leads_its_group': os.getpgid(0) == os.getpid(),
    'interfaces': sorted(name for _, name in socket.if_nameindex()),
    'isolated': [sys.flags.isolated, sys.flags.dont_write_bytecode],
    'folder': os.getcwd(),
    'request': request,
}
output.write(json.dumps(facts).encode())
return 0
"""


def test_a_forked_decoder_has_the_limits_of_one_that_is_a_program(decoder, launchers, monkeypatch):
    with decoder(FACTS, {"number": 1}) as child:
        assert is_forked(child)
        of_forked = json.loads(child.stdout.read())
    monkeypatch.setattr(launchers, "find", lambda _script: None)
    with decoder(FACTS, {"number": 1}) as child:
        assert not is_forked(child)
        of_program = json.loads(child.stdout.read())
    rights, of_others = of_forked.pop("rights"), of_program.pop("rights")
    assert all(int(rights[name], 16) & ~int(of_others[name], 16) == 0 for name in rights)
    if sandbox().has_no_network:
        assert {int(value, 16) for value in rights.values()} == {0}
    assert of_forked == of_program
    assert of_forked["status"]["NoNewPrivs"] == "1"
    assert of_forked["descriptors"] == [0, 1, 2]
    assert of_forked["limits"]["RLIMIT_FSIZE"] == [0, 0]


@needs_namespace
def test_each_forked_decoder_has_namespaces_of_its_own(decoder):
    body = "output.write(str([os.readlink(f'/proc/self/ns/{kind}') for kind in ('user', 'net')]).encode())\nreturn 0"
    here = str([str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("user", "net")])
    assert len({said(decoder(body)), said(decoder(body)), here}) == 3


@needs_namespace
def test_a_forked_decoder_has_no_network(decoder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        body = f"socket.create_connection(('127.0.0.1', {port}), 5)\noutput.write(b'reached')\nreturn 0"
        socket.create_connection(("127.0.0.1", port), 5).close()
        assert said(decoder(body)) == ""


@needs_namespace
def test_a_forked_decoder_cannot_read_the_launcher_another_decoder_or_the_worker(decoder):
    body = """
if request.get('waits'):
    output.write(b'ready')
    output.flush()
    time.sleep(60)
found = []
for pid in request['pids'] + [os.getppid()]:
    try:
        open(f'/proc/{pid}/mem', 'rb').close()
    except OSError as error:
        found.append(type(error).__name__)
    else:
        found.append('opened')
output.write(json.dumps(found).encode())
return 0
"""
    with decoder(body, {"waits": True}) as other:
        assert other.stdout.read(5) == b"ready"
        found = json.loads(said(decoder(body, {"pids": [other._process.pid, os.getpid()]})))
    assert found == ["PermissionError"] * 3


def test_a_forked_decoder_writes_no_file(decoder, tmp_path):
    path = tmp_path / "file"
    body = f"file = open({str(path)!r}, 'w'); file.write('x' * 10); file.flush(); output.write(b'written')\nreturn 0"
    assert said(decoder(body)) == ""
    assert not path.exists() or path.stat().st_size == 0


def test_the_memory_of_a_forked_decoder_is_limited(decoder):
    assert said(decoder("bytearray(5 * 1024**3)\noutput.write(b'allocated')\nreturn 0")) == ""


def test_what_a_decoder_does_reaches_no_later_one(decoder):
    body = "calls.append(request)\nsys.modules['json'].seen = path\noutput.write(str(len(calls)).encode())\nreturn 0"
    assert [said(decoder(body)) for _ in range(3)] == ["1", "1", "1"]


def test_the_launcher_learns_no_request(decoder):
    """The request, and the path in it, are read by the child alone: a later one cannot find them in its memory."""
    with decoder("output.write(request['word'].encode())\nreturn 0", {"word": "sesame-open"}) as child:
        assert child.stdout.read() == b"sesame-open"
        launcher = int(Path(f"/proc/{child._process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert not holds(launcher, b"sesame-open")
    assert holds(os.getpid(), b"sesame-open")


def holds(pid, word):
    """Whether the writable memory of the process *pid* holds *word*; most of it must be readable."""
    wanted = read = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            begin, end = (int(number, 16) for number in place.split("-"))
            if rights.startswith("rw") and end - begin < 256 * 1024**2:
                wanted += end - begin
                # What another thread has given back meanwhile cannot be read.
                with contextlib.suppress(OSError):
                    memory.seek(begin)
                    found = memory.read(end - begin)
                    read += len(found)
                    if word in found:
                        return True
    assert read > 0.9 * wanted
    return False


def test_its_group_is_killed_at_the_end(decoder):
    body = "print(os.fork(), flush=True)\ntime.sleep(100)\nreturn 0"
    with decoder(body) as child:
        pid = max(int(child.stdout.readline()), int(child.stdout.readline()))
        os.kill(pid, 0)
    wait_for_end(pid)


def test_a_forked_decoder_is_killed_at_its_limit(decoder, launchers):
    with decoder("time.sleep(100)\nreturn 0", timeout_s=0.2) as child, pytest.raises(DecodeTimeoutError):
        child.wait()
    assert launchers._by_script == {}


def test_a_forked_decoder_that_leaves_its_group_is_killed_at_its_limit(decoder):
    body = "os.setpgid(0, os.getppid())\nprint('gone', flush=True)\ntime.sleep(60)\nreturn 0"
    began = time.monotonic()
    with decoder(body, timeout_s=1.0) as child, pytest.raises(DecodeTimeoutError):
        child.wait()
    # Neither the worker nor the launcher waits for it.
    assert time.monotonic() - began < 20
    assert said(decoder("output.write(b'here')\nreturn 0", name="other")) == "here"


def test_a_launcher_that_cannot_be_started_now_is_started_for_a_later_file(decoder, monkeypatch):
    real = forked.subprocess.Popen

    def fail(*_, **__):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(forked.subprocess, "Popen", fail)
    assert forked.launchers.find(Path("script.py")) is None
    monkeypatch.setattr(forked.subprocess, "Popen", real)
    child = decoder("output.write(b'here')\nreturn 0")
    with child:
        assert is_forked(child)


def test_a_forked_decoder_can_be_cancelled(decoder):
    token = CancelToken()
    token.cancel()
    with decoder("time.sleep(100)\nreturn 0", cancel_token=token) as child:
        assert is_forked(child)
        assert child.wait() == -9


@pytest.mark.parametrize(
    ("body", "status", "is_kept"),
    [
        ("return 0", 0, True),
        ("return 3", 3, True),
        ("raise OSError('a sentence')", 1, False),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -11, False),
    ],
    ids=["decoded", "refused", "raised", "crashed"],
)
def test_a_launcher_is_replaced_after_a_crash(decoder, launchers, body, status, is_kept):
    with decoder(body) as child:
        assert is_forked(child)
        assert child.wait() == status
    assert bool(launchers._by_script) == is_kept


def test_a_launcher_is_replaced_after_a_number_of_children(decoder, monkeypatch):
    monkeypatch.setattr(forked, "MAX_CHILDREN", 2)
    parents = [said(decoder("output.write(str(os.getppid()).encode())\nreturn 0")) for _ in range(4)]
    assert [parents.index(parent) for parent in parents] == [0, 0, 2, 2]
    wait_for_end(int(parents[0]))


def test_a_decoder_ends_with_its_launcher_and_the_next_file_gets_another(decoder):
    body = "output.write(str(os.getppid()).encode() + b'\\n')\noutput.flush()\ntime.sleep(request['s'])\nreturn 0"
    with decoder(body, {"s": 100}) as child:
        launcher = int(child.stdout.readline())
        os.kill(launcher, 9)
        assert child.wait() == -9
    assert int(said(decoder(body, {"s": 0}))) != launcher


def test_a_launcher_that_was_killed_between_two_files_is_replaced(decoder):
    body = "output.write(str(os.getppid()).encode())\nreturn 0"
    launcher = int(said(decoder(body)))
    os.kill(launcher, 9)
    wait_for_end(launcher)
    with decoder(body) as child:
        assert is_forked(child)


def test_decoder_and_launcher_end_with_a_worker_that_is_killed(tmp_path):
    script = tmp_path / "decoder.py"
    script.write_text(f"{HEAD}    print(os.getppid(), os.getpid(), flush=True)\n    time.sleep(100)\n")
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from worker.media.forked import PythonDecoder\n"
        "with PythonDecoder(Path(sys.argv[1]), Path('file'), {}, timeout_s=100) as child:\n"
        "    print(child.stdout.readline().decode(), flush=True)\n"
        "    time.sleep(100)\n"
    )
    command = [sys.executable, "-c", program, str(script)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        pids = [int(word) for word in worker.stdout.readline().split()]
        for pid in pids:
            os.kill(pid, 0)
        worker.kill()
    for pid in pids:
        wait_for_end(pid)


def wait_for_end(pid):
    """Wait until the process *pid* has ended; a zombie has."""
    deadline = time.monotonic() + 60
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_decoders_of_many_threads_get_their_own_answers(decoder):
    from concurrent.futures import ThreadPoolExecutor

    body = "output.write(str(request['number']).encode())\nreturn 0"
    decoder(body)  # Writes the script.
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: said(decoder(body, {"number": number})), range(12)))
    assert answers == [str(number) for number in range(12)]


def test_without_the_sandbox_a_decoder_is_started_as_a_program(decoder, monkeypatch):
    monkeypatch.setattr(forked, "sandbox", Sandbox)
    with decoder("output.write(b'decoded')\nreturn 0") as child:
        assert not is_forked(child)
        assert child.stdout.read() == b"decoded"


@pytest.mark.parametrize(
    "head",
    ["import threading, time\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n", "1 / 0\n"],
    ids=["with-threads", "broken"],
)
def test_a_script_that_cannot_be_forked_has_no_launcher(tmp_path, head):
    script = tmp_path / "decoder.py"
    script.write_text(head + HEAD + "    return 0\n")
    with pytest.raises(LauncherError):
        forked.Launcher(script)
