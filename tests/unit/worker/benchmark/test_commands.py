"""The benchmark's command lines before anything is measured."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
WITHOUT = """
import sys
for name in {packages!r}:
    sys.modules[name] = None  # As if it were not installed.
from {module} import main
sys.exit(main({arguments!r}))
"""
MODULES = ("worker.benchmark.__main__", "worker.benchmark.service")
HEAVY = ("tqdm", "torch", "facenet_pytorch", "cv2", "matplotlib", "skimage", "PIL", "numpy")


def run(module, arguments, packages):
    code = WITHOUT.format(module=module, arguments=arguments, packages=packages)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", MODULES)
def test_help_does_not_import_what_is_measured(module):
    done = run(module, ["--help"], HEAVY)
    assert done.returncode == 0, done.stderr
    assert "--rounds" in done.stdout


@pytest.mark.parametrize(
    ("module", "given"),
    [(MODULES[0], []), (MODULES[1], ["--url", "http://127.0.0.1:9", "--api-key-file", __file__])],
    ids=["of scans", "of the service"],
)
def test_a_missing_package_is_reported_with_what_to_install(module, given):
    done = run(module, given, ["skimage"])
    program = "python -m " + module.removesuffix(".__main__")
    assert done.returncode == 2
    assert done.stderr == (
        f"{program}: the package 'skimage' is missing; install what the benchmark needs, from the checkout: "
        "pip install -c configs/constraints.txt -e '.[worker,train,demo]'\n"
    )
