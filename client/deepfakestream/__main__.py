"""``python -m deepfakestream``: the command line, where its program is not on the path."""

from deepfakestream.cli import main

main()
