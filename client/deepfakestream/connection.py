"""Which service the command line talks to: options, then the environment, then the stack of this machine."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from deepfakestream.errors import MissingPartError

URL_VARIABLE = "DEEPFAKESTREAM_URL"
KEY_VARIABLE = "DEEPFAKESTREAM_API_KEY"
STATE_VARIABLE = "DEEPFAKESTREAM_STATE"
CONNECTION_FILE = "connection.json"
"""Written by ``up`` into its state folder while it runs."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A service and a key to it."""

    url: str
    api_key: str


def default_state() -> Path:
    """The folder of the embedded stack unless another one is named."""
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "deepfakestream"


def operator_environment(state: Path) -> dict[str, str]:
    """The settings of the stack that runs with its state in *state*; none if none does."""
    try:
        found: dict[str, str] = json.loads((state / CONNECTION_FILE).read_text())["environment"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def find_connection(url: str | None, api_key: str | None, state: Path) -> Connection:
    """
    Decide which service to talk to.

    Raises:
        MissingPartError: Nothing says which.
    """
    url = url or os.environ.get(URL_VARIABLE)
    api_key = api_key or os.environ.get(KEY_VARIABLE)
    if url and api_key:
        return Connection(url, api_key)
    try:
        found = json.loads((state / CONNECTION_FILE).read_text())
        key = Path(found["api_key_file"]).read_text().strip()
    except (OSError, ValueError, KeyError):
        raise MissingPartError(
            f"no service to talk to: start one with 'deepfakestream up', or set {URL_VARIABLE} and {KEY_VARIABLE}"
        ) from None
    return Connection(url or found["url"], api_key or key)
