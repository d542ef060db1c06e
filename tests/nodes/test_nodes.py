"""The service on several machines, which only share Postgres, Redis and S3."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from deepfakestream import Client, Submission

from tests.clips import noise_picture
from tests.inside import services_of
from tests.nodes.cluster import Cluster
from tests.nodes.network import Network
from tests.servers import state_folder
from tests.tools import tool


@pytest.fixture(scope="module")
def cluster():
    tool("weed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PROCESSES_PER_DEVICE": "1", "THREADS_PER_PROCESS": "1"}.items():
            patch.setenv(f"DEEPFAKESTREAM_WORKER__{name}", value)
        with state_folder() as state, Cluster(state) as cluster:
            yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster.url, cluster.api_key_file.read_text().strip()) as connected:
        yield connected


def test_both_gpu_workers_score_segments_of_one_video(cluster, client, clip):
    jobs = []
    for number in range(4):
        # The load balancer passes each connection to the next API node.
        with Client(cluster.url, cluster.api_key_file.read_text().strip()) as another:
            jobs.append(another.submit(clip, segment_seconds=1.0, metadata={"number": number}))
    ended = [client.wait(job.id, timeout_s=120) for job in jobs]
    assert {job.status for job in ended} == {"succeeded"}
    assert len({job.fake_score for job in ended}) == 1
    for name in ("worker-gpu-1", "worker-gpu-2"):
        log = (cluster.state / "logs" / f"{name}.log").read_text()
        assert sum('"event": "scored"' in line for line in log.splitlines()) > 0, name
    for name in ("api-1", "api-2"):
        assert '"event": "request"' in (cluster.state / "logs" / f"{name}.log").read_text(), name


def test_a_direct_upload_goes_to_storage(client, clip):
    job = client.wait(client.submit(clip, direct=True).id, timeout_s=120)
    assert (job.status, job.verdict) == ("succeeded", client.wait(client.submit(clip).id).verdict)


def test_files_are_uploaded_for_a_batch(cluster, client, clip, tmp_path):
    batch = client.submit_batch([clip, client.upload(noise_picture()), Submission(b"text", metadata={"case": 7})])
    ended = client.wait_for_batch(batch.id, timeout_s=120)
    assert [item.error.code for item in ended.items if item.error] == ["not_media"]
    assert (ended.counts.succeeded, ended.items[0].verdict) == (2, client.wait(client.submit(clip).id).verdict)
    (tmp_path / "a.jpg").write_bytes(noise_picture())
    key = cluster.api_key_file.read_text().strip()
    command = [str(Path(sys.executable).with_name("deepfakestream")), "--url", cluster.url, "--api-key", key]
    command += ["batch", "submit", "--json", str(tmp_path), str(clip)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(each["file"]).name for each in documents] == ["a.jpg", clip.name]
    assert documents[1]["job"]["verdict"] == ended.items[0].verdict


def test_nodes_share_no_folder(cluster):
    folders = [service._folder for service in services_of(cluster) if service.name in cluster.nodes]
    assert len(set(folders)) == len(cluster.nodes) == 6
    assert not any((cluster.state / "storage").iterdir())


@pytest.mark.nightly
def test_nothing_is_lost_while_machines_are_killed_and_cut_off(tmp_path):
    tool("weed")
    command = [sys.executable, "-m", "tests.faults", "--nodes", "--minutes", "0.5", "--seed", "3"]
    command += ["--every", "2.5", "--away", "4", "--logs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["accepted"] == report["ended"] > 5
    assert len(report["nodes"]) == 6
    assert sum(report["faults"].values()) > 4


def test_a_disconnected_node_reaches_nothing():
    network = Network()
    if not network.has_namespaces:
        pytest.skip("no network namespaces may be made here")
    try:
        node = network.add_node()
        script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))"

        def reaches(port, timeout_s=20.0):
            # A link that has just come up takes a while on a busy machine.
            command = [*node.prefix, sys.executable, "-c", script, network.address, str(port), str(timeout_s)]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

        with socket.create_server((network.address, 0)) as listener:
            port = listener.getsockname()[1]
            assert reaches(port)
            node.cut_off()
            assert not reaches(port, timeout_s=2.0)
            node.join()
            assert reaches(port)
    finally:
        network.close()
