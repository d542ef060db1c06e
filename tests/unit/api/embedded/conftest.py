"""Fixtures that tests of the client have, too: the command line in this process, and nothing configured."""

from tests.unit.client.conftest import command, nothing_configured

__all__ = ["command", "nothing_configured"]
