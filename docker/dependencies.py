"""
The requirements of an image, read from setup.cfg, so that no Dockerfile repeats them.

``dependencies.py api,s3`` prints the requirements of the project and of these extras; ``--strip-worker`` and
``--strip-training`` remove from the installed project what the image does not run. It uses the standard library only,
since nothing is installed yet when it runs.
"""

import configparser
import shutil
import sys
import sysconfig
from pathlib import Path

STRIPPED = {
    "--strip-worker": ("worker", "api/embedded"),
    "--strip-training": ("worker/training", "worker/benchmark", "api", "migrations"),
}


def main() -> int:
    """Run the command line."""
    [wanted] = sys.argv[1:]
    if wanted in STRIPPED:
        for name in STRIPPED[wanted]:
            shutil.rmtree(Path(sysconfig.get_path("purelib")) / name)
        return 0
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    extras = config["options.extras_require"]
    lines = [config["options"]["install_requires"], *(extras[name] for name in wanted.split(","))]
    sys.stdout.write("\n".join(line for block in lines for line in block.split("\n") if line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
