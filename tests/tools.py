"""
Programs that some tests run and the Python index does not have, built from source by Go at pinned versions.

``python -m tests.tools`` builds all of them below ``build/tools``, ``python -m tests.tools helm`` one of them. A test
skips where its program is missing; where DEEPFAKESTREAM_TOOLS_REQUIRED is set, as in CI, it fails instead.
docs/testing.md has a table of what the Python index offers in their place.
"""

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


def tool(name: str) -> Path:
    """Return the path of the program *name*; without it, skip the test, or fail it where tools are required."""
    # Here, since building needs the standard library alone: it begins before anything is installed.
    import pytest

    path = FOLDER / name
    if path.exists():
        return path
    outcome = pytest.fail if os.environ.get(REQUIRED_VARIABLE) else pytest.skip
    raise outcome.Exception(f"{name} is not installed (make tools)")


def schemas(name: str) -> Path:
    """Return the folder of the schemas *name*; without it, skip or fail as ``tool`` does."""
    return tool(f"schemas-{name}")


def install(names: list[str]) -> None:
    """Build or fetch what is missing of *names*. Raises CalledProcessError; FileNotFoundError without Go."""
    go = shutil.which("go")
    for name in names:
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
    known = [*PACKAGES, *(f"schemas-{name}" for name in SCHEMAS)]
    names = sys.argv[1:] or known
    if unknown := set(names) - set(known):
        sys.stderr.write(f"no such tool: {', '.join(sorted(unknown))}\n")
        return 2
    install(names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
