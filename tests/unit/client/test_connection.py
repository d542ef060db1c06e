"""An API key is sent only to the address that it was made for."""

import hashlib
import json
from pathlib import Path

import pytest
from deepfakestream import embedded_state
from deepfakestream.errors import APIError, DeepfakeStreamError

from tests.receiver import running_receiver
from tests.unit.client.services import OWN_KEY, answer, job, problem, running_state

NO_JOBS = {"items": [], "next_cursor": None}


def keys_seen(server):
    return [request.headers.get("Authorization") for request in server.requests]


def place(url, method="PUT"):
    """Return the answer by which a service names the upload address of a file."""
    return {"id": "u1", "method": method, "url": url, "headers": {}}


def use_proxy(monkeypatch, receiver):
    """Make *receiver* the proxy that the environment names for every address."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, receiver.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def elsewhere():
    """Run a service to which the key of the local stack does not belong."""
    with running_receiver() as receiver:
        receiver.answers = [answer(NO_JOBS)]
        yield receiver


@pytest.fixture
def state(server, tmp_path):
    """Return the state folder of the stack on this machine, whose API is *server*."""
    server.answers = [answer(NO_JOBS)]
    with running_state(tmp_path / "state", server.url) as folder:
        yield folder


@pytest.mark.parametrize("said", ["option", "environment"])
def test_the_stacks_own_key_is_sent_to_no_other_address(command, state, elsewhere, said):
    given = ["--url", elsewhere.url] if said == "option" else []
    environment = {} if said == "option" else {"DEEPFAKESTREAM_URL": elsewhere.url}
    done = command("--state", state, *given, "jobs", **environment)
    assert elsewhere.requests == []
    assert done.exit_code == 1
    assert f"no API key is known for {elsewhere.url}" in done.output
    assert "--api-key" in done.output


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda url: url.replace("127.0.0.1", "localhost"), id="host"),
        pytest.param(lambda url: url.rsplit(":", 1)[0] + ":9", id="port"),
        pytest.param(lambda url: url.replace("http://", "https://"), id="scheme"),
    ],
)
def test_another_host_port_or_scheme_is_another_address(command, server, state, change):
    done = command("--state", state, "--url", change(server.url), "jobs")
    assert server.requests == []
    assert "no API key is known" in done.output


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/v1/.."])
def test_the_stacks_own_address_may_be_named(command, server, state, form):
    assert command("--state", state, "--url", form.format(server.url).replace("http", "HTTP"), "jobs").exit_code == 0
    assert keys_seen(server) == [f"Bearer {OWN_KEY}"]


def test_an_explicit_key_goes_where_the_user_says(command, state, elsewhere):
    elsewhere.answers *= 3
    command("--state", state, "--url", elsewhere.url, "--api-key", "dfs_a", "jobs")
    command("--state", state, "--url", elsewhere.url, "jobs", DEEPFAKESTREAM_API_KEY="dfs_b")
    command("jobs", DEEPFAKESTREAM_URL=elsewhere.url, DEEPFAKESTREAM_API_KEY="dfs_c")
    assert keys_seen(elsewhere) == ["Bearer dfs_a", "Bearer dfs_b", "Bearer dfs_c"]


def test_a_key_that_the_environment_gives_for_its_address_is_not_sent_to_another_option(command, elsewhere):
    environment = {"DEEPFAKESTREAM_URL": "https://deepfakes.example", "DEEPFAKESTREAM_API_KEY": "dfs_a"}
    done = command("--url", elsewhere.url, "jobs", **environment)
    assert elsewhere.requests == []
    assert "DEEPFAKESTREAM_API_KEY is for DEEPFAKESTREAM_URL" in done.output


def test_a_key_does_not_follow_a_redirection(server, elsewhere, connect):
    server.answers = [(302, {"Location": f"{elsewhere.url}/v1/jobs"}, b"")]
    with connect(server.url, "dfs_key") as client, pytest.raises(APIError) as raised:
        list(client.list())
    assert elsewhere.requests == []
    assert elsewhere.url in raised.value.detail


def test_storage_gets_the_file_and_no_key(server, elsewhere, tmp_path, connect):
    (tmp_path / "a.mp4").write_bytes(b"the file")
    place = {"id": "u1", "method": "PUT", "url": f"{elsewhere.url}/x?signed=1", "headers": {"Content-Length": "8"}}
    server.answers = [answer(place, 201), answer(job("queued"), 202)]
    elsewhere.answers = [problem(503, "slow_down"), (200, {}, b"")]
    with connect(server.url, "dfs_key") as client:
        client.submit(tmp_path / "a.mp4", direct=True)
    assert [(request.method, request.path, request.body) for request in elsewhere.requests] == [
        ("PUT", "/x?signed=1", b"the file")
    ] * 2
    assert keys_seen(elsewhere) == [None, None]
    assert json.loads(server.requests[1].body) == {
        "upload_id": "u1",
        "sha256": hashlib.sha256(b"the file").hexdigest(),
    }


def test_a_key_for_this_machine_passes_no_proxy(server, elsewhere, monkeypatch, connect):
    server.answers = [answer(NO_JOBS)]
    use_proxy(monkeypatch, elsewhere)
    with connect(server.url, "dfs_key") as client:
        list(client.list())
    assert elsewhere.requests == []


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff the file")
    return tmp_path / "a.jpg"


def test_storage_on_this_machine_is_reached_without_a_proxy(server, elsewhere, picture, monkeypatch, connect):
    server.answers = [answer(place(f"{server.url}/x"), 201), (200, {}, b""), answer(job("queued"), 202)]
    use_proxy(monkeypatch, elsewhere)
    with connect(server.url, "dfs_key") as client:
        client.submit(picture, direct=True)
    assert [request.method for request in server.requests] == ["POST", "PUT", "POST"]
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LOCALHOST.", "a.localhost", "127.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"],  # noqa: S104 - none is bound
)
def test_a_service_elsewhere_cannot_send_a_file_to_this_machine(server, elsewhere, picture, monkeypatch, host, connect):
    # The proxy plays the service, whose name need not exist.
    elsewhere.answers = [answer(place(f"{server.url.replace('127.0.0.1', host)}/x"), 201)]
    use_proxy(monkeypatch, elsewhere)
    with connect("http://deepfakes.example", "dfs_key", retries=0) as client, pytest.raises(APIError) as raised:
        client.submit(picture, direct=True)
    assert "a place on this machine" in raised.value.detail
    assert server.requests == []
    assert [request.path for request in elsewhere.requests] == ["http://deepfakes.example/v1/uploads"]


def test_a_service_elsewhere_may_name_storage_elsewhere(elsewhere, picture, monkeypatch, connect):
    elsewhere.answers = [answer(place("http://storage.example/x"), 201), (200, {}, b""), answer(job("queued"), 202)]
    use_proxy(monkeypatch, elsewhere)
    with connect("http://deepfakes.example", "dfs_key") as client:
        client.submit(picture, direct=True)
    assert [(request.method, request.path) for request in elsewhere.requests[1:2]] == [
        ("PUT", "http://storage.example/x")
    ]


@pytest.mark.parametrize("method", ["POST", "DELETE", "put"])
def test_a_file_is_put_and_sent_by_no_other_method(server, elsewhere, picture, method, connect):
    server.answers = [answer(place(f"{elsewhere.url}/x", method), 201)]
    with connect(server.url, "dfs_key") as client, pytest.raises(APIError, match="another method than PUT"):
        client.submit(picture, direct=True)
    assert elsewhere.requests == []


def test_the_key_of_a_stack_that_was_killed_is_not_sent_to_the_next_program_at_its_port(command, server, tmp_path):
    with running_state(tmp_path / "state", server.url):
        pass
    done = command("--state", tmp_path / "state", "jobs")
    assert server.requests == []
    assert "no service to talk to" in done.output
    assert command("--state", tmp_path / "state", "--url", server.url, "jobs").exit_code == 1
    assert server.requests == []


def test_a_state_folder_cannot_name_another_machine_or_another_file(command, elsewhere, tmp_path):
    (tmp_path / "secret").write_text("dfs_of-somebody-else")
    with running_state(tmp_path / "state", elsewhere.url) as folder:
        found = json.loads((folder / "connection.json").read_text())
        elsewhere.answers = [answer(NO_JOBS)]
        (folder / "connection.json").write_text(json.dumps(found | {"api_key_file": str(tmp_path / "secret")}))
        command("--state", folder, "jobs")
        assert keys_seen(elsewhere) == [f"Bearer {OWN_KEY}"]
        (folder / "connection.json").write_text(json.dumps(found | {"url": "http://deepfakes.example"}))
        assert "no service to talk to" in command("--state", folder, "jobs").output


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "ftp://a.example", "http://", "http://[::1", "http://a.example:99999", "http://user:pw@a.example"],
)
def test_an_invalid_service_address_is_refused_with_a_sentence(command, url, connect):
    with pytest.raises(DeepfakeStreamError):
        connect(url, "dfs_key")
    if url:
        done = command("--url", url, "--api-key", "dfs_key", "jobs")
        assert done.exit_code == 1
        assert "address of a service" in done.output
        assert "pw" not in done.output


@pytest.mark.parametrize(
    ("url", "suggested"),
    [
        ("deepfakes.example", "https://deepfakes.example"),
        ("deepfakes.example:8443/v", "https://deepfakes.example:8443/v"),
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1", "http://127.0.0.1"),
    ],
)
def test_an_address_without_a_scheme_is_refused_with_the_right_one(command, url, suggested):
    done = command("--url", url, "--api-key", "dfs_key", "jobs")
    assert done.exit_code == 1
    assert done.stderr == f"Error: {url!r} is not the address of a service: it has no scheme, write {suggested}\n"


def test_a_scheme_in_capitals_is_the_same_address(command, server):
    server.answers = [answer(NO_JOBS)]
    assert command("--url", server.url.replace("http", "HTTP"), "--api-key", "dfs_key", "jobs").exit_code == 0


@pytest.mark.parametrize("key", ["", "ключ", "dfs_a\nX-Header: b", "dfs a"])
def test_an_invalid_key_is_refused(key, connect):
    with pytest.raises(DeepfakeStreamError, match="API key"):
        connect("http://127.0.0.1:9", key)


def test_commands_find_the_stack_that_runs_by_themselves(command, state, server):
    with embedded_state.announce_stack(state) as can_be_found:
        assert can_be_found
        assert command("jobs").exit_code == 0
    assert keys_seen(server) == [f"Bearer {OWN_KEY}"]
    assert "no service to talk to" in command("jobs").output


def test_of_several_stacks_one_has_to_be_chosen(command, state, server, tmp_path):
    with (
        running_state(tmp_path / "other", "http://127.0.0.1:9") as other,
        embedded_state.announce_stack(state),
        embedded_state.announce_stack(other),
    ):
        done = command("jobs")
        assert done.exit_code == 1
        assert "--state" in done.output
        assert command("--state", state, "jobs").exit_code == 0
        assert len(server.requests) == 1


def test_files_of_killed_stacks_are_removed(state, tmp_path):
    with running_state(tmp_path / "killed", "http://127.0.0.1:9") as killed:
        left = embedded_state.announce_stack(killed)
        left.__enter__()
    with embedded_state.announce_stack(state):
        assert len(list((tmp_path / "home-state" / "deepfakestream" / "running").iterdir())) == 1


def test_a_stack_that_starts_removes_no_file_that_another_is_about_to_write(state, tmp_path, monkeypatch):
    write = Path.write_bytes

    def write_slowly(path, data):
        with path.open("wb") as file:
            # The other stack begins when the file is there, and what it is to hold is not.
            with monkeypatch.context() as patch, running_state(tmp_path / "other", "http://127.0.0.1:9") as other:
                patch.setattr(Path, "write_bytes", write)
                with embedded_state.announce_stack(other):
                    pass
            return file.write(data)

    monkeypatch.setattr(Path, "write_bytes", write_slowly)
    with embedded_state.announce_stack(state) as can_be_found:
        assert can_be_found
        assert embedded_state.running_state_folders() == [state]


def test_a_stack_runs_without_a_writable_home(state, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with embedded_state.announce_stack(state) as can_be_found:
        assert not can_be_found
