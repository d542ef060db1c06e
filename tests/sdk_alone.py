"""A program that runs the command line as if no server were installed beside the SDK."""

WITH_SDK_ALONE = """
import importlib.machinery, sys

class OnlySDK:
    # Stands for an environment without the server: none of its packages can be found, nor its entry points.
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"api", "worker", "shared", "migrations"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlySDK())
import importlib.metadata
found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **asked: [
    entry for entry in found(**asked) if entry.dist.name == "deepfakestream"
]
from deepfakestream.cli import main
main(sys.argv[1:], prog_name="deepfakestream")
"""
"""Run it by ``python -c``, with the arguments of the command line."""
