"""The chart renders to valid, restricted objects that agree with the code."""

import json
import re
import subprocess

import pytest
import yaml
from sqlalchemy import text

from api.app import VERSION
from api.config import APISettings
from migrations import __main__ as migrations_main
from shared.config import load_settings
from shared.jobs.leases import Step, acquire
from shared.jobs.results import record_plan
from tests.helm.conftest import CHART, EXAMPLES, helm
from tests.helm.settings import config_schema
from tests.integration.rows import add_job
from tests.tools import KUBERNETES_NEWEST, KUBERNETES_OLDEST, schemas, tool
from worker.config import WorkerSettings

CD = CHART.parents[1] / ".github" / "workflows" / "cd.yml"
NAMES = [path.stem for path in EXAMPLES]
LONG_RUNNING = {"api", "gpu-worker", "cpu-worker", "stream-worker", "beat"}


@pytest.mark.parametrize("name", NAMES)
def test_lint_finds_nothing(name):
    done = helm("lint", "--strict", CHART, "--values", CHART / "examples" / f"{name}.yaml")
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def validate(file, version):
    """Run kubectl-validate on a file of objects."""
    crds = [f"--local-crds={schemas(name)}" for name in ("keda", "gateway", "prometheus-operator")]
    of_version = {
        KUBERNETES_OLDEST: ["--version", KUBERNETES_OLDEST],
        KUBERNETES_NEWEST: [f"--local-schemas={schemas('kubernetes')}"],
    }[version]
    command = [tool("kubectl-validate"), *of_version, *crds, "--output", "json", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", [KUBERNETES_OLDEST, KUBERNETES_NEWEST])
@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_one_that_kubernetes_knows(render, tmp_path, name, version):
    file = tmp_path / "objects.yaml"
    file.write_text(render(name).text)
    done = validate(file, version)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", [KUBERNETES_OLDEST, KUBERNETES_NEWEST])
@pytest.mark.parametrize(
    "change",
    [
        ("replicas: 2", "replicas: two"),
        ("containerPort: 8000", "containerPorts: 8000"),
        ("pollingInterval: 15", "pollingInterval: often"),
    ],
)
def test_an_invalid_object_is_refused(render, tmp_path, change, version):
    rendered = render("full", "api.autoscaling.enabled=false").text
    assert change[0] in rendered
    file = tmp_path / "objects.yaml"
    file.write_text(rendered.replace(*change, 1))
    assert validate(file, version).returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_meets_the_restricted_profile(render, name):
    pods = render(name).pods()
    assert LONG_RUNNING | {"migration", "test"} <= set(pods)
    for pod in pods.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.get("hostNetwork")
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", NAMES)
def test_every_long_running_process_has_probes(render, name):
    deployments = render(name).of("Deployment")
    for component, deployment in deployments.items():
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert "livenessProbe" in container, component
        ports = {port["name"] for port in container.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container.get(probe, {}).get("httpGet")
            assert asked is None or asked["port"] in ports


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        pytest.param((), "/healthcheck", id="none"),
        pytest.param(('config.worker.flower.url_prefix="/ops/flower"',), "/ops/flower/healthcheck", id="two levels"),
    ],
)
def test_flower_is_probed_below_its_prefix(render, changes, path):
    [container] = render("full", *changes).pods()["flower"]["containers"]
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {path}


def test_secrets_reach_pods_as_files_only(render):
    rendered = render("cpu-only")
    assert "change-me" in yaml.safe_dump(rendered.of("Secret"))
    others = [item for item in rendered.objects if item["kind"] != "Secret"]
    assert "change-me" not in yaml.safe_dump(others)
    for pod in rendered.pods().values():
        assert all(set(variable) == {"name", "value"} for variable in pod["containers"][0].get("env", ()))


def test_no_secret_is_created_where_an_existing_one_is_named(render):
    rendered = render("minimal")
    assert rendered.of("Secret") == {}
    assert set(secrets_of(rendered.pods()["api"])) == {"deepfakestream"}


def secrets_of(pod):
    """Name of a Secret → keys of it that the pod mounts; "?" marks an optional key."""
    found = {}
    for source in next(volume for volume in pod["volumes"] if volume["name"] == "secrets")["projected"]["sources"]:
        secret = source["secret"]
        mark = "?" if secret.get("optional") else ""
        found.setdefault(secret["name"], set()).update(item["key"] + mark for item in secret["items"])
        assert all(item["key"] == item["path"] for item in secret["items"])
    return found


def test_each_pod_gets_only_the_secrets_that_it_needs(render):
    pods = render("full").pods()
    stores = {"database__url", "broker__url"}
    storage = {"storage__access_key_id?", "storage__secret_access_key?"}
    given = {component: secrets_of(pod)["deepfakestream"] for component, pod in pods.items() if component != "test"}
    assert given == {
        "api": stores | storage | {"api__metrics_token?", "evidence__key?"},
        "gpu-worker": stores | storage,
        "cpu-worker": stores | storage,
        "stream-worker": stores | storage,
        "beat": stores,
        "flower": stores | {"worker__flower__password?"},
        "migration": stores,
    }
    # No secret of the code is forgotten.
    names = {name.rstrip("?") for keys in given.values() for name in keys}
    assert {name.replace("__", ".") for name in names} >= set(secret_settings(APISettings, WorkerSettings))


def secret_settings(*kinds):
    """Names of all secret settings, as ``section.name``."""
    for kind in kinds:
        for name, field in kind.model_fields.items():
            if "SecretStr" in str(field.annotation):
                yield name
            elif isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                yield from (f"{name}.{inner}" for inner in secret_settings(field.annotation))


@pytest.mark.parametrize("name", NAMES)
def test_every_image_is_one_that_a_release_pushes(render, name):
    matrix = yaml.safe_load(CD.read_text())["jobs"]["build"]["strategy"]["matrix"]["include"]
    pushed = {f"deepfakestream-{row['image']}:{VERSION}{row['suffix']}" for row in matrix}
    rendered = render(name)
    used = {component: pod["containers"][0]["image"].rpartition("/")[2] for component, pod in rendered.pods().items()}
    assert set(used.values()) <= pushed
    has_gpus = "nvidia.com/gpu" in rendered.pods()["gpu-worker"]["containers"][0]["resources"]["limits"]
    assert used["gpu-worker"].endswith("-cuda" if has_gpus else "-cpu")
    assert used["api"] == used["migration"]


@pytest.mark.parametrize("name", NAMES)
def test_the_cache_of_media_is_smaller_than_the_scratch_volume(render, name):
    for component in ("gpu-worker", "cpu-worker"):
        pod = render(name, 'gpuWorker.scratch="3Gi"').pods()[component]
        [variable] = [item for item in pod["containers"][0]["env"] if item["name"].endswith("CACHE_BYTES")]
        [disk] = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "scratch"]
        most = int(disk["sizeLimit"].removesuffix("Gi")) * 2**30
        assert 0.6 < int(variable["value"]) / most < 0.7
        assert variable["name"] == "DEEPFAKESTREAM_STORAGE__CACHE_BYTES"


def test_the_api_trusts_the_proxy_of_an_ingress_or_gateway(render):
    def trusted(*arguments):
        return yaml.safe_load(render(*arguments).config())["api"].get("trusted_proxies")

    assert (trusted("minimal"), trusted("full"), trusted("gateway")) == (None, 1, 1)
    assert trusted("gateway", "config.api.trusted_proxies=2") == 2


def test_an_autoscaled_deployment_sets_no_replicas(render):
    still, scaled = render("minimal").of("Deployment"), render("full").of("Deployment")
    for component in ("api", "gpu-worker"):
        assert "replicas" in still[component]["spec"]
        assert "replicas" not in scaled[component]["spec"]
    for deployments in (still, scaled):
        assert deployments["beat"]["spec"]["replicas"] == 1
        assert deployments["beat"]["spec"]["strategy"] == {"type": "Recreate"}


def test_autoscalers_target_existing_deployments(render):
    rendered = render("full")
    name = rendered.of("Deployment")["gpu-worker"]["metadata"]["name"]
    assert rendered.of("ScaledObject")["gpu-worker"]["spec"]["scaleTargetRef"]["name"] == name
    target = rendered.of("HorizontalPodAutoscaler")["api"]["spec"]["scaleTargetRef"]
    assert target["name"] == rendered.of("Deployment")["api"]["metadata"]["name"]


def test_requested_gpus_are_the_configured_devices(render):
    full = render("full")
    limits = full.pods()["gpu-worker"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 2
    assert yaml.safe_load(full.config())["worker"]["device"] == ["cuda:0", "cuda:1"]
    none = render("cpu-only")
    assert "nvidia.com/gpu" not in none.pods()["gpu-worker"]["containers"][0]["resources"]["limits"]
    assert yaml.safe_load(none.config())["worker"]["device"] == "cpu"


@pytest.mark.parametrize("name", NAMES)
def test_the_migration_runs_first_and_depends_only_on_earlier_hooks(render, name):
    rendered = render(name)

    def hook(item):
        annotations = item["metadata"].get("annotations", {})
        return annotations.get("helm.sh/hook"), int(annotations.get("helm.sh/hook-weight", 0))

    job = rendered.of("Job")["migration"]
    assert hook(job) == ("pre-install,pre-upgrade", 0)
    assert "before-hook-creation" in job["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    early = {
        (item["kind"], item["metadata"]["name"])
        for item in rendered.objects
        if hook(item) == ("pre-install,pre-upgrade", -10)
    }
    pod = rendered.pods()["migration"]
    [config] = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert ("ConfigMap", config) in early
    assert ("NetworkPolicy", rendered.of("NetworkPolicy")["migration"]["metadata"]["name"]) in early
    [secret] = secrets_of(pod)
    assert (("Secret", secret) in early) == (name == "cpu-only")
    assert pod["serviceAccountName"] == "default"
    assert rendered.of("ConfigMap")["migration"]["data"] == rendered.of("ConfigMap")["config"]["data"]


def egress(policy):
    """(peers, ports) of each rule."""
    return [
        ({json.dumps(peer, sort_keys=True) for peer in rule["to"]}, {port["port"] for port in rule["ports"]})
        for rule in policy["spec"]["egress"]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_only_workers_that_fetch_reach_the_internet_and_only_public_addresses(render, name):
    rendered = render(name)
    policies = rendered.of("NetworkPolicy")
    assert set(rendered.pods()) - {"test"} == set(policies)
    for component, policy in policies.items():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        pod_labels = rendered.of("Job" if component == "migration" else "Deployment")[component]
        labels = pod_labels["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        anywhere = [peers for peers, _ in egress(policy) if any('"0.0.0.0/0"' in peer for peer in peers)]
        assert len(anywhere) == (component in ("cpu-worker", "stream-worker"))
        for peers, ports in egress(policy):
            assert peers
            assert ports
    for component in ("cpu-worker", "stream-worker"):
        [public] = [peers for peers, _ in egress(policies[component]) if any('"0.0.0.0/0"' in peer for peer in peers)]
        for private in (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "100.64.0.0/10",
            "127.0.0.0/8",
        ):
            assert any(private in peer for peer in public)
    assert {port for _, ports in egress(policies["beat"]) for port in ports} == {53, 6379}


@pytest.mark.parametrize("name", NAMES)
def test_the_network_policy_lets_the_helm_test_call_the_api(render, name):
    rendered = render(name)
    labels = rendered.of("Pod")["test"]["metadata"]["labels"]
    peers = [peer for rule in rendered.of("NetworkPolicy")["api"]["spec"]["ingress"] for peer in rule["from"]]
    # A peer without a namespace selector is of the release's own namespace.
    own = [peer["podSelector"]["matchLabels"] for peer in peers if set(peer) == {"podSelector"}]
    assert any(wanted.items() <= labels.items() for wanted in own)


def test_only_monitoring_may_connect_to_workers(render):
    minimal, full = render("minimal").of("NetworkPolicy"), render("full").of("NetworkPolicy")
    for component in ("gpu-worker", "cpu-worker", "stream-worker", "beat"):
        assert not minimal[component]["spec"]["ingress"]
    # Flower is reached by forwarding a port, which no policy holds up.
    assert not full["flower"]["spec"]["ingress"]
    [rule] = full["gpu-worker"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": "metrics"}]


def test_publishers_reach_the_port_that_readers_listen_at_and_nothing_else(render, tmp_path, monkeypatch):
    assert "stream-worker" not in render("minimal").of("Service")
    full = render("full")
    service = full.of("Service")["stream-worker"]["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    labels = full.of("Deployment")["stream-worker"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    [port] = service["ports"]
    pod = full.pods()["stream-worker"]
    ports = {one["name"]: one["containerPort"] for one in pod["containers"][0]["ports"]}
    push, *_ = full.of("NetworkPolicy")["stream-worker"]["spec"]["ingress"]
    assert push == {"ports": [{"port": port["targetPort"]}]}
    file = tmp_path / "config.yaml"
    file.write_text(full.config())
    for name in ("DATABASE__URL", "BROKER__URL"):
        monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", "x://")
    monkeypatch.setenv("DEEPFAKESTREAM_CONFIG", str(file))
    streams = load_settings(WorkerSettings).streams
    assert streams.push_endpoint == ("0.0.0.0", ports[port["targetPort"]])  # noqa: S104 - within a pod
    assert streams.push_address == "rtmps://live.deepfakes.example:1935"
    [mount] = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "push-tls"]
    [volume] = [one["secret"]["secretName"] for one in pod["volumes"] if one["name"] == "push-tls"]
    assert volume == "live-deepfakes-example-tls"
    assert str(streams.push_certificate_file) == f"{mount['mountPath']}/tls.crt"
    assert str(streams.push_certificate_key_file) == f"{mount['mountPath']}/tls.key"


def test_who_may_publish_can_be_limited(render):
    peers = [{"ipBlock": {"cidr": "198.51.100.0/24"}}]
    found = render("full", f"networkPolicy.push.from={json.dumps(peers)}")
    assert found.of("NetworkPolicy")["stream-worker"]["spec"]["ingress"][0]["from"] == peers


@pytest.mark.parametrize("name", ["full", "gateway"])
def test_probes_and_metrics_are_not_reachable_from_outside(render, name):
    rendered = render(name)
    paths = re.findall(
        r"(?:path|value): (/\S*)",
        yaml.safe_dump([item["spec"] for item in rendered.objects if item["kind"] in ("Ingress", "HTTPRoute")]),
    )
    assert sorted(paths) == ["/docs", "/openapi.json", "/swagger", "/v1"]


def configured(rendered, monkeypatch, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(rendered.config())
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "database__url").write_text("postgresql+psycopg://x/y")
    (folder / "broker__url").write_text("redis://x")
    monkeypatch.setenv("DEEPFAKESTREAM_CONFIG", str(file))
    monkeypatch.setenv("DEEPFAKESTREAM_SECRETS", str(folder))
    return load_settings(APISettings), load_settings(WorkerSettings)


@pytest.mark.parametrize("name", NAMES)
def test_the_services_accept_the_configuration(render, monkeypatch, tmp_path, name):
    rendered = render(name)
    api, worker = configured(rendered, monkeypatch, tmp_path)
    pods = rendered.pods()

    def port(component):
        return pods[component]["containers"][0]["ports"][0]["containerPort"]

    assert (api.api.host, api.api.port) == ("0.0.0.0", port("api"))  # noqa: S104 - in its own network namespace
    assert (worker.worker.metrics_address, worker.worker.metrics_port) == ("0.0.0.0", port("gpu-worker"))  # noqa: S104
    assert port("cpu-worker") == worker.worker.metrics_port
    if "flower" in pods:
        assert port("flower") == worker.worker.flower.port
    assert worker.storage.is_s3
    mounted = {mount["mountPath"] for mount in pods["beat"]["containers"][0]["volumeMounts"]}
    assert str(worker.worker.beat_folder) in mounted
    for component in ("gpu-worker", "cpu-worker"):
        mounted = {mount["mountPath"] for mount in pods[component]["containers"][0]["volumeMounts"]}
        assert str(worker.storage.cache_dir) in mounted


@pytest.mark.parametrize(
    "changes", [(), ("config.worker.score_time_limit_s=177.5", "config.worker.ingest_time_limit_s=111")]
)
def test_the_grace_period_of_a_worker_covers_its_time_limits(render, monkeypatch, tmp_path, changes):
    rendered = render("minimal", *changes)
    api, worker = configured(rendered, monkeypatch, tmp_path)
    limits = {"gpu-worker": worker.worker.score_time_limit_s, "cpu-worker": worker.worker.ingest_time_limit_s}
    for component, limit_s in limits.items():
        pod = rendered.pods()[component]
        variables = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}
        grace_s = float(variables["DEEPFAKESTREAM_WORKER__SHUTDOWN_GRACE_S"])
        assert limit_s <= grace_s < pod["terminationGracePeriodSeconds"]
    assert rendered.pods()["api"]["terminationGracePeriodSeconds"] > api.api.shutdown_grace_s + 5


def test_containers_run_the_expected_commands(render):
    commands = {component: pod["containers"][0]["command"] for component, pod in render("full").pods().items()}
    assert commands.pop("test")[0] == "python"
    assert commands == {
        "api": ["gunicorn", "-c", "python:api.gunicorn"],
        "gpu-worker": ["python", "-m", "worker", "--role", "gpu"],
        "cpu-worker": ["python", "-m", "worker", "--role", "cpu"],
        "stream-worker": ["python", "-m", "worker", "--role", "stream"],
        "beat": ["python", "-m", "worker", "beat"],
        "flower": ["python", "-m", "worker", "flower"],
        "migration": ["python", "-m", "migrations", "upgrade"],
    }
    assert "upgrade" in (migrations_main.__doc__ or "")


def test_the_scaler_counts_waiting_and_running_segments(render, sessions):
    trigger = render("full").of("ScaledObject")["gpu-worker"]["spec"]["triggers"][0]["metadata"]

    def count():
        with sessions.transaction() as session:
            return session.scalar(text(trigger["query"]))

    before = count()
    with sessions.transaction() as session:
        job_id = add_job(session).id
    assert count() == before + 1
    with sessions.transaction() as session:
        held = acquire(session, Step.INGEST, (job_id,), 30, max_attempts=9)
        record_plan(session, held, {}, [(0, 0.0, 5.0), (1, 5.0, 9.0)])
    assert count() == before + 2
    with sessions.transaction() as session:
        assert acquire(session, Step.SCORE, (job_id, 0), 30, max_attempts=9)
    assert count() == before + 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('storage.url="file:///data"', "storage"),
        ("streamWorker.push.enabled=true", "streamWorker.push.address is required"),
        ('streamWorker.push={"enabled":true,"address":"rtmps://live.example"}', "streamWorker.push.tlsSecret"),
        ('streamWorker.push={"enabled":true,"address":"rtmp://live.example/live"}', "push"),
        ('storage.url=""', "storage"),
        ('secrets={"existingSecret": "", "create": {}}', "database__url"),
        ("gpuWorkers=1", "gpuWorkers"),
        ('config.storage={"url": "s3://x"}', "storage"),
        ("config.storage.upload_valid_s=600", None),
        ("config.worker.score_limit_s=100", "score_limit_s"),
        ("config.worker.score_time_limit_s=0", "score_time_limit_s"),
        ('config.worker.flower.user="me"', None),
        ('config.database={"url": "postgresql+psycopg://u:p@h/d"}', "url"),
        ("gateway.enabled=true", "parentRefs"),
        ('gpuWorker.scratch="500Mi"', "scratch"),
        ("networkPolicy.s3.to=[]", "networkPolicy.s3.to"),
        ("api.replicas=0", "replicas"),
        ("ingress.enabled=true", None),
        ("flower.enabled=true", None),
    ],
)
def test_invalid_values_are_refused(change, said):
    values = CHART / "examples" / "minimal.yaml"
    done = helm("template", "release", CHART, "--kube-version", "1.27", "--values", values, f"--set-json={change}")
    if said is None:
        assert done.returncode == 0
    else:
        assert done.returncode != 0
        assert said in done.stderr


def test_the_schema_knows_every_setting_of_the_services():
    """``python -m tests.helm.settings`` updates the schema."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"]["config"] == config_schema()


def test_every_value_is_in_the_schema():
    """A value that is missing in the schema would be refused."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def missing(value, part, path):
        if isinstance(value, dict) and "properties" in part:
            for name, inner in value.items():
                if name not in part["properties"]:
                    yield f"{path}.{name}"
                else:
                    yield from missing(inner, part["properties"][name], f"{path}.{name}")

    assert list(missing(values, schema, "")) == []
