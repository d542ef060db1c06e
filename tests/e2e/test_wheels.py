"""The packages as wheels: they hold all that the service reads beside its code, and work away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.clips import hopper

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "worker", "shared", "migrations")


def tracked():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git, which says which files belong to it")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Build both wheels from a copy, since a build folder of earlier ones would add files that are gone."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in tracked():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(built), str(source), str(source / "client")], check=True)
    return sorted(built.glob("*.whl"))


def test_the_wheels_hold_every_file_of_the_packages(wheels):
    held = {name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()}
    wanted = {name for name in tracked() if name.split("/")[0] in PACKAGES and (ROOT / name).is_file()}
    wanted |= {
        name.removeprefix("client/")
        for name in tracked()
        if name.startswith("client/deepfakestream/") and (ROOT / name).is_file()
    }
    assert wanted - held == set()


def test_a_picture_is_scanned_away_from_the_checkout(wheels, tmp_path):
    installed = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(installed)]
    subprocess.run([*command, *map(str, wheels)], check=True)
    Image.fromarray(hopper()).save(tmp_path / "face.jpg")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPFAKESTREAM_")}
    environment["PYTHONPATH"] = str(installed)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    origin = run(
        "-c", "import api, deepfakestream, worker; print(api.__file__, deepfakestream.__file__, worker.__file__)"
    )
    assert all(path.startswith(str(installed)) for path in origin.stdout.split())
    scanned = run(str(installed / "bin" / "deepfakestream"), "scan", "--local", "--json", "face.jpg")
    assert scanned.returncode == 0, scanned.stderr
    assert '"status":"succeeded"' in scanned.stdout.replace(" ", "")
